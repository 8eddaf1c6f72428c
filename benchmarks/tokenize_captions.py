"""Captions to a tensor of ids: Diptych beside open_clip's SimpleTokenizer.

    python benchmarks/tokenize_captions.py [--captions 20000] [--repetitions 9]

Captions are words of CLIP's own vocabulary drawn by Zipf's law, as many to a caption as in web captions (about 12
tokens). The two tokenizers take turns, and each ratio is of two neighbouring runs; the table gives medians. Both have
seen the captions once before ("warm": each keeps words it has met), except in the rows that say "first time", where
the captions are new to both. Needs open_clip_torch.
"""

import argparse
import random
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from peers import import_open_clip
from timing import alternate, describe_machine, ratio_with_spread

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


Tokenize = Callable[[list[str]], torch.Tensor]


def row(name: str, count: int, run: dict[str, Callable[[], object]], repetitions: int) -> str:
    """run: Diptych first, then open_clip; each works on `count` captions."""
    ours, theirs = alternate(run, repetitions).values()
    per_second = [count / statistics.median(times) for times in (ours, theirs)]
    return f"| {name} | {per_second[0]:,.0f} | {per_second[1]:,.0f} | {ratio_with_spread(theirs, ours)} |"


def on_next(tokenize: Tokenize, batches: Iterator[list[str]]) -> torch.Tensor:
    return tokenize(next(batches))


def one_by_one(tokenize: Tokenize, texts: Sequence[str]) -> None:
    for text in texts:
        tokenize([text])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    count, repetitions = arguments.captions, arguments.repetitions

    torch.set_num_threads(1)
    tokenizers: dict[str, Tokenize] = {
        "Diptych": partial(Tokenizer(), truncate=True),
        "open_clip": import_open_clip().tokenizer.SimpleTokenizer(),
    }
    rows = []
    for name, dirty in (("clean", 0.0), ("all dirty", 1.0)):
        warm = make_captions(count, 1, dirty)
        ours, theirs = (tokenize(warm).long() for tokenize in tokenizers.values())
        if not torch.equal(ours, theirs):
            raise SystemExit(f"the ids of the {name} captions differ")
        known: dict[str, Callable[[], object]] = {k: partial(run, warm) for k, run in tokenizers.items()}
        rows.append(row(f"{name}, warm", count, known, repetitions))
        times = min(3, repetitions)
        # One more, for the call that only warms up.
        fresh = [make_captions(count, 2 + i, dirty) for i in range(times + 1)]
        new: dict[str, Callable[[], object]] = {
            k: partial(on_next, run, iter(fresh)) for k, run in tokenizers.items()
        }
        rows.append(row(f"{name}, first time", count, new, times))
    texts = ["a photo of a dog on the beach"] * 1_000
    single: dict[str, Callable[[], object]] = {
        k: partial(one_by_one, run, texts) for k, run in tokenizers.items()
    }
    rows.append(row("one short caption a call", len(texts), single, repetitions))

    print(f"{count} captions, medians of {repetitions} alternating repetitions, ids equal")
    print(describe_machine("torch", "numpy", "open_clip_torch", "ftfy") + "\n")
    print("| captions | Diptych captions/s | open_clip captions/s | ratio (range) |\n|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
