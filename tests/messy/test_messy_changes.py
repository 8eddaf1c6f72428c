"""Files that vanish or change between the listing of a folder and the reading of them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.cli.__main__ import main
from diptych.data.sources import opening
from diptych.data.sources.folder import list_folder
from tests.messy.messy_damage import plain
from tests.messy.messy_model import tiny_checkpoint
from tests.messy.messy_pictures import seeds

KEPT = 12


def vanish(path: Path) -> None:
    path.unlink()


def become_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def become_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def become_a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def be_cut(path: Path) -> None:
    os.truncate(path, 100)


def be_emptied(path: Path) -> None:
    os.truncate(path, 0)


def become_text(path: Path) -> None:
    path.write_text("no image any more")


CHANGES: dict[Callable[[Path], None], str] = {
    vanish: "missing image",
    become_a_folder: "unreadable file",
    become_a_pipe: "unreadable file",
    become_a_link_to_itself: "unreadable file",
    be_cut: "truncated image",
    be_emptied: "empty image",
    become_text: "not an image",
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose images change as soon as it has been listed: one for each of `CHANGES`, and twelve that stay."""
    top = tmp_path / "photos"
    changing = [
        (top / f"class {number % 2}" / f"{change.__name__}.jpg", change)
        for number, change in enumerate(CHANGES)
    ]
    staying = [top / f"class {number % 2}" / f"{number}.jpg" for number in range(KEPT)]
    for number, path in enumerate([*staying, *(path for path, _ in changing)]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(plain(number))
        path.with_suffix(".txt").write_text(f"picture {number}")
    done: list[Path] = []

    def list_and_change(place: Path) -> object:
        listing = list_folder(place)
        if not done:
            for path, change in changing:
                change(path)
            done.append(place)
        return listing

    monkeypatch.setattr(opening, "list_folder", list_and_change)
    return top


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, object]:
    capsys.readouterr()
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert code in (0, 1), err
    assert "a bug" not in err
    found: dict[str, object] = json.loads(out)
    return found


def reasons() -> dict[str, int]:
    counts: dict[str, int] = {}
    for reason in CHANGES.values():
        counts[reason] = counts.get(reason, 0) + 1
    return counts


def test_verify_names_what_became_of_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "data", "verify", folder, "--json")
    assert (found["total"], found["read"]) == (KEPT + len(CHANGES), KEPT)
    assert found["bad"] == reasons()


def test_an_index_holds_what_stayed(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = tmp_path / "index"
    first = run(capsys, "index", folder, "--index", index, "--model", model, "--json")
    assert (first["total"], first["added"]) == (KEPT, KEPT)
    second = run(capsys, "index", folder, "--index", index, "--model", model, "--json")
    assert (second["total"], second["added"], second["unchanged"]) == (KEPT, 0, KEPT)


def test_embeddings_are_those_of_what_stayed(
    folder: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(capsys, "embed", folder, "--out", tmp_path / "e.npy", "--model", model, "--json")
    assert found["count"] == KEPT


def test_a_pack_holds_what_stayed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = run(capsys, "data", "pack", folder, "--out", tmp_path / "packed", "--json")
    assert (found["packed"], found["dropped"]) == (KEPT, reasons())


def test_classes_are_measured_on_what_stayed(
    folder: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(capsys, "evaluate", "zero-shot", "--data", folder, "--model", model, "--json")
    assert found["count"] == KEPT


def test_seeds_are_larger_than_what_is_cut() -> None:
    assert len(seeds()["jpg"]) > 100
