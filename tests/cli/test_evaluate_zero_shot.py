"""`evaluate zero-shot`, `evaluate calibrate` and `classify --calibration`, as commands."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.cli.command_line import Run
from tests.processes import run_processes


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own cache is left alone."""
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "classifiers"


@pytest.fixture
def two(classes: Path) -> Path:
    shutil.copytree(classes, "two")
    shutil.rmtree("two/blue")
    return Path("two")


@pytest.fixture
def several(pictures: Path) -> Path:
    shutil.copytree(pictures, "several")
    for name, labels in {"red": ["red"], "green": ["green", "red"], "blue": []}.items():
        Path(f"several/{name}.txt").unlink()
        Path(f"several/{name}.json").write_text(json.dumps({"labels": labels}))
    return Path("several")


@pytest.mark.parametrize("metric", ["mean_per_class", "mean_top1_top5", "roc_auc"])
def test_the_metric_asked_for_comes_first(two: Path, tiny: Path, run: Run, metric: str) -> None:
    arguments = ("evaluate", "zero-shot", "--data", two, "--model", tiny, "--metric", metric)
    assert next(iter(run(*arguments, "--json").json["metrics"])) == metric
    assert metric.replace("_", " ") in run(*arguments).out


def test_several_labels_a_picture_are_measured_by_map11(several: Path, tiny: Path, run: Run) -> None:
    arguments = ("evaluate", "zero-shot", "--data", several, "--model", tiny, "--metric", "map11")
    report = run(*arguments, "--json").json
    assert (report["task"], report["count"]) == ("multi-label", 3)
    assert report["groups"].keys() == {"red", "green"}
    assert 0 <= report["metrics"]["map11"] <= 1


def test_map11_refuses_options_that_it_would_ignore(several: Path, run: Run) -> None:
    outcome = run("evaluate", "zero-shot", "--data", several, "--metric", "map11", "--group-by", "vendor")
    assert outcome.code == 2
    assert "leave out group_by" in outcome.err


def test_a_classifier_is_kept_unless_told_not_to(classes: Path, tiny: Path, run: Run, cache: Path) -> None:
    arguments = ("evaluate", "zero-shot", "--data", classes, "--model", tiny, "--templates", "imagenet")
    fresh = run(*arguments, "--json", "--no-cache").json
    assert not cache.exists()
    kept = run(*arguments, "--json").json
    assert len(list(cache.iterdir())) == 1
    assert run(*arguments, "--json").json == kept == fresh


def test_templates_come_from_a_file(classes: Path, tiny: Path, run: Run) -> None:
    Path("words.txt").write_text("a {}\nthe {}\n")
    arguments = ("evaluate", "zero-shot", "--data", classes, "--model", tiny, "--templates", "words.txt")
    assert run(*arguments, "--json").json["details"]["templates"] == ["a {}", "the {}"]


def test_a_published_dataset_brings_its_classes_templates_and_metric(tiny: Path, run: Run) -> None:
    Path("data/oxford-iiit-pet/images").mkdir(parents=True)
    Path("data/oxford-iiit-pet/annotations").mkdir()
    lines = ["Abyssinian_1 1 1 1", "beagle_1 5 2 4", "beagle_2 5 2 4"]
    Path("data/oxford-iiit-pet/annotations/test.txt").write_text("\n".join(lines) + "\n")
    for shade, line in enumerate(lines):
        image = Image.new("RGB", (20, 20), (60 * shade, 0, 0))
        image.save(f"data/oxford-iiit-pet/images/{line.split()[0]}.jpg")
    arguments = ("evaluate", "zero-shot", "--data", "benchmark:oxford_pets", "--model", tiny, "--json")
    report = run(*arguments).json
    assert next(iter(report["metrics"])) == "mean_per_class"
    assert report["count"] == 3
    assert report["details"]["classes"] == 37
    assert report["details"]["templates"] == ["a photo of a {}, a type of pet."]
    chosen = run(*arguments, "--metric", "top1", "--templates", "my {}").json
    assert next(iter(chosen["metrics"])) == "top1"
    assert chosen["details"]["templates"] == ["my {}"]


def test_two_processes_report_once_what_one_reports(classes: Path, tiny: Path, run: Run) -> None:
    arguments = [
        *("evaluate", "zero-shot", "--data", str(classes), "--model", str(tiny), "--json"),
        *("--device", "cpu", "--precision", "float32", "--batch-size", "1"),
    ]
    (first, said, errors), second = run_processes(2, ["-m", "diptych.cli", *arguments])
    assert (first, second[0]) == (0, 0), errors + second[2]
    assert json.loads(said) == run(*arguments).json
    assert second[1] == ""


def test_calibrate_writes_what_classify_takes(classes: Path, pictures: Path, tiny: Path, run: Run) -> None:
    Image.new("RGB", (30, 30), (255, 255, 0)).save("yellow.png")
    arguments = ("evaluate", "calibrate", "--data", classes, "--model", tiny)
    found = run(*arguments, "--none-data", pictures, "--out", "c.json", "--json").json
    assert found.keys() == {"calibration", "model", "temperature", "threshold", "measured"}
    assert {"kept", "turned_away", "log_loss", "calibration_error"} <= found["measured"].keys()
    classify = ("classify", pictures, "yellow.png", "--calibration", "c.json", "--model", tiny)
    for answer in run(*classify, "--json").json:
        assert answer.keys() == {"image", "predictions", "none_of_these"}
        assert {guess["label"] for guess in answer["predictions"]} == {"red", "green", "blue"}
        best = answer["predictions"][0]["similarity"]
        assert answer["none_of_these"] == (best < found["threshold"])
    # Beyond what any picture reaches.
    lines = run(*classify, "--threshold", "1").out.splitlines()
    assert [": none of these; nearest: " in line for line in lines] == [True] * 4


