"""What each verb does and prints: the JSON that other programs rely on, and the same for people."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import diptych
from diptych import embed_images, embed_texts, load
from diptych.evaluation.zero_shot.prompts import TEMPLATES, templates_for
from tests.cli.command_line import Run

RECIPE = """
[model.architecture]
embed_dim = 16
image = { resolution = 32, patch = 16, width = 64, layers = 1 }
text = { width = 64, layers = 1, context_length = 16, embedding_width = 8 }

[data]
train = "PICTURES"

[augmentation]
name = "none"

[optimizer]
learning_rate = 1e-3

[schedule]
warmup_steps = 1

[training]
steps = 3
batch_size = 2
"""


@pytest.fixture
def recipe(pictures: Path) -> Path:
    file = Path("tiny.toml").absolute()
    file.write_text(RECIPE.replace("PICTURES", str(pictures)))
    return file


def test_classify_gives_the_models_own_probabilities(tiny: Path, pictures: Path, run: Run) -> None:
    outcome = run(
        *("classify", pictures / "red.png", "--labels", "red,blue", "--model", tiny, "--json"),
        *("--precision", "float32", "--device", "cpu"),
    )
    assert outcome.code == 0
    (answer,) = outcome.json
    assert answer.keys() == {"image", "predictions"}
    assert answer["image"] == str(pictures / "red.png")
    model, preprocess = load(tiny, "cpu")
    similarity = (
        embed_images(model, preprocess, [pictures / "red.png"]) @ embed_texts(model, ["red", "blue"]).T
    )[0]
    odds = np.exp(similarity * model.logit_scale.exp().item())
    expected = dict(zip(("red", "blue"), zip(odds / odds.sum(), similarity, strict=True), strict=True))
    for guess in answer["predictions"]:
        assert guess.keys() == {"label", "probability", "similarity"}
        probability, cosine = expected[guess["label"]]
        assert guess["probability"] == pytest.approx(probability, abs=1e-5)
        assert guess["similarity"] == pytest.approx(cosine, abs=1e-5)
    assert answer["predictions"][0]["probability"] >= answer["predictions"][1]["probability"]


def test_classify_takes_folders_a_label_file_and_templates(tiny: Path, classes: Path, run: Run) -> None:
    Path("labels.txt").write_text("red\ngreen\nblue\n")
    outcome = run(
        *("classify", classes, "--labels-file", "labels.txt", "--model", tiny, "--json", "--top", 2),
        *("--template", "a {}", "--template", "the {}"),
    )
    assert len(outcome.json) == 6
    assert {len(answer["predictions"]) for answer in outcome.json} == {2}


def test_classify_says_for_people_what_it_says_for_programs(tiny: Path, pictures: Path, run: Run) -> None:
    arguments = ("classify", pictures, "--labels", "red,green,blue", "--model", tiny)
    for line, answer in zip(run(*arguments).out.splitlines(), run(*arguments, "--json").json, strict=True):
        best = answer["predictions"][0]
        assert line.startswith(f"{answer['image']}: {best['label']} {100 * best['probability']:.1f} %")


def test_templates_follow_what_a_model_was_trained_on(tiny: Path) -> None:
    assert templates_for("diptych-mini") == TEMPLATES["plain"]
    assert templates_for(str(tiny)) == TEMPLATES["plain"]
    assert templates_for("ViT-B/32") == TEMPLATES["photo"]


def test_templates_are_the_same_however_a_model_is_named(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "run/model")
    model, _ = diptych.load(tiny)
    torch.save(model.state_dict(), tmp_path / "model.pt")
    for place in (tmp_path / "run", tmp_path / "run/model/model.safetensors", tmp_path / "model.pt"):
        assert templates_for(str(place)) == TEMPLATES["plain"], place
    torch.save(dict(model.state_dict()), tmp_path / "plain.pt")
    assert templates_for(f"{tmp_path / 'plain.pt'}?activation=gelu") == TEMPLATES["photo"]


def test_auto_says_what_it_picked(tiny: Path, pictures: Path, run: Run) -> None:
    arguments = ("classify", pictures, "--labels", "red,blue", "--model", tiny)
    assert "computing on cpu in " in run(*arguments, "--device", "cpu").err
    assert "computing" not in run(*arguments, "--device", "cpu", "--precision", "float32").err


def test_bfloat16_stays_within_the_error_that_help_documents(run: Run) -> None:
    vectors = {}
    for name in ("bfloat16", "float32"):
        run("embed", "sample:test", "--out", f"{name}.npy", "--precision", name)
        vectors[name] = np.load(f"{name}.npy")
    turned = 1 - (vectors["bfloat16"] * vectors["float32"]).sum(axis=1)
    assert turned.max() < 0.02
    assert turned.mean() < 0.0003
    assert "0.02 in cosine (0.0003 on average)" in " ".join(
        run("embed", "--help").out.replace("│", " ").split()
    )


def test_embed_writes_unit_vectors_and_their_rows(tiny: Path, pictures: Path, run: Run) -> None:
    outcome = run("embed", pictures, "--out", "x.npy", "--model", tiny, "--json")
    assert outcome.json == {
        "out": "x.npy",
        "model": str(tiny),
        "count": 3,
        "dim": 16,
        "skipped": {},
        "left_out": {},
    }
    np.testing.assert_allclose(np.linalg.norm(np.load("x.npy"), axis=1), 1, atol=1e-5)
    rows = [json.loads(line) for line in Path("x.jsonl").read_text().splitlines()]
    assert [row["caption"] for row in rows] == ["a blue square", "a green square", "a red square"]


def test_index_and_search_by_picture_find_that_picture(tiny: Path, pictures: Path, run: Run) -> None:
    first = run("index", pictures, "--index", "i", "--model", tiny, "--json").json
    assert (first["index"], first["added"], first["total"], first["skipped"]) == ("i", 3, 3, {})
    again = run("index", pictures, "--index", "i", "--model", tiny, "--json").json
    assert (again["added"], again["unchanged"]) == (0, 3)
    # The index knows its model: no --model here.
    found = run("search", "--image", pictures / "green.png", "--index", "i", "--count", 2, "--json").json
    assert found["query"] is None
    assert len(found["results"]) == 2
    best = found["results"][0]
    assert best.keys() == {
        *(
            "id",
            "uri",
            "score",
            "caption",
            "captions",
            "taken",
            "camera",
            "latitude",
            "longitude",
            "duplicates",
        )
    }
    assert best["uri"] == str(pictures / "green.png")
    assert best["score"] == pytest.approx(1, abs=0.01)
    assert best["caption"] == "a green square"


def test_remove_takes_pictures_out_of_an_index(tiny: Path, pictures: Path, run: Run) -> None:
    run("index", pictures, "--index", "i", "--model", tiny)
    told = run("remove", pictures / "red.png", "--index", "i", "--json").json
    assert told == {"index": "i", "removed": 1, "purged": False}
    assert (
        "2 images removed, and nothing"
        in run("remove", "--where", "width = 40", "--index", "i", "--purge").out
    )
    assert run("index", pictures, "--index", "i", "--model", tiny, "--json").json["added"] == 3


def test_search_by_words_prints_a_table_and_json(tiny: Path, pictures: Path, run: Run) -> None:
    run("index", pictures, "--index", "i", "--model", tiny)
    asked = run("search", "a red square", "--index", "i", "--json").json
    assert asked["query"] == "a red square"
    lines = run("search", "a red square", "--index", "i").out.splitlines()
    assert lines[0].split() == ["score", "image", "caption"]
    assert [line.split()[1] for line in lines[1:]] == [result["uri"] for result in asked["results"]]


def test_evaluate_zero_shot_has_the_agreed_shape(tiny: Path, classes: Path, run: Run) -> None:
    report = run("evaluate", "zero-shot", "--data", classes, "--model", tiny, "--json").json
    assert (report["task"], report["model"], report["count"]) == ("zero-shot", str(tiny), 6)
    assert {"top1", "top5", "mean_per_class"} <= report["metrics"].keys()
    assert all(0 <= value <= 1 for value in report["metrics"].values())
    low, high = report["confidence"]["top1"]
    assert low <= report["metrics"]["top1"] <= high
    assert report["chance"]["top1"] == pytest.approx(1 / 3)


def test_evaluate_retrieval_reads_a_table(tiny: Path, pictures: Path, run: Run) -> None:
    with open("pairs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["picture", "words"])
        writer.writerows([str(picture), picture.stem] for picture in sorted(pictures.glob("*.png")))
    arguments = ("evaluate", "retrieval", "--data", "pairs.csv", "--model", tiny)
    columns = ("--image-column", "picture", "--caption-column", "words")
    report = run(*arguments, *columns, "--json").json
    assert (report["task"], report["count"]) == ("retrieval", 3)
    assert report["metrics"]["text_to_image_r5"] == 1.0
    assert "text to image r5" in run(*arguments, *columns).out


def test_train_writes_a_model_that_the_other_verbs_take(recipe: Path, pictures: Path, run: Run) -> None:
    outcome = run("train", recipe, "--out", "r", "--set", "training.steps=2", "--device", "cpu", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json.keys() == {
        *("step", "samples", "loss", "samples_per_second", "checkpoint", "best", "left_out")
    }
    assert outcome.json["best"] is None
    assert (outcome.json["step"], outcome.json["samples"]) == (2, 4)
    assert outcome.json["checkpoint"] == "r/model"
    again = run("train", recipe, "--out", "r", "--device", "cpu")
    assert again.code == 1
    assert "--resume" in again.err
    assert run("verify", "r").out.count("as they were written") == 2
    assert run("classify", pictures, "--labels", "red,blue", "--model", "r").code == 0


def test_train_resumes_where_it_was(recipe: Path, run: Run) -> None:
    first = run("train", recipe, "--out", "r", "--device", "cpu", "--json")
    assert first.code == 0
    resumed = run("train", recipe, "--out", "r", "--device", "cpu", "--resume", "--json")
    assert resumed.code == 0, resumed.err
    assert resumed.json["step"] == 3
    assert resumed.json["loss"] == first.json["loss"]  # no step was left to do


def test_train_measures_what_the_recipe_asks_for(recipe: Path, classes: Path, run: Run) -> None:
    task = f'\n[[evaluation.tasks]]\nname = "colours"\ntask = "zero-shot"\ndata = "{classes}"\n'
    recipe.write_text(recipe.read_text() + task)
    assert run("train", recipe, "--out", "r", "--device", "cpu").code == 0
    last = json.loads(Path("r/metrics.jsonl").read_text().splitlines()[-1])
    assert 0 <= last["colours_top1"] <= 1


def test_train_keeps_the_best_by_a_metric_and_says_which(recipe: Path, classes: Path, run: Run) -> None:
    task = f'\n[[evaluation.tasks]]\nname = "colours"\ntask = "zero-shot"\ndata = "{classes}"\n'
    recipe.write_text(recipe.read_text() + task)
    best = ("--set", "evaluation.best=colours_top1", "--device", "cpu")
    said = run("train", recipe, "--out", "a", *best, "--json").json["best"]
    assert said.keys() == {"checkpoint", "metric", "step", "value"}
    assert (said["checkpoint"], said["metric"], said["step"]) == ("a/model-best", "colours_top1", 3)
    assert (
        f"b/model-best: colours_top1 {said['value']:.4g}, the best, after step 3"
        in run("train", recipe, "--out", "b", *best).out
    )
    assert run("verify", "a").out.count("as they were written") == 3
    misspelt = run("train", recipe, "--out", "c", "--set", "evaluation.best=colours_top_1")
    assert misspelt.code == 1
    assert "did you mean 'colours_top1'" in misspelt.err
    assert not Path("c").exists()
    found = run("doctor", recipe, "--set", "evaluation.best=colours_top_1")
    assert found.code == 1
    assert "did you mean 'colours_top1'" in found.out


def test_verify_checks_a_checkpoint_and_an_index(tiny: Path, pictures: Path, run: Run) -> None:
    (checkpoint,) = run("verify", tiny, "--json").json["checked"]
    assert checkpoint == {"path": str(tiny), "kind": "checkpoint", "files": 1, "model": "clip"}
    run("index", pictures, "--index", "i", "--model", tiny)
    (index,) = run("verify", "i", "--json").json["checked"]
    assert (index["kind"], index["count"]) == ("index", 3)


def test_models_lists_the_nine_published_ones_with_their_sizes(run: Run) -> None:
    listed = {model["name"]: model for model in run("models", "--json").json}
    # Parameters of the published checkpoints.
    published = {"RN50": 102_007_137, "ViT-B/32": 151_277_313, "ViT-L/14@336px": 427_944_193}
    for name, parameters in published.items():
        assert listed[name]["parameters"] == parameters
    assert listed["RN50x64"]["resolution"] == 448
    assert "ViT-B/32" in run("models").out


def test_models_all_adds_those_of_open_clip_with_accuracy_and_its_source(run: Run) -> None:
    names = [model["name"] for model in run("models", "--json").json]
    listed = {model["name"]: model for model in run("models", "--all", "--json").json}
    assert list(listed)[: len(names)] == names
    model = listed["ViT-B-32/laion2b_s34b_b79k"]
    assert (model["parameters"], model["imagenet_zero_shot"]) == (151_277_313, 0.6656)
    assert model["hub"] == "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
    assert "openclip_results.csv" in model["accuracy_source"]
    assert listed["ViT-H-14/metaclip_altogether"]["accuracy_source"] is None
    printed = run("models", "--all")
    assert "66.6%" in printed.out
    assert "openclip_results.csv" in printed.err
