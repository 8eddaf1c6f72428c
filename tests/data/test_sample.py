import re
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import platformdirs
import pytest

from diptych.data import Example, open_source
from diptych.data.images.decoding import open_image
from diptych.data.sources.sample import PARTS, sample_shard
from diptych.errors import DataError

NOTICE = Path(__file__).parents[2] / "NOTICE"


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[Example]]]:
    """All examples of all parts; the index goes to a cache folder of this file's own."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(cache))
        sources = {part: open_source(f"sample:{part}") for part in PARTS}
        yield {part: [source[at] for at in range(len(source))] for part, source in sources.items()}


@pytest.mark.parametrize(("part", "count", "emoji"), [("train", 2298, 1398), ("test", 500, 300)])
def test_the_sample_has_its_pairs(
    sample: dict[str, list[Example]], part: str, count: int, emoji: int
) -> None:
    examples = sample[part]
    assert len(examples) == count
    assert all(example.captions for example in examples)
    assert len({example.key for example in examples}) == count
    grouped = [example.group for example in examples if example.group is not None]
    assert (len(grouped), len(set(grouped))) == (emoji, 300)
    assert {open_image(example.image).size for example in examples[::50]} == {(64, 64)}


def test_the_designer_of_the_test_part_is_absent_from_training(sample: dict[str, list[Example]]) -> None:
    vendors = {
        part: {example.metadata.get("vendor") for example in examples} - {None}
        for part, examples in sample.items()
    }
    assert vendors["test"] == {"fluent-3d"}
    assert vendors["train"] == {"noto", "noto-v1", "twemoji", "emojione", "fxemoji"}


def test_the_notice_counts_every_image_of_the_sample(sample: dict[str, list[Example]]) -> None:
    counts: Counter[str] = Counter()
    for example in chain.from_iterable(sample.values()):
        row = example.metadata
        if row["source"] == "openclipart 0.18":
            counts["Public domain Open Clip Art authors, named below (from Open Clip Art 0.18)"] += 1
        else:
            counts[f"{row['licence']} {row['author']} (from {row['source']})"] += 1
    lines = re.findall(r"^ *([\d,]+)  (\S.*)$", NOTICE.read_text(encoding="utf-8"), re.MULTILINE)
    noted = Counter({" ".join(text.split()): int(count.replace(",", "")) for count, text in lines})
    assert noted == counts
    assert counts.total() == 2811


def test_opening_the_sample_writes_nothing_into_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda *_, **__: str(tmp_path))
    folder = sample_shard("train").parent
    before = sorted(folder.iterdir())
    open_source("sample:test")
    assert sorted(folder.iterdir()) == before
    assert len(list(tmp_path.rglob("*.index.json"))) == 1


def test_an_unknown_part_is_an_error_that_names_the_parts() -> None:
    with pytest.raises(DataError, match=r"sample:validation: .* sample:train, sample:test"):
        open_source("sample:validation")
