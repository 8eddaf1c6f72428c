"""Folders as people have them: names, links, stray files and large images, through every command that takes one."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from diptych.embed.embedding_files import EmbeddingsFile
from tests.cli.command_line import Run
from tests.cli.test_command_results import RECIPE

STRANGE = os.fsdecode(b"caf\xe9")  # Latin-1, not UTF-8


@pytest.fixture
def mess(classes: Path, tmp_path: Path) -> Path:
    """Three classes of two pictures each, and whatever else lies about."""
    folder = tmp_path / "mess"
    shutil.copytree(classes, folder)
    (folder / "red" / "broken.jpg").write_bytes(b"<html>")
    (folder / "red" / "cut.png").write_bytes((folder / "red" / "1.png").read_bytes()[:60])
    (folder / "red" / "1.mov").touch()
    (folder / "red" / "lonely.txt").write_text("words")
    (folder / "blue" / "notes.pdf").touch()
    (folder / ".DS_Store").touch()
    (folder / "x.png").symlink_to("x.png")
    (folder / "around").symlink_to(".")
    (folder / "blue" / "film.mp4").touch()
    return folder


LEFT_OUT = {
    "link in a circle": 2,
    "video of a Live Photo: .mov": 1,
    "video: .mp4": 1,
    "caption file without an image": 1,
    "not an image: .pdf": 1,
    "hidden": 1,
    "not an image": 1,
    "truncated image": 1,
}


def counts(left_out: dict[str, dict[str, Any]]) -> dict[str, int]:
    return {reason: each["count"] for reason, each in left_out.items()}


COMMANDS = {
    "index": ("index", "MESS", "--index", "i", "--model", "TINY"),
    "embed": ("embed", "MESS", "--out", "e.npy", "--model", "TINY"),
    "zero-shot": ("evaluate", "zero-shot", "--data", "MESS", "--model", "TINY"),
    "verify": ("data", "verify", "MESS", "--allow-no-caption"),
    "pack": ("data", "pack", "MESS", "--out", "shards", "--allow-no-caption"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_read_and_left_out_are_all_that_lies_there(name: str, mess: Path, tiny: Path, run: Run) -> None:
    places = {"MESS": str(mess), "TINY": str(tiny)}
    outcome = run(*(places.get(word, word) for word in COMMANDS[name]), "--json")
    assert outcome.code == (1 if name == "verify" else 0), outcome.err
    found = outcome.json
    assert counts(found["left_out"]) == LEFT_OUT
    read = found[{"index": "total", "verify": "read", "pack": "packed"}.get(name, "count")]
    # Links that lead round count as files; the hidden one is a file here.
    assert read + sum(LEFT_OUT.values()) == sum(len(files) for _, _, files in os.walk(mess)) + 1
    (broken,) = found["left_out"]["not an image"]["first"]
    assert broken.endswith("red/broken.jpg")
    assert found["left_out"]["video: .mp4"]["first"] == ["blue/film.mp4"]
    assert "warning: left out 1 (truncated image): " in outcome.err
    assert "warning: left out 2 (link in a circle): x.png, around/" in outcome.err
    assert "hidden" not in outcome.err


def test_inspect_classify_train_and_finetune_say_the_same(mess: Path, tiny: Path, run: Run) -> None:
    outcome = run("data", "inspect", mess, "--json").json
    unread = {"not an image": 1, "truncated image": 1}
    assert counts(outcome["left_out"]) == {key: value for key, value in LEFT_OUT.items() if key not in unread}
    outcome = run("classify", mess, "--labels", "red,blue", "--model", tiny, "--json")
    assert len(outcome.json) == 6
    for reason, count in LEFT_OUT.items():
        assert (f"warning: left out {count} ({reason}): " in outcome.err) == (reason != "hidden")
    options = ("--set", "training.steps=1", "--keep", "none", "--device", "cpu", "--model", tiny)
    outcome = run("finetune", mess, "--out", "f", *options, "--json")
    assert outcome.code == 0, outcome.err
    assert counts(outcome.json["left_out"]) == LEFT_OUT
    for place in mess.rglob("*.[pj][np]g"):
        if not place.is_symlink():
            place.with_suffix(".txt").write_text(f"a {place.parent.name} square")
    (mess / "red" / "lonely.txt").write_text("words")
    Path("recipe.toml").write_text(RECIPE.replace("PICTURES", str(mess)).replace("steps = 3", "steps = 8"))
    outcome = run(
        "train", "recipe.toml", "--out", "t", "--set", "data.most_bad=0.9", "--device", "cpu", "--json"
    )
    assert outcome.code == 0, outcome.err
    assert counts(outcome.json["left_out"]) == LEFT_OUT
    assert "warning: left out 1 (video: .mp4): blue/film.mp4" in outcome.err


def test_an_index_in_its_own_folder_stays_as_large_as_it_is(pictures: Path, tiny: Path, run: Run) -> None:
    shutil.copytree(pictures, "album")
    os.chdir("album")
    for added in (3, 0, 0):
        outcome = run("index", ".", "--index", "photos.index", "--model", tiny, "--json")
        assert (outcome.json["added"], outcome.json["total"]) == (added, 3)
    assert "warning: left out 1 (folder of a search index): photos.index/" in outcome.err
    assert len(run("classify", ".", "--labels", "a,b", "--model", tiny, "--json").json) == 3


def test_pictures_that_an_index_swallowed_go_at_the_next_refresh(
    pictures: Path, tiny: Path, run: Run
) -> None:
    shutil.copytree(pictures, "album")
    (swallowed := Path("album/i/thumbnails/ab")).mkdir(parents=True)
    Image.new("RGB", (9, 9)).save(swallowed / "x.png")
    assert run("index", "album", "--index", "other", "--model", tiny, "--json").json["total"] == 4
    run("index", "album/red.png", "--index", "album/i", "--model", tiny)
    Path("album/i/index.json").write_text(json.dumps({"format_version": 2, "current": {}, "check": ""}))
    outcome = run("index", "album", "--index", "other", "--model", tiny, "--json").json
    assert (outcome["removed"], outcome["total"]) == (1, 3)


@pytest.fixture
def strange(classes: Path, tmp_path: Path) -> Path:
    """Class folders and pictures of names that are not UTF-8."""
    folder = tmp_path / f"{STRANGE}s"
    shutil.copytree(classes, folder)
    (folder / "red").rename(folder / STRANGE)
    (folder / STRANGE / "1.png").rename(folder / STRANGE / f"{STRANGE}.png")
    return folder


def test_names_that_are_not_utf8_are_embedded_and_found_again(strange: Path, tiny: Path, run: Run) -> None:
    for out in ("e.npy", "e.parquet"):
        assert run("embed", strange, "--out", out, "--model", tiny).code == 0
    rows = [json.loads(line) for line in Path("e.jsonl").read_text("utf-8").splitlines()]
    assert str(strange / STRANGE / f"{STRANGE}.png") in [row["uri"] for row in rows]
    (part,) = EmbeddingsFile(Path("e.parquet")).parts()
    assert [row.uri for row in part.rows] == [row["uri"] for row in rows]
    assert STRANGE in [row.label for row in part.rows]
    # Other readers get valid text, with the stray byte in the private plane 16.
    assert "caf\U0010dce9" in pyarrow.parquet.read_table("e.parquet").column("label").to_pylist()
    index = f"{STRANGE}.index"
    taken = run("index", strange, "--index", index, "--embeddings", "e.parquet", "--json").json
    assert (taken["added"], taken["total"]) == (6, 6)
    again = run("index", strange, "--index", index, "--embeddings", "e.parquet", "--json").json
    assert (again["added"], again["unchanged"]) == (0, 6)
    found = run("search", "red", "--index", index, "--model", tiny, "--json").json["results"]
    assert {one["uri"] for one in found} == {row["uri"] for row in rows}


def test_names_that_are_not_utf8_are_classified_fine_tuned_and_trained(
    strange: Path, tiny: Path, run: Run
) -> None:
    said = run("classify", strange, "--labels", "a,b", "--model", tiny, "--json").json
    assert str(strange / STRANGE / f"{STRANGE}.png") in [one["image"] for one in said]
    options = ("--set", "training.steps=2", "--keep", "none", "--device", "cpu", "--model", tiny)
    outcome = run("finetune", strange, "--out", f"{STRANGE}-f", *options)
    assert outcome.code == 0, outcome.err
    (answer,) = run("classify", strange / "blue" / "1.png", "--model", f"{STRANGE}-f", "--json").json
    assert {guess["label"] for guess in answer["predictions"]} == {"blue", "green", STRANGE}
    for place in strange.rglob("*.png"):
        place.with_suffix(".txt").write_text("a square")
    Path("recipe.toml").write_text(RECIPE.replace('"PICTURES"', json.dumps("../link")))
    Path("../link").symlink_to(strange)
    outcome = run("train", "recipe.toml", "--out", f"{STRANGE}-t", "--device", "cpu")
    assert outcome.code == 0, outcome.err
    assert run("evaluate", "zero-shot", "--data", strange, "--model", f"{STRANGE}-t").code == 0


def test_one_stray_caption_file_leaves_the_labels_to_every_command(
    classes: Path, tiny: Path, tmp_path: Path, run: Run
) -> None:
    folder = tmp_path / "stray"
    shutil.copytree(classes, folder)
    (folder / "red" / "2.txt").write_text("x")
    outcome = run("evaluate", "zero-shot", "--data", folder, "--model", tiny, "--json")
    assert outcome.json["count"] == 6
    assert "warning: " in outcome.err
    assert "only 1 of 6 images has a caption file beside it" in outcome.err
    run("index", folder, "--index", "i", "--model", tiny)
    found = run("search", "x", "--index", "i", "--model", tiny, "--filter", 'label = "red"', "--json").json
    assert len(found["results"]) == 2


def test_a_picture_that_cannot_be_read_is_not_classified_as_a_blank_one(
    classes: Path, tiny: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diptych.embed import encode as embedding  # noqa: PLC0415

    folder = tmp_path / "some"
    shutil.copytree(classes, folder)
    (folder / "red" / "1.png").write_bytes(b"")
    seen = []
    encode = embedding.encode_pixels

    def counted(model: Any, pixels: Any) -> np.ndarray:
        seen.append(len(pixels))
        return encode(model, pixels)

    monkeypatch.setattr(embedding, "encode_pixels", counted)
    answers = run("classify", folder, "--labels", "a,b", "--model", tiny, "--json").json
    assert len(answers) == sum(seen) == 5


def test_more_pixels_are_allowed_on_any_command_line(
    tiny: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIPTYCH_MAX_PIXELS", "1000")
    Image.new("RGB", (40, 30)).save("a.png")
    outcome = run("classify", "a.png", "--labels", "a,b", "--model", tiny)
    assert outcome.code == 1
    assert "40 x 30 pixels; at most 1,000 in all" in outcome.err
    assert "allow more with --max-pixels or DIPTYCH_MAX_PIXELS" in outcome.err
    for option in (("--max-pixels", "1_200"), ("--max-pixels=1200",)):
        monkeypatch.setenv("DIPTYCH_MAX_PIXELS", "1000")
        assert run("classify", "a.png", *option, "--labels", "a,b", "--model", tiny).code == 0
    for wrong in ("x", "0", "-5", ""):
        outcome = run("classify", "a.png", "--labels", "a,b", f"--max-pixels={wrong}")
        assert outcome.code == 2
        assert "expected a number of pixels, such as 200000000" in outcome.err


def test_one_long_name_does_not_make_a_table_wide(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    from diptych.cli.output import table  # noqa: PLC0415

    table(("image", "score"), [("a.png", "1"), ("x" * 200, "22"), ("b.png", "333")], right=(1,))
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["image  score", "a.png      1", "x" * 200 + "     22", "b.png    333"]
