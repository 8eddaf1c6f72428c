"""Bad input: exit code 1, one line with a remedy, no traceback, nothing half-written."""

import shutil
from pathlib import Path

import pytest

from tests.cli.command_line import Outcome, Run

RECIPE = """
[model.architecture]
embed_dim = 16
image = { resolution = 32, patch = 16, width = 64, layers = 1 }
text = { width = 64, layers = 1, context_length = 16, embedding_width = 8 }
[data]
train = "DATA"
[training]
steps = 1
batch_size = 2
"""


@pytest.fixture
def broken(pictures: Path, tiny: Path) -> Path:
    """The working folder, with one of everything that is not as it should be."""
    whole = (pictures / "red.png").read_bytes()
    Path("truncated.png").write_bytes(whole[: len(whole) // 2])
    Path("empty").mkdir()
    Path("broken").mkdir()
    Path("broken/a.png").write_bytes(whole[: len(whole) // 2])
    shutil.copytree(pictures, "mixed")
    Path("mixed/damaged.png").write_bytes(whole[: len(whole) // 2])
    Path("table.csv").write_text(f"file,words\n{pictures / 'red.png'},a red square\n")
    Path("one.txt").write_text("cat\n")
    Path("twice.txt").write_text("cat\ndog\ncat\n")
    shutil.copytree(tiny, "corrupt")
    damaged = bytearray(Path("corrupt/model.safetensors").read_bytes())
    damaged[-1] ^= 1
    Path("corrupt/model.safetensors").write_bytes(damaged)
    Path("not.toml").write_text("this is not a recipe\n")
    Path("misspelt.toml").write_text(RECIPE.replace("steps", "stepz"))
    Path("no-data.toml").write_text(RECIPE.replace("DATA", "nowhere"))
    return Path.cwd()


@pytest.fixture
def places(tiny: Path, pictures: Path, classes: Path) -> dict[str, str]:
    """What the words in capitals of a command below stand for."""
    return {"TINY": str(tiny), "PICTURES": str(pictures), "CLASSES": str(classes)}


def one_line(outcome: Outcome, *said: str) -> None:
    """The rule for every failure."""
    assert outcome.code == 1
    assert outcome.out == ""
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.err.splitlines()[-1:] == errors, outcome.err
    assert "Traceback" not in outcome.err
    for words in said:
        assert words in errors[0]


CASES = {
    "truncated image": ("classify truncated.png --labels cat,dog --model TINY", "truncated.png", ""),
    "missing image": ("classify nowhere.png --labels cat,dog --model TINY", "nowhere.png", "check the path"),
    "empty folder": ("classify empty --labels cat,dog --model TINY", "empty", "images end in"),
    "only broken pictures": ("classify broken --labels cat,dog --model TINY", "broken", "warnings above"),
    "missing label file": (
        "classify PICTURES --labels-file no.txt --model TINY",
        "no.txt",
        "one label a line",
    ),
    "one label": ("classify PICTURES --labels-file one.txt --model TINY", "'cat'", "at least two"),
    "label twice": ("classify PICTURES --labels-file twice.txt --model TINY", "twice.txt", "'cat'"),
    "missing model": ("classify PICTURES --labels cat,dog --model nowhere", "nowhere", "name of a model"),
    "misspelt model": ("classify PICTURES --labels cat,dog --model ViT-B/23", "ViT-B/23", "ViT-B/32"),
    "corrupt checkpoint": (
        "classify PICTURES --labels cat,dog --model corrupt",
        "model.safetensors",
        "damaged",
    ),
    "bad template": ("classify PICTURES --labels a,b --model TINY --template photo", "'photo'", "{}"),
    "wrong column": ("embed table.csv --out x.npy --model TINY --image-column path", "path", "file"),
    "wrong column, index": ("index table.csv --index i --model TINY --image-column path", "path", "file"),
    "empty folder, embed": ("embed empty --out x.npy --model TINY", "empty", "images end in"),
    "broken folder, embed": ("embed broken --out x.npy --model TINY", "a.png", ""),
    "unknown format": ("embed PICTURES --out x.csv --model TINY", "x.csv", ".parquet"),
    "no such folder to write to": ("embed PICTURES --out no/x.npy --model TINY", "no/x.npy", "make it first"),
    "empty folder, index": ("index empty --index i --model TINY", "empty", "images end in"),
    "broken folder, index": ("index broken --index i --model TINY", "a.png", ""),
    "nothing to remove": ("remove cat.png --index nowhere", "nowhere", "no index here"),
    "no index": ("search cat --index nowhere", "nowhere", "diptych index"),
    "no labels in the data": ("evaluate zero-shot --data PICTURES --model TINY", "no label", "class folders"),
    "unknown templates": ("evaluate zero-shot --data PICTURES --templates phots", "phots", "photo"),
    "no captions": ("evaluate retrieval --data CLASSES --model TINY", "caption", "needs one"),
    "not a recipe": ("train not.toml --out r", "not.toml", "TOML"),
    "missing recipe": ("train nowhere.toml --out r", "nowhere.toml", "no such file"),
    "unknown recipe": ("train sampel --out r", "sampel", "sample"),
    "misspelt setting": ("train misspelt.toml --out r", "stepz", "steps"),
    "bad assignment": ("train no-data.toml --out r --set steps", "steps", "section.key=value"),
    "corrupt checkpoint, verify": ("verify corrupt", "model.safetensors", "damaged"),
    "nothing to verify": ("verify empty", "empty", "diptych.json"),
    "missing to verify": ("verify nowhere", "nowhere", "check the path"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_line_with_a_remedy_and_leaves_nothing_behind(
    case: str, broken: Path, places: dict[str, str], run: Run
) -> None:
    command, *said = CASES[case]
    before = sorted(broken.rglob("*"))
    one_line(run(*(places.get(word, word) for word in command.split())), *said)
    assert sorted(broken.rglob("*")) == before


def test_training_on_missing_data_fails_with_one_line(broken: Path, run: Run) -> None:
    one_line(run("train", broken / "no-data.toml", "--out", "r", "--device", "cpu"), "nowhere")


def test_bad_picture_in_a_folder_is_skipped_with_a_warning(broken: Path, tiny: Path, run: Run) -> None:
    outcome = run("classify", broken / "mixed", "--labels", "red,blue", "--model", tiny, "--json")
    assert outcome.code == 0
    assert [Path(answer["image"]).name for answer in outcome.json] == ["blue.png", "green.png", "red.png"]
    assert "warning: left out 1 (" in outcome.err
    assert "damaged.png" in outcome.err


def test_embed_counts_what_it_skipped(broken: Path, tiny: Path, run: Run) -> None:
    outcome = run("embed", broken / "mixed", "--out", "x.npy", "--model", tiny, "--json")
    assert (outcome.json["count"], sum(outcome.json["skipped"].values())) == (3, 1)
    assert "warning: left out 1 (" in outcome.err


def test_index_that_another_model_filled_is_refused(tiny: Path, pictures: Path, run: Run) -> None:
    run("index", pictures, "--index", "i", "--model", tiny)
    Path("other.toml").write_text(RECIPE.replace("DATA", str(pictures)))
    assert run("train", "other.toml", "--out", "r", "--device", "cpu").code == 0
    one_line(run("search", "red", "--index", "i", "--model", "r"), "was filled by the model", "--rebuild")
