"""`--activation`: what a file of weights does not say is asked for, and remembered where the file is named again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diptych import config
from diptych.cli.__main__ import main
from diptych.data.sources.opening import open_source
from diptych.training.settings import Recipe
from diptych.training.starting import starting_model
from tests.weights.small_clip import openai_state, small_clip
from tests.weights.test_plain_files import WIDE


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that says nothing about its model, which has gelu."""
    torch.save(openai_state(small_clip(WIDE)), tmp_path / "epoch_1.pt")
    return tmp_path / "epoch_1.pt"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = open_source("sample:test")
    (tmp_path / "images").mkdir()
    for position in range(3):
        image = source[position].image
        (tmp_path / "images" / f"{position}.png").write_bytes(
            image if isinstance(image, bytes) else image.read_bytes()
        )
    return tmp_path / "images"


def test_a_command_asks_for_the_activation(
    weights: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["classify", str(folder), "--labels", "a cat,a dog", "--json", "--model", str(weights)]
    assert main(command) == 1
    assert "--activation" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="64 channels per head"):
        assert main([*command, "--activation", "gelu", "--precision", "float32", "--no-cache"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 3
    assert main([*command, "--activation", "relu"]) == 2


def test_an_index_remembers_the_activation(
    weights: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    index = str(tmp_path / "index")
    with pytest.warns(UserWarning, match="assumed"):
        assert main(["index", str(folder), "--index", index, "-m", str(weights), "--activation", "gelu"]) == 0
    capsys.readouterr()
    with pytest.warns(UserWarning, match="assumed"):
        assert main(["search", "a cat", "--index", index, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["results"]) == 3


def test_a_recipe_states_the_activation_in_the_name(weights: Path) -> None:
    values = {
        "model": {"init": f"{weights}?activation=gelu"},
        "data": {"train": "sample:train"},
        "training": {"steps": 1, "batch_size": 2},
    }
    recipe = config.build(Recipe, values, "test")
    with pytest.warns(UserWarning, match="assumed"):
        assert recipe.model.resolve() == WIDE
    with pytest.warns(UserWarning, match="assumed"):
        model, _ = starting_model(recipe, lambda _: None)
    assert model.architecture == WIDE


def test_a_warning_is_one_line_without_the_place_in_the_code(weights: Path, folder: Path) -> None:
    code = "import sys; from diptych.cli.__main__ import main; sys.exit(main(sys.argv[1:]))"
    command = [
        "embed",
        str(folder),
        "--out",
        str(weights.parent / "e.npy"),
        "-m",
        str(weights),
        "--activation",
        "gelu",
    ]
    found = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True, check=True)
    (line,) = (line for line in found.stderr.splitlines() if "assumed" in line)
    assert line.startswith(f"warning: {weights}: holds nothing but weights; assumed: ")
