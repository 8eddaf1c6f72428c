"""Memory and time of the tiled softmax loss beside the plain one: the loss and its gradients.

    python benchmarks/tiled_loss.py [--sizes 4096 16384] [--tiled-alone 32768] [--dim 512] [--repetitions 7]

Memory: the most that a process of its own held during one call, less what it held just before, with both features
there, so that the gradients count and the inputs do not. The process has called the loss on 256 rows first, so that
thread pools and libraries are loaded.
Time: both take turns in one process; the ratio is the median over repetitions, with the lowest and the highest.
Features are random unit vectors in float32, partners with a cosine of about 0.7, the temperature at its start, 0.07.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from memory import growth, in_own_process
from timing import alternate, describe_machine, median_ratio, ratio_with_spread
from torch import Tensor

from diptych.objectives.infonce import infonce
from diptych.objectives.pairs import Pairs
from diptych.objectives.tiled import tiled_infonce

AIM_SIZE, AIM_MIB, AIM_RATIO = 16_384, 300, 1.5
Inputs = tuple[Tensor, Tensor, Tensor]  # left and right features, and the scale


def plain(left: Tensor, right: Tensor, scale: Tensor) -> tuple[Tensor, int]:
    return infonce(Pairs.whole(left, right), scale)


LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, int]]] = {
    "plain": plain,
    "tiled": tiled_infonce,
}


def features(size: int, dim: int) -> Inputs:
    random = torch.Generator().manual_seed(0)
    left = F.normalize(torch.randn(size, dim, generator=random), dim=-1)
    # In many dimensions two random unit vectors are nearly orthogonal: the cosine is 1 / sqrt 2.
    right = F.normalize(left + F.normalize(torch.randn(size, dim, generator=random), dim=-1), dim=-1)
    scale = torch.tensor(1 / 0.07)
    return left.requires_grad_(), right.requires_grad_(), scale.requires_grad_()


def gradients(loss: str, inputs: Inputs) -> tuple[Tensor, ...]:
    total, count = LOSSES[loss](*inputs)
    return torch.autograd.grad(total / count, inputs)


def memory(loss: str, size: int, dim: int, threads: int) -> float:
    """MiB that the loss and its gradients needed beyond their inputs."""
    torch.set_num_threads(threads)
    gradients(loss, features(256, dim))
    return growth(partial(gradients, loss, features(size, dim)))


def difference(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> float:
    """The largest difference of a gradient, as a part of the largest value of that gradient."""
    pairs = zip(one, other, strict=True)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in pairs)


def compare(size: int, dim: int, repetitions: int) -> list[str]:
    """Both losses at one size."""
    held = {loss: in_own_process(memory, loss, size, dim, torch.get_num_threads()) for loss in LOSSES}
    inputs = features(size, dim)
    cases: dict[str, Callable[[], object]] = {loss: partial(gradients, loss, inputs) for loss in LOSSES}
    seconds = alternate(cases, repetitions)
    apart = difference(gradients("tiled", inputs), gradients("plain", inputs))
    rows = [
        f"| {size:,} | {loss} | {held[loss]:,.0f} | {statistics.median(times):.3f} "
        f"| {ratio_with_spread(seconds['plain'], times)} | {apart if loss == 'tiled' else 0:.0e} |"
        for loss, times in seconds.items()
    ]
    if size == AIM_SIZE:
        ratio = median_ratio(seconds["plain"], seconds["tiled"])
        met = "met" if held["tiled"] <= AIM_MIB and ratio >= AIM_RATIO else "missed"
        rows.append(
            f"\nThe aim at {size:,}, at most {AIM_MIB} MiB and at least {AIM_RATIO} times as fast, is {met}: "
            f"{held['tiled']:.0f} MiB, {ratio:.2f} times as fast."
        )
    return rows


def tiled_alone(size: int, dim: int, repetitions: int) -> str:
    """The tiled loss at a size for which the plain one has no room."""
    held = in_own_process(memory, "tiled", size, dim, torch.get_num_threads())
    seconds = alternate({"tiled": partial(gradients, "tiled", features(size, dim))}, repetitions)["tiled"]
    return f"| {size:,} | tiled | {held:,.0f} | {statistics.median(seconds):.3f} | | |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, help="processor cores to use; PyTorch's choice when not given")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4_096, AIM_SIZE], help="rows of each side")
    parser.add_argument("--tiled-alone", type=int, nargs="*", default=[32_768])
    parser.add_argument("--dim", type=int, default=512)
    arguments = parser.parse_args()
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    print(f"Softmax loss with gradients, d = {arguments.dim}, medians of {arguments.repetitions} repetitions")
    print(describe_machine("torch") + "\n")
    head = "| rows | loss | peak memory, MiB | seconds | times as fast as plain | gradient differs by |"
    print(head + "\n|---|---|---|---|---|---|")
    for size in arguments.tiled_alone:
        print(tiled_alone(size, arguments.dim, min(arguments.repetitions, 3)), flush=True)
    for size in arguments.sizes:
        print("\n".join(compare(size, arguments.dim, arguments.repetitions)), flush=True)


if __name__ == "__main__":
    main()
