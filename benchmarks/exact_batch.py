"""A step at the paper's batch of 32,768 on the CPU, exact: its time and memory beside plain steps of 256.

    python benchmarks/exact_batch.py [--batch 32768] [--chunk 256] [--plain 256] [--threads 2] [--repetitions 3]

The architecture is diptych-mini's, from random weights, in bfloat16 autocast; the pictures are noise without
augmentation, the captions everyday sentences. An exact step takes every chunk forward twice and back once (gradient
caching) and the loss tile by tile; arithmetic alone would make it 3/4 as fast as plain steps. The two take turns: in
each repetition one exact step and --plain-steps plain ones. Peak memory is that of the whole process, with Python,
PyTorch, the weights, Adam's moments and the 32,768 pictures; it is read in a process of its own, after one step.
"""

import argparse
import statistics

import torch
from memory import in_own_process, peak
from timing import alternate, describe_machine, ratio_with_spread
from trainers import Diptych, synthetic_batch

from diptych.models.architectures import Architecture, BagOfWords, ModifiedResNet
from diptych.training.towers import Chunking

# docs/diptych-mini.md
MINI = Architecture(
    embed_dim=256,
    image=ModifiedResNet(resolution=64, layers=(2, 2, 2, 2), width=32),
    text=BagOfWords(width=104, context_length=32),
)
AIM_BATCH, AIM_GIB = 32_768, 6


def memory(batch: int, chunk: int, threads: int) -> float:
    """MiB that a process held at most in which one exact step was taken."""
    torch.set_num_threads(threads)
    Diptych(MINI).step(synthetic_batch(MINI, batch), Chunking(chunk, chunk))
    return peak()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--batch", type=int, default=AIM_BATCH, help="pairs of the exact step")
    parser.add_argument("--chunk", type=int, default=256, help="pairs in memory at a time")
    parser.add_argument("--plain", type=int, default=256, help="pairs of a plain step")
    parser.add_argument("--plain-steps", type=int, default=16, help="plain steps of a repetition")
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    print(f"diptych-mini's architecture, medians of {arguments.repetitions} alternating repetitions")
    print(describe_machine("torch") + "\n")

    held = in_own_process(memory, arguments.batch, arguments.chunk, torch.get_num_threads())
    trainer = Diptych(MINI)
    exact, plain = synthetic_batch(MINI, arguments.batch), synthetic_batch(MINI, arguments.plain)

    def plain_steps() -> None:
        for _ in range(arguments.plain_steps):
            trainer.step(plain)

    plain_steps()
    trainer.step(
        plain, Chunking(arguments.plain // 2, arguments.plain // 2)
    )  # warms up at less than a whole step
    cases = {
        "exact": lambda: trainer.step(exact, Chunking(arguments.chunk, arguments.chunk)),
        "plain": plain_steps,
    }
    seconds = alternate(cases, arguments.repetitions, warm_up=False)
    pairs = {"exact": arguments.batch, "plain": arguments.plain * arguments.plain_steps}
    per_pair = {name: [time / pairs[name] for time in times] for name, times in seconds.items()}
    print(
        "| step | chunk | seconds a step | pairs a second | x plain | peak memory, GiB |\n|---|---|---|---|---|---|"
    )
    steps = {"exact": 1, "plain": arguments.plain_steps}
    sizes = {"exact": arguments.batch, "plain": arguments.plain}
    for name, times in per_pair.items():
        print(
            f"| {name}, {sizes[name]:,} | {arguments.chunk if name == 'exact' else ''} "
            f"| {statistics.median(seconds[name]) / steps[name]:.2f} | {1 / statistics.median(times):.1f} "
            f"| {ratio_with_spread(per_pair['plain'], times)} | {f'{held / 1024:.2f}' if name == 'exact' else ''} |"
        )
    if arguments.batch == AIM_BATCH:
        met = "met" if held <= 1024 * AIM_GIB else "missed"
        print(f"\nThe aim, at most {AIM_GIB} GiB, is {met}.")


if __name__ == "__main__":
    main()
