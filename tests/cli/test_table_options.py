"""The options of a table reach every command that opens a source, and the settings of a recipe."""

import shutil
from pathlib import Path

import pytest

from diptych.runs.evaluations import evaluation_of, open_tasks
from diptych.training.feeding import open_whole
from diptych.training.recipes import load_recipe
from tests.cli.command_line import Run


@pytest.fixture
def table(classes: Path, tmp_path: Path) -> Path:
    """A table whose delimiter nobody would guess and whose images are relative to another folder."""
    rows = [
        f"{image.relative_to(classes)}^a {image.parent.name} square^{image.parent.name}"
        for image in sorted(classes.glob("*/*.png"))
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["image^caption^label", *rows, ""]))
    return path


@pytest.mark.parametrize(
    "command",
    [
        "data inspect TABLE",
        "data words TABLE --least 1",
        "data verify TABLE",
        "data pack TABLE --out shards",
        "embed TABLE --model TINY --out e.npy",
        "index TABLE --model TINY --index i",
        "evaluate retrieval --data TABLE --model TINY",
        "evaluate zero-shot --data TABLE --model TINY --no-cache",
        "evaluate linear-probe --train TABLE --test TABLE --model TINY",
        "evaluate few-shot --train TABLE --test TABLE --shots 1 --seeds 1 --model TINY",
        "evaluate calibrate --data TABLE --model TINY --out c.json --no-cache",
        "finetune TABLE --model TINY --keep none --dry-run",
    ],
)
def test_a_command_reads_the_table_as_it_is_told(
    table: Path, classes: Path, tiny: Path, run: Run, command: str
) -> None:
    words = [{"TABLE": str(table), "TINY": str(tiny)}.get(word, word) for word in command.split()]
    missing = run(*words, "--delimiter", "^")
    assert missing.code == 1
    assert "--image-root" in missing.err
    told = run(*words, "--delimiter", "^", "--image-root", classes)
    assert told.code == 0, told.err
    if "--dry-run" in words:
        assert 'delimiter = "^"' in told.out
        assert f'image_root = "{classes}"' in told.out


@pytest.mark.parametrize("command", ["evaluate word-order", "evaluate labels"])
def test_these_commands_have_the_options_too(run: Run, command: str) -> None:
    text = run(*command.split(), "--help").out
    for option in ("--image-column", "--caption-column", "--label-column", "--delimiter", "--image-root"):
        assert option in text


def test_a_published_dataset_has_none_of_them(run: Run) -> None:
    outcome = run("evaluate", "zero-shot", "--data", "benchmark:sample", "--image-root", "x")
    assert outcome.code == 2
    assert "has its own columns" in outcome.err


def test_where_images_were_found_is_said(table: Path, classes: Path, tiny: Path, run: Run) -> None:
    images = shutil.copytree(classes, table.parent / "images")
    outcome = run("embed", table, "--model", tiny, "--out", "e.npy", "--delimiter", "^")
    assert outcome.code == 0, outcome.err
    assert f"warning: {table}: its images are in {images}" in outcome.err


def test_a_recipe_says_how_its_tables_are_read(table: Path, classes: Path, tmp_path: Path) -> None:
    options = f'delimiter = "^"\nimage_root = "{classes}"\n'
    recipe = tmp_path / "r.toml"
    recipe.write_text(
        f'[model]\narchitecture = "ViT-B/32"\n[data]\ntrain = "{table}"\n{options}'
        "[training]\nbatch_size = 2\nsteps = 1\n"
        f'[[evaluation.tasks]]\nname = "t"\ntask = "zero-shot"\ndata = "{table}"\n{options}'
    )
    loaded = load_recipe(str(recipe))
    source, _ = open_whole(loaded.data)
    assert source[0].captions == ("a blue square",)
    assert {name: job.images for name, job in open_tasks(loaded).items()} == {"t": 6}
    assert evaluation_of(loaded) is not None
