"""Damage to an index's files: `verify` finds every kind of it."""

import hashlib
import json
import random
import shutil
from pathlib import Path

import pytest

from diptych.errors import SearchIndexError
from diptych.search.building.build import refresh
from diptych.search.integrity import verify
from diptych.search.stores.ledger import Ledger
from tests.search.fake_encoder import Contained, FakeEncoder

TABLE = "images-000001.lance"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index that has been added to, deleted from and compacted."""
    place = tmp_path_factory.mktemp("whole") / "index"
    pictures = {f"{number:02}": b"picture %d" % number for number in range(20)}
    refresh(place, Contained("/x.tar", pictures), FakeEncoder(), commit_rows=5)
    del pictures["07"]
    refresh(place, Contained("/x.tar", pictures), FakeEncoder())
    verify(place)
    return place


@pytest.fixture
def place(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "index")
    return tmp_path / "index"


def covered(place: Path) -> list[Path]:
    """Every file that has any bytes."""
    return sorted(file for file in place.rglob("*") if file.is_file() and file.stat().st_size)


def test_verify_says_what_it_has_read(place: Path) -> None:
    found = verify(place)
    files = [file for file in covered(place / TABLE) if file.name != "latest_version_hint.json"]
    assert (found.files, found.images, found.thumbnails) == (len(files), 19, 19)


def test_a_flipped_bit_is_found_in_every_file(whole: Path, place: Path) -> None:
    dice = random.Random(0)
    files = covered(whole)
    assert {file.relative_to(whole).parts[0] for file in files} == {
        "index.json",
        TABLE,
        f"{TABLE}.sha256",
        "thumbnails",
    }
    for file in files:
        target = place / file.relative_to(whole)
        data = bytearray(file.read_bytes())
        for _ in range(4):
            at, bit = dice.randrange(len(data)), 1 << dice.randrange(8)
            data[at] ^= bit
            target.write_bytes(data)
            with pytest.raises(SearchIndexError):
                verify(place)
            data[at] ^= bit
        target.write_bytes(data)
    verify(place)


@pytest.mark.nightly
def test_two_thousand_flipped_bits_are_found(whole: Path, place: Path) -> None:
    dice = random.Random(1)
    files = covered(whole)
    for _ in range(2000):
        file = dice.choice(files)
        target = place / file.relative_to(whole)
        data = bytearray(file.read_bytes())
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        target.write_bytes(data)
        with pytest.raises(SearchIndexError):
            verify(place)
        shutil.copyfile(file, target)


def test_a_cut_and_a_missing_file_are_found_and_named(whole: Path, place: Path) -> None:
    for file in covered(whole):
        target = place / file.relative_to(whole)
        target.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        if target.name != "latest_version_hint.json":
            with pytest.raises(SearchIndexError, match=target.stem.split("-")[0]):
                verify(place)
        target.unlink()
        if target.name != "latest_version_hint.json":  # Lance looks for the latest version itself
            with pytest.raises(SearchIndexError, match=target.stem.split("-")[0]):
                verify(place)
        shutil.copyfile(file, target)
    verify(place)


def test_swapped_files_are_found(place: Path) -> None:
    one, other, *_ = sorted((place / TABLE / "data").iterdir())
    one.rename(place / "aside")
    other.rename(one)
    (place / "aside").rename(other)
    with pytest.raises(SearchIndexError, match="damaged"):
        verify(place)


def test_what_an_interrupted_write_left_is_no_damage(place: Path) -> None:
    left = place / TABLE / "data" / "left.lance"
    left.write_bytes(b"half a file")
    with (place / f"{TABLE}.sha256").open("ab") as file:
        file.write(b"0123456789abc")
    verify(place)
    # The next writer takes it on.
    pictures = {f"{number:02}": b"picture %d" % number for number in range(21)}
    refresh(place, Contained("/x.tar", pictures), FakeEncoder())
    verify(place)
    left.write_bytes(b"half a filf")
    with pytest.raises(SearchIndexError, match=r"left\.lance"):
        verify(place)


def test_files_that_an_interrupted_cleaning_removed_are_no_damage(place: Path) -> None:
    Ledger(place / TABLE).cleaning()
    oldest = max((place / TABLE / "_versions").glob("*.manifest"))
    oldest.unlink()
    verify(place)
    Ledger(place / TABLE).cleaned()
    verify(place)
    needed = min((place / TABLE / "_versions").glob("*.manifest"))
    needed.unlink()
    with pytest.raises(SearchIndexError, match=needed.name):
        verify(place)


def test_a_needed_file_that_is_gone_is_found_in_an_interrupted_cleaning_too(place: Path) -> None:
    Ledger(place / TABLE).cleaning()
    for file in (place / TABLE / "data").iterdir():
        file.unlink()
    with pytest.raises(SearchIndexError, match="Not found"):
        verify(place)


def test_the_ledger_is_what_sha256sum_reads(place: Path) -> None:
    lines = (place / f"{TABLE}.sha256").read_text().splitlines()
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((place / TABLE / name).read_bytes()).hexdigest() == digest


def test_a_hint_of_a_version_that_is_not_there_is_found(place: Path) -> None:
    hint = place / TABLE / "_versions" / "latest_version_hint.json"
    latest = json.loads(hint.read_text())["version"]
    for wrong in (latest + 1, latest - 1, "x"):
        hint.write_text(json.dumps({"version": wrong}))
        with pytest.raises(SearchIndexError, match=f"expected version {latest}"):
            verify(place)


def test_a_ledger_without_hashes_would_not_see_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin: reading every row alone notices few of the flips."""
    monkeypatch.setattr(Ledger, "verify", lambda self: 0)
    dice = random.Random(0)
    unseen = 0
    for file in covered(place / TABLE):
        data = bytearray(file.read_bytes())
        data[dice.randrange(len(data))] ^= 1
        whole, _ = file.read_bytes(), file.write_bytes(data)
        try:
            verify(place)
            unseen += 1
        except SearchIndexError:
            pass
        file.write_bytes(whole)
    assert unseen > 3
