"""A tiny model, a few pictures, and the command line inside this process."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from diptych import config
from diptych.cli.__main__ import main
from diptych.data.images.transforms import Preprocess
from diptych.models.architectures import Architecture, TextTransformer, VisionTransformer
from diptych.models.building import build_model
from diptych.weights.checkpoint import save_checkpoint
from tests.cli.command_line import Outcome, Run

TINY = Architecture(
    embed_dim=16,
    image=VisionTransformer(resolution=32, patch=16, width=64, layers=1),
    text=TextTransformer(width=64, layers=1, context_length=32, embedding_width=8),
)
COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Outcome(code, out, err)

    return run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of an untrained model."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return save_checkpoint(folder, build_model(TINY), config.plain(Preprocess(32)))


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with three pictures and their captions."""
    folder = tmp_path_factory.mktemp("data") / "pictures"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name} square")
    return folder


@pytest.fixture(scope="session")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, two pictures in each."""
    top = tmp_path_factory.mktemp("data") / "classes"
    for name, colour in COLOURS.items():
        (top / name).mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (30 * number, 30), colour).save(top / name / f"{number}.png")
    return top


@pytest.fixture(autouse=True)
def empty_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands run where they can leave nothing behind."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DIPTYCH_DATA", raising=False)  # which `make test` sets
    return folder
