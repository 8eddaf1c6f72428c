"""Training on one GPU, beside open_clip on the same GPU: plain steps, and exact steps at the paper's batch of 32,768.

    python benchmarks/gpu_training.py [--models ViT-B/32 ViT-B/16 ViT-L/14] [--modes plain exact]
        [--implementations ...] [--steps 50] [--exact-steps 50] [--peak 989] [--dry-run]

Whole optimizer steps, bfloat16 autocast around float32 weights, on one batch that lies on the GPU as uint8 pictures of
noise and ids of everyday captions; both implementations normalise the pictures there. open_clip has its own model,
loss and AdamW at its best flags for one GPU: amp_bf16, TF32, with and without --torchcompile. "plain" takes the
largest of a list of batches that fits; "exact" takes one step over the whole batch, open_clip's with --accum-freq in
the largest parts that fit, Diptych's with its chunks (as `chunk = "auto"` finds them). Each case has a process of its
own. Speed is the median over five stretches of steps, the GPU's queue emptied only between stretches.

MFU is model FLOPs (three times the forward pass, whatever is computed twice) over the GPU's dense bfloat16 peak
(--peak, TFLOP/s; 989 is NVIDIA's figure for the H100 and the H200): once with texts of 77 tokens, as peers count, and
once with the tokens that the captions have. --dry-run is the whole script on the CPU at tiny sizes.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from memory import in_own_process
from peers import TINY
from timing import describe_machine
from torch import Tensor
from trainers import Diptych, OpenClip, synthetic_batch

from diptych.data.batch import Batch
from diptych.models.architectures import PUBLISHED, Architecture, TextTransformer, VisionTransformer
from diptych.training.planning.forecast import fitting_chunks
from diptych.training.towers import Chunking

IMPLEMENTATIONS = ("open_clip eager", "open_clip compiled", "Diptych eager", "Diptych compiled")
STRETCHES = 5  # in which the timed steps are taken
GIB = 2**30


@dataclass(frozen=True)
class Model:
    """What is tried, largest first; the first that fits is measured."""

    architecture: Architecture
    plain: tuple[int, ...]  # pairs of a plain step
    parts: tuple[int, ...]  # pairs of a part of open_clip's exact step


# The first entries are what 140 GiB should hold at the fewest bytes a pair that any implementation needs.
MODELS = {
    "ViT-B/32": Model(PUBLISHED["ViT-B/32"], (12288, 8192, 6144, 4096, 3072, 2048, 1024), (2048, 1024, 512)),
    "ViT-B/16": Model(PUBLISHED["ViT-B/16"], (4096, 3072, 2048, 1536, 1024, 512), (1024, 512, 256)),
    "ViT-L/14": Model(PUBLISHED["ViT-L/14"], (1024, 768, 512, 384, 256, 128), (512, 256, 128, 64)),
}


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    model: Model
    mode: str  # "plain" or "exact"
    implementation: str
    exact_batch: int  # pairs of an exact step
    chunk: int | None  # pairs of a chunk of Diptych's exact step; found when none
    warm_up: int  # steps
    steps: int
    device: str


@dataclass(frozen=True)
class Measurement:
    """seconds: of a step, one for each stretch. part: pairs that were in memory at a time."""

    batch: int
    part: int
    seconds: list[float]
    peak_bytes: int
    loss: float
    mean_tokens: float
    mean_squared_tokens: float

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return self.batch / statistics.median(self.seconds)


@dataclass(frozen=True)
class Attempt:
    """A step that may or may not fit into memory."""

    part: int
    batch: Batch
    step: Callable[[], Tensor | float]


def measure(case: Case) -> Measurement:
    """The first attempt that fits, warmed up and timed. Raises torch.OutOfMemoryError where none fits."""
    torch.manual_seed(0)
    for attempt in attempts(case):
        try:
            loss = float(attempt.step())
        except torch.OutOfMemoryError:
            forget(case.device)
            continue
        return timed(case, attempt, loss)
    raise torch.OutOfMemoryError("not even the smallest batch of the list fits")


def attempts(case: Case) -> Iterator[Attempt]:
    """What to try, one after another; nothing of an attempt is kept for the next but the weights."""
    name, _, how = case.implementation.partition(" ")
    architecture, compiled = case.model.architecture, how == "compiled"
    plain_sizes = case.model.plain if case.mode == "plain" else ()
    if name == "open_clip":
        if case.device == "cuda":
            # As its training script sets them; for Diptych the engine's own choice holds.
            torch.set_float32_matmul_precision("high")
            torch.backends.cudnn.benchmark = True
        theirs = OpenClip(architecture, "amp_bf16", case.device, compiled=compiled)
        for size in plain_sizes:
            batch = synthetic_batch(architecture, size, case.device)
            yield Attempt(size, batch, partial(theirs.step, batch.canvas, batch.tokens))
        if case.mode == "exact":
            batch = synthetic_batch(architecture, case.exact_batch, case.device)
            for part in case.model.parts:
                step = partial(theirs.step, batch.canvas, batch.tokens, case.exact_batch // part)
                yield Attempt(part, batch, step)
        return
    ours = Diptych(architecture, "bfloat16", case.device, compiled=compiled)
    for size in plain_sizes:
        batch = synthetic_batch(architecture, size, case.device)
        yield Attempt(size, batch, partial(ours.step, batch))
    if case.mode == "exact":
        batch = synthetic_batch(architecture, case.exact_batch, case.device)
        chunking = Chunking(case.chunk, case.chunk)
        if case.chunk is None:
            chunking = fitting_chunks(ours.recipe, ours.model, case.exact_batch, case.device)
        yield Attempt(chunking.images or case.exact_batch, batch, partial(ours.step, batch, chunking))


def timed(case: Case, attempt: Attempt, loss: float) -> Measurement:
    """Seconds of a step, in stretches."""
    for _ in range(case.warm_up):
        attempt.step()
    synchronise(case.device)
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    stretch = -(-case.steps // STRETCHES)
    seconds = []
    for _ in range(min(STRETCHES, case.steps)):
        start = time.perf_counter()
        for _ in range(stretch):
            attempt.step()
        synchronise(case.device)
        seconds.append((time.perf_counter() - start) / stretch)
    lengths = (attempt.batch.tokens.argmax(dim=1) + 1).double()
    return Measurement(
        batch=len(lengths),
        part=attempt.part,
        seconds=seconds,
        peak_bytes=torch.cuda.max_memory_allocated() if case.device == "cuda" else 0,
        loss=loss,
        mean_tokens=lengths.mean().item(),
        mean_squared_tokens=lengths.square().mean().item(),
    )


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def forget(device: str) -> None:
    """Give back what a failed attempt held, and the graphs compiled for its shapes."""
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()


def image_flops(architecture: Architecture) -> float:
    """Of one image's forward pass, a multiplication and an addition counted as two."""
    image = architecture.image
    if not isinstance(image, VisionTransformer):
        raise TypeError("the FLOPs of vision transformers alone are known here")
    patches = (image.resolution // image.patch) ** 2
    embedding = 2 * patches * 3 * image.patch**2 * image.width
    projection = 2 * image.width * architecture.embed_dim
    return embedding + projection + blocks_flops(image.width, image.layers, patches + 1, (patches + 1) ** 2)


def text_flops(architecture: Architecture, tokens: float, squared_tokens: float) -> float:
    """Of one text's forward pass, from the mean of its length and of the square of it."""
    text = architecture.text
    if not isinstance(text, TextTransformer):
        raise TypeError("the FLOPs of transformers alone are known here")
    projection = 2 * text.width * architecture.embed_dim
    return projection + blocks_flops(text.width, text.layers, tokens, squared_tokens)


def blocks_flops(width: int, layers: int, tokens: float, squared_tokens: float) -> float:
    """Of the blocks: 12 width^2 weights for each token; attention weighs and adds every token for every token."""
    return layers * (24 * width**2 * tokens + 4 * width * squared_tokens)


def utilisation(architecture: Architecture, found: Measurement, peak: float) -> tuple[float, float]:
    """MFU, 0..1, with texts of the whole context, and with the tokens that the captions have."""
    context = architecture.text.context_length
    texts = (
        text_flops(architecture, context, context**2),
        text_flops(architecture, found.mean_tokens, found.mean_squared_tokens),
    )
    whole, real = (3 * (image_flops(architecture) + text) * found.rate / (peak * 1e12) for text in texts)
    return whole, real


def row(name: str, case: Case, found: Measurement, peak: float) -> str:
    whole, real = utilisation(case.model.architecture, found, peak)
    low, high = (found.batch / second for second in (max(found.seconds), min(found.seconds)))
    return (
        f"| {name} | {case.mode} {found.batch:,} | {case.implementation} | {found.part:,} | {case.steps} "
        f"| {found.rate:,.0f} ({low:,.0f} to {high:,.0f}) | {found.peak_bytes / GIB:.1f} "
        f"| {whole:.1%} | {real:.1%} | {found.loss:.3f} |"
    )


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--modes", nargs="+", choices=("plain", "exact"), default=["plain", "exact"])
    parser.add_argument(
        "--implementations", nargs="+", choices=IMPLEMENTATIONS, default=list(IMPLEMENTATIONS)
    )
    parser.add_argument("--exact-batch", type=int, default=32_768, help="pairs of an exact step")
    parser.add_argument(
        "--chunk", type=int, help="pairs of a chunk of Diptych's exact step; found when not given"
    )
    parser.add_argument("--warm-up", type=int, default=3, help="steps before the timed ones")
    parser.add_argument("--steps", type=int, default=50, help="timed plain steps")
    parser.add_argument("--exact-steps", type=int, default=50, help="timed exact steps")
    parser.add_argument("--peak", type=float, default=989.0, help="dense bfloat16 peak of the GPU in TFLOP/s")
    parser.add_argument("--dry-run", action="store_true", help="tiny sizes on the CPU: only see that it runs")
    return parser.parse_args()


def cases(arguments: argparse.Namespace) -> Iterator[tuple[str, Case]]:
    """The rows of the table, each with the name of its model."""
    for name in arguments.models:
        for mode in arguments.modes:
            for implementation in arguments.implementations:
                yield (
                    name,
                    Case(
                        model=MODELS[name],
                        mode=mode,
                        implementation=implementation,
                        exact_batch=arguments.exact_batch,
                        chunk=arguments.chunk,
                        warm_up=arguments.warm_up,
                        steps=arguments.steps if mode == "plain" else arguments.exact_steps,
                        device="cuda",
                    ),
                )


def dry_cases() -> Iterator[tuple[str, Case]]:
    """Every path but the compiler's and the GPU's, at tiny sizes."""
    for mode in ("plain", "exact"):
        for implementation in ("open_clip eager", "Diptych eager"):
            yield "tiny", Case(Model(TINY, (4,), (4,)), mode, implementation, 8, 4, 0, 1, "cpu")


def main() -> None:
    arguments = parsed()
    if not arguments.dry_run and not torch.cuda.is_available():
        raise SystemExit("no GPU that PyTorch can use; --dry-run runs the script on the CPU at tiny sizes")
    where = "the CPU: a dry run, whose figures mean nothing"
    if not arguments.dry_run:
        where = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
    print(f"Training on {where}\n{describe_machine('torch', 'open_clip_torch')}\n")
    print(
        "| model | pairs a step | implementation | in memory at a time | steps | pairs a second (range) | peak GiB "
        "| MFU, whole context | MFU, real tokens | first loss |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    failed = []
    for name, case in dry_cases() if arguments.dry_run else cases(arguments):
        try:
            # A failed case leaves memory and compiled graphs behind; its process takes them along.
            found = measure(case) if arguments.dry_run else in_own_process(measure, case)
        except Exception as error:  # the other cases cost GPU hours too; what failed is raised at the end
            failed.append(f"{name}, {case.mode}, {case.implementation}: {type(error).__name__}: {error}")
            continue
        print(row(name, case, found, arguments.peak), flush=True)
    if failed:
        raise SystemExit("\n".join(["", "failed:", *failed]))


if __name__ == "__main__":
    main()
