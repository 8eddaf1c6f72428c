"""Captions to a tensor of ids: Diptych beside open_clip's SimpleTokenizer.

    python benchmarks/tokenize_captions.py [--captions 20000] [--repetitions 9]

Captions are words of CLIP's own vocabulary drawn by Zipf's law, as many to a caption as in web captions (about 12
tokens). The two tokenizers take turns, and each ratio is of two neighbouring runs; the table gives medians. Both have
seen the captions once before ("warm": each keeps words it has met), except in the rows that say "first time", where
the captions are new to both. Needs open_clip_torch.
"""

import argparse
import importlib.util
import os
import platform
import random
import runpy
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from diptych.tokenizer import Tokenizer

FREQUENT = ("a", "the", "of", "in", "on", "with", "and", "photo", "man", "woman", "dog", "red", "at")
DIRT = (
    "&amp; co",
    "café naïve",
    "\U0001f600\U0001f44d\U0001f3fd",
    "&lt;b&gt;",
    "北京",
    "“quoted” — dash",
    "Ã©tÃ©",
    "ﬁsh",
    "\tz\n q",
)


def make_captions(count: int, seed: int, dirty: float) -> list[str]:
    """Captions, of which the fraction `dirty` holds something that needs cleaning."""
    chance = random.Random(seed)
    table = Tokenizer()
    decoded = [table.decode([i]) for i in range(512, 49406)]
    rare = [word for word in decoded if word.isascii() and word.isalpha() and len(word) > 1]
    captions = []
    for _ in range(count):
        length = min(60, max(2, round(chance.lognormvariate(2.08, 0.55))))
        words = [
            chance.choice(FREQUENT)
            if chance.random() < 0.4
            else rare[min(len(rare) - 1, int(20 * chance.paretovariate(0.6)))]
            for _ in range(length)
        ]
        if chance.random() < 0.3:
            words[0] = words[0].capitalize()
        if chance.random() < 0.2:
            words.insert(chance.randrange(length), str(chance.randrange(2030)))
        if chance.random() < dirty:
            words.append(chance.choice(DIRT))
        captions.append(" ".join(words) + ("." if chance.random() < 0.4 else ""))
    return captions


def open_clip_tokenizer() -> Callable[[list[str]], torch.Tensor]:
    # The file alone: the package imports torchvision, which fails beside a torch of another build.
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise SystemExit("this benchmark compares with open_clip: pip install open_clip_torch")
    names = runpy.run_path(str(Path(package.origin).with_name("tokenizer.py")))
    tokenizer: Callable[[list[str]], torch.Tensor] = names["SimpleTokenizer"]()
    return tokenizer


def seconds(run: Callable[[list[str]], torch.Tensor], captions: list[str]) -> float:
    started = time.perf_counter()
    run(captions)
    return time.perf_counter() - started


def row(name: str, count: int, ours: Sequence[float], theirs: Sequence[float]) -> str:
    ratios = sorted(b / a for a, b in zip(ours, theirs, strict=True))
    per_second = [count / statistics.median(times) for times in (ours, theirs)]
    return (
        f"| {name} | {per_second[0]:,.0f} | {per_second[1]:,.0f} "
        f"| {statistics.median(ratios):.1f} | {ratios[0]:.1f} to {ratios[-1]:.1f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    count, repetitions = arguments.captions, arguments.repetitions

    torch.set_num_threads(1)
    theirs = open_clip_tokenizer()
    ours = Tokenizer()
    ours("build the tables")

    def diptych(captions: list[str]) -> torch.Tensor:
        return ours(captions, truncate=True)

    rows = []
    for name, dirty in (("clean", 0.0), ("all dirty", 1.0)):
        warm = make_captions(count, 1, dirty)
        # The first run of each is also the check that both compute the same.
        if not torch.equal(diptych(warm).long(), theirs(warm).long()):
            raise SystemExit(f"the ids of the {name} captions differ")
        times = [(seconds(diptych, warm), seconds(theirs, warm)) for _ in range(repetitions)]
        rows.append(row(f"{name}, warm", count, *zip(*times, strict=True)))
        fresh = [make_captions(count, 2 + i, dirty) for i in range(min(3, repetitions))]
        times = [(seconds(diptych, captions), seconds(theirs, captions)) for captions in fresh]
        rows.append(row(f"{name}, first time", count, *zip(*times, strict=True)))
    one = [["a photo of a dog on the beach"]] * 1_000
    times = [
        (sum(seconds(diptych, x) for x in one), sum(seconds(theirs, x) for x in one))
        for _ in range(repetitions)
    ]
    rows.append(row("one short caption a call", len(one), *zip(*times, strict=True)))

    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "open_clip_torch", "ftfy"))
    print(f"{count} captions, medians of {repetitions} alternating runs, one thread, ids equal")
    print(
        f"Python {platform.python_version()}, {versions}; {platform.machine()}, {os.cpu_count()} cores, ",
        end="",
    )
    print(f"load {os.getloadavg()[0]:.1f}\n" if hasattr(os, "getloadavg") else "load unknown\n")
    print("| captions | Diptych captions/s | open_clip captions/s | ratio | range |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