def test_calibrate_says_for_people_what_it_wrote(classes: Path, tiny: Path, run: Run) -> None:
    arguments = ("evaluate", "calibrate", "--data", classes, "--model", tiny)
    said = run(*arguments, "--keep", "0.5", "--out", "half.json").out
    kept = json.loads(Path("half.json").read_text())["measured"]["kept"]
    # The two pictures of a colour are one to the model, so that half of six is not to be had.
    assert kept == pytest.approx(4 / 6)
    assert "66.7 % of them reach it" in said
    assert "classify IMAGES --calibration half.json" in said


def test_a_threshold_alone_says_which_pictures_show_none_of_these(
    pictures: Path, tiny: Path, run: Run
) -> None:
    arguments = ("classify", pictures, "--labels", "red,blue", "--model", tiny, "--json")
    similarities = [answer["predictions"][0]["similarity"] for answer in run(*arguments).json]
    threshold = sorted(similarities)[1]
    answers = run(*arguments, "--threshold", repr(threshold)).json
    assert [answer["none_of_these"] for answer in answers] == [value < threshold for value in similarities]
    assert [answer["none_of_these"] for answer in answers].count(True) == 1


def test_a_calibration_of_another_model_is_one_line(
    classes: Path, pictures: Path, tiny: Path, run: Run
) -> None:
    run("evaluate", "calibrate", "--data", classes, "--model", tiny, "--out", "c.json")
    outcome = run("classify", pictures, "--calibration", "c.json")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.splitlines()[-1].startswith("error: the calibration belongs to another model, ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--calibration", "c.json", "--labels", "a,b"), "leave out --labels"),
        (("--calibration", "c.json", "--template", "a {}"), "leave out --labels"),
        (("--labels", "a,b", "--threshold", "20"), "--threshold 20.0"),
    ],
)
def test_options_of_classify_that_do_not_go_together_are_wrong_usage(
    pictures: Path, run: Run, options: tuple[str, ...], said: str
) -> None:
    outcome = run("classify", pictures, *options)
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err


ZERO_SHOT = "evaluate zero-shot --model TINY"
CALIBRATE = "evaluate calibrate --model TINY --out c.json"
CASES = {
    "wrong folder": (f"{ZERO_SHOT} --data nowhere", "nowhere: no such file or folder"),
    "misspelt folder": (f"{ZERO_SHOT} --data clases", "did you mean classes?"),
    "missing class file": (f"{ZERO_SHOT} --data classes --labels-file no.txt", "no.txt: no such label file"),
    "empty class file": (f"{ZERO_SHOT} --data classes --labels-file none.txt", "none.txt: no labels in it"),
    "label outside the list": (
        f"{ZERO_SHOT} --data classes --labels-file two.txt",
        "red/1.png: the label 'red' is not among the 2 given ('green', 'blue'); add it to the labels",
    ),
    "empty set": (f"{ZERO_SHOT} --data empty", "empty: no images in this folder"),
    "no readable picture": (f"{ZERO_SHOT} --data broken", "broken: none of 1 images could be read"),
    "no labels": (f"{ZERO_SHOT} --data unlabelled", "has no label; zero-shot evaluation needs class folders"),
    "dataset that is not there": (f"{ZERO_SHOT} --data benchmark:voc2007", "Put it here: data/"),
    "misspelt dataset": (f"{ZERO_SHOT} --data benchmark:cifar11", "did you mean 'cifar10'?"),
    "missing templates": (f"{ZERO_SHOT} --data classes --templates no.txt", "no.txt: no such template file"),
    "no such group": (f"{ZERO_SHOT} --data classes --group-by vendor", "no 'vendor' to group by"),
    "three classes": (f"{ZERO_SHOT} --data classes --metric roc_auc", "two classes, and there are 3"),
    "one label a picture": (f"{ZERO_SHOT} --data classes --metric map11", "no 'labels' in its metadata"),
    "wrong folder, calibrate": (f"{CALIBRATE} --data nowhere", "nowhere: no such file or folder"),
    "wrong folder of others": (f"{CALIBRATE} --data classes --none-data nowhere", "nowhere: no such file"),
    "nowhere to write": (
        "evaluate calibrate --data classes --out no/c.json",
        "the folder no does not exist; make it first",
    ),
    "keep too much": (f"{CALIBRATE} --data classes --keep 95", "keep 95.0: expected a share"),
    "no calibration": ("classify classes --calibration c.json", "make one with diptych evaluate calibrate"),
    "not a calibration": ("classify classes --calibration two.txt", "two.txt: not JSON"),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_input_is_one_line_with_a_remedy_and_leaves_nothing_behind(
    case: str, classes: Path, pictures: Path, tiny: Path, run: Run
) -> None:
    shutil.copytree(classes, "classes")
    Path("empty").mkdir()
    Path("broken/red").mkdir(parents=True)
    Path("broken/red/1.png").write_bytes(b"no image")
    Path("unlabelled").mkdir()
    shutil.copy(pictures / "red.png", "unlabelled/red.png")
    Path("none.txt").write_text("\n")
    Path("two.txt").write_text("green\nblue\n")
    before = sorted(Path.cwd().rglob("*"))
    command, said = CASES[case]
    outcome = run(*(str(tiny) if word == "TINY" else word for word in command.split()))
    assert (outcome.code, outcome.out) == (1, ""), outcome.err
    errors = [line for line in outcome.err.splitlines() if line.startswith("error: ")]
    assert outcome.err.splitlines()[-1:] == errors, outcome.err
    assert said in errors[0]
    assert sorted(Path.cwd().rglob("*")) == before
