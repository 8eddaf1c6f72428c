"""Training steps a second on the CPU, beside open_clip in the same process.

    python benchmarks/train.py [--threads 2] [--repetitions 7] [--configurations ViT-B/32 small] [--quick]

Whole optimizer steps on one batch of noise and of everyday captions (about 13 tokens, of the 77 that fit). All three
start from the same weights and take turns; the ratios are medians over repetitions, with the lowest and the highest.
open_clip has its own model, loss and AdamW, as its training script calls them, and pictures that are normalised
already. Diptych takes its recipe's path: uint8 pictures, bfloat16 autocast around float32 weights, fused AdamW, texts
cut after the last end token of the batch. --quick is a smoke test: a tiny model, one repetition.
"""

import argparse
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from peers import TINY
from timing import alternate, describe_machine, median_ratio, ratio_with_spread
from trainers import Diptych, OpenClip, normalised, synthetic_batch

from diptych.models.architectures import PUBLISHED, Architecture, TextTransformer, VisionTransformer

FLOAT32, BFLOAT16, OURS = "open_clip float32", "open_clip amp_bf16", "Diptych bfloat16"


@dataclass(frozen=True)
class Configuration:
    architecture: Architecture
    batch: int  # pairs of a step
    aims: dict[str, float]  # times as fast as each of these


CONFIGURATIONS = {
    "ViT-B/32": Configuration(PUBLISHED["ViT-B/32"], 32, {FLOAT32: 4.2, BFLOAT16: 1.4}),
    "small": Configuration(
        Architecture(
            embed_dim=256,
            image=VisionTransformer(resolution=64, patch=8, width=256, layers=6),
            text=TextTransformer(width=256, layers=4, context_length=32),
        ),
        256,
        {FLOAT32: 3.2},
    ),
}


def steps(configuration: Configuration) -> dict[str, Callable[[], object]]:
    """One step of each implementation, all from the same weights and on the same pairs."""
    architecture, size = configuration.architecture, configuration.batch
    batch = synthetic_batch(architecture, size)
    pixels = normalised(batch.canvas)
    slow, fast = OpenClip(architecture, "float32"), OpenClip(architecture, "amp_bf16")
    ours = Diptych(architecture)
    weights = slow.bare.state_dict()
    fast.bare.load_state_dict(weights)
    ours.model.load_state_dict(weights)
    return {
        FLOAT32: partial(slow.step, pixels, batch.tokens),
        BFLOAT16: partial(fast.step, pixels, batch.tokens),
        OURS: partial(ours.step, batch),
    }


def table(name: str, configuration: Configuration, repetitions: int) -> list[str]:
    """A row for each implementation, and one sentence for each aim."""
    cases = steps(configuration)
    # The first step of each is also the check that all compute the same.
    losses = {case: float(step()) for case, step in cases.items()}  # type: ignore[arg-type]
    if max(losses.values()) - min(losses.values()) > 0.02:
        raise SystemExit(f"{name}: the first losses differ by more than bfloat16 explains: {losses}")
    seconds = alternate(cases, repetitions)
    rows = []
    for case, times in seconds.items():
        median = statistics.median(times)
        rows.append(
            f"| {name} | {configuration.batch} | {case} | {configuration.batch / median:.1f} | {1e3 * median:.0f} "
            f"| {ratio_with_spread(seconds[FLOAT32], times)} | {ratio_with_spread(seconds[BFLOAT16], times)} "
            f"| {losses[case]:.4f} |"
        )
    for case, aim in configuration.aims.items():
        ratio = median_ratio(seconds[case], seconds[OURS])
        verdict = "met" if ratio >= aim else "missed"
        rows.append(f"\n{name}: {ratio:.2f} times as fast as {case}; the aim, {aim}, is {verdict}.")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument(
        "--configurations", nargs="+", choices=list(CONFIGURATIONS), default=list(CONFIGURATIONS)
    )
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    chosen = {name: CONFIGURATIONS[name] for name in arguments.configurations}
    if arguments.quick:
        chosen, arguments.repetitions = {"tiny": Configuration(TINY, 4, {})}, 1
    print(f"Training steps, medians of {arguments.repetitions} alternating repetitions")
    print(describe_machine("torch", "open_clip_torch"))
    for name, configuration in chosen.items():
        tokens = synthetic_batch(configuration.architecture, configuration.batch).tokens
        lengths = (tokens.argmax(dim=1) + 1).float()
        print(f"\n{name}: captions of {lengths.mean():.1f} tokens, the longest {lengths.max():.0f}\n")
        print(
            "| configuration | batch | implementation | pairs a second | ms a step | x open_clip float32 "
            "| x open_clip amp_bf16 | first loss |\n|---|---|---|---|---|---|---|---|"
        )
        print("\n".join(table(name, configuration, arguments.repetitions)), flush=True)


if __name__ == "__main__":
    main()
