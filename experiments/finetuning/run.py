"""Fine-tune diptych-mini in every way on three sets, and write what was gained and lost as a table.

    python experiments/finetuning/run.py OUT --corpus CORPUS        about an hour on two cores
    python experiments/finetuning/run.py OUT --quick                seconds, on the bundled sample; proves nothing

Each run lies in OUT/runs; what is done is skipped, and what was stopped goes on. DIPTYCH_DATA has Fashion-MNIST. Three
seeds for `full`, `lp-ft` and `wise-ft`, one for all others. OUT/finetuning.md is the result; copy it to docs/results.
"""

import argparse
import contextlib
import io
import json
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.cli.__main__ import main as diptych
from diptych.data.example import Example
from diptych.data.sources import open_source
from diptych.evaluation.datasets.benchmark import default_root, open_benchmark

SEVERAL_SEEDS = ("full", "lp-ft", "wise-ft")
ONCE = ("head", "flyp", "lit", "lora")
GROUPS = (
    "activities", "animals & nature", "flags", "food & drink", "objects", "people & body", "smileys & emotion",
    "symbols", "travel & places",
)  # fmt: skip
FASHION = (
    "t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip
TRAINED, TESTED, SHOTS = 400, 100, 16  # pictures a class


@dataclass(frozen=True)
class Set:
    """Folders with a folder a class. shift: the same classes in another style, where there is one."""

    name: str
    train: Path
    test: Path
    shift: Path | None


def main() -> None:
    asked = _arguments()
    sets = list(_quick_sets(asked.out) if asked.quick else _sets(asked.out, asked.corpus))
    for one in sets:
        others = [str(other.test) for other in sets if other.test != one.test][:1]
        for method, seed in _jobs(asked.quick):
            _run(asked.out, one, method, seed, others, quick=asked.quick)
    target = asked.out / "finetuning.md"
    target.write_text(page(asked.out, sets, quick=asked.quick))
    print(target)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    if not asked.quick and asked.corpus is None:
        parser.error("--corpus: name the folder of the starter corpus, or give --quick")
    return asked


def _jobs(quick: bool) -> Iterator[tuple[str, int]]:
    if quick:
        yield from (("wise-ft", 0), ("head", 0))
        return
    for method in SEVERAL_SEEDS:
        yield from ((method, seed) for seed in range(3))
    yield from ((method, 0) for method in ONCE)


def _sets(out: Path, corpus: Path) -> Iterator[Set]:
    """Emoji by one of nine groups, sixteen of each, and Fashion-MNIST.

    Emoji of the corpus' shards, by designers that diptych-mini has seen with their names, never with their groups; the
    shift is drawn by designers that it has not seen. Nothing that is tested on is trained on.
    """
    data = out / "data"
    shards = [open_source(shard) for shard in sorted(corpus.glob("train-*.tar"))]
    drawn = [
        (example, _group(example))
        for shard in shards
        for example in map(shard.__getitem__, range(len(shard)))
    ]
    emoji = [(example, group) for example, group in drawn if group is not None]
    shifted = open_source(corpus / "eval-emoji-vendor-shift.tar")
    shift = [(example, _group(example)) for example in map(shifted.__getitem__, range(len(shifted)))]
    # By the concept, so that no concept is drawn in both parts.
    test = [pair for pair in emoji if _hash(str(pair[0].group)) % 5 == 0]
    train = [pair for pair in emoji if _hash(str(pair[0].group)) % 5]
    _write(test, data / "emoji-test", TESTED)
    _write(train, data / "emoji-train", TRAINED)
    _write(train, data / "emoji-16", SHOTS)
    held = [pair for pair in shift if _hash(str(pair[0].group)) % 5 == 0]
    _write(held, data / "emoji-shift", TESTED)
    for part, count in (("train", TRAINED), ("test", TESTED)):
        source = open_benchmark("fashion_mnist", default_root(), part).source
        pairs = (
            (example, FASHION[int(str(example.label))])
            for example in map(source.__getitem__, range(len(source)))
        )
        _write(pairs, data / f"fashion-{part}", count, len(FASHION))
    yield Set("emoji groups", data / "emoji-train", data / "emoji-test", data / "emoji-shift")
    yield Set("16 emoji a group", data / "emoji-16", data / "emoji-test", data / "emoji-shift")
    yield Set("Fashion-MNIST", data / "fashion-train", data / "fashion-test", None)


def _quick_sets(out: Path) -> Iterator[Set]:
    """Which of two designers drew a picture: nothing that anybody wants to know, but it lies in the package."""
    source = open_source("sample:train")
    drawn = [
        (example, str(example.metadata.get("vendor")))
        for example in map(source.__getitem__, range(len(source)))
    ]
    known = [(example, name) for example, name in drawn if name in ("noto", "twemoji")]
    # Designers take turns in the sample.
    _write([pair for number, pair in enumerate(known) if number % 4 < 2], out / "data" / "train", 8)
    _write([pair for number, pair in enumerate(known) if number % 4 > 1], out / "data" / "test", 4)
    yield Set("sample", out / "data" / "train", out / "data" / "test", out / "data" / "test")


def _group(example: Example) -> str | None:
    found = str(example.metadata.get("group"))
    return found if found in GROUPS else None


def _hash(text: str) -> int:
    return sum(text.encode()) * 2_654_435_761 % 2**32 >> 8


def _write(
    pairs: Iterable[tuple[Example, str | None]], folder: Path, most: int, classes: int | None = None
) -> None:
    """The first `most` pictures of each class as files; nothing where the folder is there. classes: how "
    "many, where known."""
    if folder.exists():
        return
    counts: Counter[str] = Counter()
    half = folder.with_name(f"{folder.name}.part")
    for example, label in pairs:
        if label is None or counts[label] >= most:
            continue
        counts[label] += 1
        place = half / label.replace(" ", "_")
        place.mkdir(parents=True, exist_ok=True)
        image = example.image if isinstance(example.image, bytes) else example.image.read_bytes()
        suffix = ".webp" if image[8:12] == b"WEBP" else ".png"
        (place / f"{counts[label]:05d}{suffix}").write_bytes(image)
        if classes is not None and len(counts) == classes and min(counts.values()) == most:
            break
    half.rename(folder)


def _place(out: Path, one: Set, method: str, seed: int) -> Path:
    return out / "runs" / f"{one.name.replace(' ', '-')}-{method}-{seed}"


def _run(out: Path, one: Set, method: str, seed: int, others: Sequence[str], *, quick: bool) -> None:
    folder = _place(out, one, method, seed)
    if (folder / "finetune.json").exists():
        return
    places = [one.test, *([one.shift] if one.shift is not None else [])]
    arguments = [
        "finetune",
        str(one.train),
        "--out",
        str(folder),
        "--method",
        method,
        "--seed",
        str(seed),
        "--json",
    ]
    for place in places:
        arguments += ["--shift", str(place)]
    for place in ["none"] if quick else ["sample:test", *others]:
        arguments += ["--keep", place]
    arguments += ["--device", "cpu", "--set", "finetune.alphas=[0.0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1.0]"]
    if quick:
        arguments += ["--set", "training.steps=2", "--set", "evaluation.every_steps=1"]
        arguments += ["--set", "finetune.alphas=[0.0,0.5,1.0]"]
    if (folder / "recipe.json").exists():
        arguments.append("--resume")
    print(f"{folder.name} ...", file=sys.stderr)
    with contextlib.redirect_stdout(io.StringIO()):
        code = diptych(arguments)
    if code:
        raise SystemExit(f"{folder.name}: failed; see above")


def page(out: Path, sets: Sequence[Set], *, quick: bool) -> str:
    """The table, and whether some alpha beats both ends."""
    lines = ["# Fine-tuning diptych-mini", "", (__doc__ or "").splitlines()[0], ""]
    if quick:
        lines += ["**A quick run: too few pictures and steps to say anything.**", ""]
    lines += [
        f"At most {TRAINED} training pictures a class, a part of which was held out to choose the step, "
        f"and at most {TESTED} "
        "test pictures a class of other concepts. The held-out part is not in this table. Figures are "
        "top-1 in %, the mean "
        "of the seeds and, where there are three, their standard deviation. The other tasks are by words: "
        "`sample:test`, "
        "and the test part of another set.",
        "",
    ]
    for one in sets:
        lines += [
            f"## {one.name}",
            "",
            "| method | seeds | in distribution | vendor shift | other tasks |",
            "|---|---|---|---|---|",
        ]
        lines += _rows(out, one, quick)
        lines += ["", *_alphas(out, one, quick), ""]
    return "\n".join(lines)


def _figures(out: Path, one: Set, method: str, quick: bool) -> list[dict[str, Any]]:
    seeds = [seed for name, seed in _jobs(quick) if name == method]
    return [json.loads((_place(out, one, method, seed) / "finetune.json").read_text()) for seed in seeds]


def _rows(out: Path, one: Set, quick: bool) -> Iterator[str]:
    methods = list(dict.fromkeys(method for method, _ in _jobs(quick)))
    start = _figures(out, one, methods[0], quick)[0]["before"]
    yield f"| before | | {' | '.join(_cell([value]) for value in _parts(start))} |"
    for method in methods:
        runs = _figures(out, one, method, quick)
        cells = zip(*(_parts(run["after"]) for run in runs), strict=True)
        yield f"| `{method}` | {len(runs)} | {' | '.join(_cell(list(values)) for values in cells)} |"


def _parts(reports: dict[str, Any]) -> tuple[float | None, float | None, float | None]:
    """In distribution, under the shift, and the mean of the other tasks."""

    def top1(name: str) -> float | None:
        return reports[name]["metrics"]["top1"] if name in reports else None

    kept = [value for name in reports if name.startswith("kept") and (value := top1(name)) is not None]
    first = top1("shift_1") if "shift_1" in reports else top1("shift")
    return first, top1("shift_2"), statistics.fmean(kept) if kept else None


def _cell(values: Sequence[float | None]) -> str:
    known = [100 * value for value in values if value is not None]
    if not known:
        return "-"
    spread = f" ± {statistics.stdev(known):.1f}" if len(known) > 1 else ""
    return f"{statistics.fmean(known):.1f}{spread}"


def _alphas(out: Path, one: Set, quick: bool) -> Iterator[str]:
    """Whether some alpha of `wise-ft` beats both ends on the sum of in distribution, shift and other tasks."""
    for seed, run in enumerate(_figures(out, one, "wise-ft", quick)):
        totals = {}
        for point in run["curve"]:
            values = {name: {"metrics": {"top1": point["metrics"][f"{name}_top1"]}} for name in run["before"]}
            totals[point["alpha"]] = sum(value for value in _parts(values) if value is not None)
        best = max((alpha for alpha in totals if 0 < alpha < 1), key=totals.__getitem__)
        gain = 100 * (totals[best] - max(totals[0.0], totals[1.0]))
        verb = "beats both ends" if gain > 0 else "does not beat the better end"
        yield (
            f"- `wise-ft`, seed {seed}: on the sum of the columns alpha {best:g} {verb} ({gain:+.1f} points; "
            f"start {100 * totals[0.0]:.1f}, end {100 * totals[1.0]:.1f}). The alpha was chosen on these tests."
        )


if __name__ == "__main__":
    main()
