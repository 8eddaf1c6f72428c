"""Cut the starter corpus in two: what every model of the experiment trains on, and the test in distribution.

    python experiments/emoji_shift/split.py CORPUS OUT

For each of the 1,399 concepts of the vendor-shift set that at least two of the training designers drew, one drawing,
chosen by a hash of the concept, goes to `in-distribution.tar`. The rest of the corpus is `train.tar`; the first
quarter of it by a hash of the key is `quarter.tar`. Nobody trains on `in-distribution.tar`: the same designers, other
drawings. The vendor-shift set has the same concepts by designers that nobody trained on.
"""

import hashlib
import json
import sys
import tarfile
from collections import defaultdict
from pathlib import Path

SHIFT = "eval-emoji-vendor-shift.tar"


def rank(text: str) -> int:
    """A number that only `text` decides, spread evenly."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def records(path: Path) -> dict[str, dict[str, object]]:
    """The JSON of each key of a shard."""
    found = {}
    with tarfile.open(path) as archive:
        for member in archive:
            if member.name.endswith(".json"):
                file = archive.extractfile(member)
                assert file is not None
                found[member.name.removesuffix(".json")] = json.load(file)
    return found


def held_out(shards: list[Path], codes: set[str]) -> set[tuple[str, str]]:
    """(shard, key) of the drawing of each concept that is kept from training."""
    drawings = defaultdict(list)
    for shard in shards:
        for key, record in records(shard).items():
            if record.get("code") in codes:
                drawings[str(record["code"])].append((str(record["vendor"]), shard.name, key))
    chosen = set()
    for code, found in drawings.items():
        if len(found) >= 2:
            chosen.add(sorted(found)[rank(code) % len(found)][1:])
    return chosen


def main(corpus: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    codes = {str(record["code"]) for record in records(corpus / SHIFT).values()}
    shards = sorted(corpus.glob("train-*.tar"))
    test = held_out(shards, codes)
    counts: dict[str, set[tuple[str, str]]] = defaultdict(set)
    with (
        tarfile.open(out / "train.tar", "w") as train,
        tarfile.open(out / "quarter.tar", "w") as quarter,
        tarfile.open(out / "in-distribution.tar", "w") as other,
    ):
        for shard in shards:
            with tarfile.open(shard) as archive:
                for member in archive:
                    key = member.name.split(".", 1)[0]
                    parts = [("in-distribution", other)] if (shard.name, key) in test else [("train", train)]
                    if parts[0][0] == "train" and rank(key) % 4 == 0:
                        parts.append(("quarter", quarter))
                    for name, target in parts:
                        target.addfile(member, archive.extractfile(member))
                        counts[name].add((shard.name, key))
    for name, keys in sorted(counts.items()):
        print(f"{name}.tar: {len(keys):,} pairs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
