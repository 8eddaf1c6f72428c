"""`diptych doctor`: what it finds wrong with a recipe and its data, and that it finds nothing wrong with good ones."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from command_line import Run
from PIL import Image

from diptych.cli.machine_checks import Check, machine_checks
from diptych.cli.recipe_checks import activation_bytes, recipe_checks
from diptych.models.architectures import PUBLISHED, Architecture, TextTransformer, VisionTransformer
from diptych.models.clip import build_model

RECIPE = """
[model.architecture]
embed_dim = 16
image = { resolution = 32, patch = 16, width = 64, layers = 1 }
text = { width = 64, layers = 1, context_length = 12, embedding_width = 8 }
[data]
train = "pairs"
[schedule]
warmup_steps = 10
[training]
steps = 100
batch_size = 4
"""

Checks = Callable[..., dict[str, Check]]


@pytest.fixture
def checks() -> Checks:
    """Twelve good pairs and a good recipe; `--set` assignments make it worse."""
    Path("pairs").mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(f"pairs/{number:02}.png")
        Path(f"pairs/{number:02}.txt").write_text(f"square number {number}")
    Path("recipe.toml").write_text(RECIPE)

    def checks(*assignments: str) -> dict[str, Check]:
        return {check.name: check for check in recipe_checks("recipe.toml", assignments)}

    return checks


def test_good_recipe_has_no_complaint(checks: Checks) -> None:
    found = checks()
    assert {check.status for check in found.values()} == {"ok"}
    assert "12 of 12 used" in found["data"].detail
    assert "100 steps of 4 pairs" in found["length"].detail
    assert "33.3 times the data" in found["length"].detail


def test_unknown_setting_ends_the_checks(checks: Checks) -> None:
    found = checks("training.stepz=3")
    assert [(check.name, check.status) for check in found.values()] == [("recipe", "fail")]
    assert "steps" in found["recipe"].detail


def test_missing_data_ends_the_checks_of_the_data(checks: Checks) -> None:
    found = checks("data.train=nowhere")
    assert found["data"].status == "fail"
    assert "pictures" not in found


def test_warmup_longer_than_the_run(checks: Checks) -> None:
    assert checks("schedule.warmup_steps=100")["warm-up"].status == "warn"
    assert checks("schedule.warmup_steps=99")["warm-up"].status == "ok"


def test_batch_larger_than_the_data(checks: Checks) -> None:
    assert checks("training.batch_size=13")["length"].status == "warn"
    assert checks("training.batch_size=12")["length"].status == "ok"


def test_cut_captions_are_counted_with_start_and_end_token(checks: Checks) -> None:
    # Ten words are ten tokens: with the two special ones they fill a context of twelve exactly.
    Path("pairs/00.txt").write_text(" ".join(["cat"] * 10))
    assert checks()["cut captions"].status == "ok"
    Path("pairs/00.txt").write_text(" ".join(["cat"] * 11))
    cut = checks()["cut captions"]
    assert cut.status == "warn"
    assert cut.detail.startswith("1 of 12 rows looked at (8.3 %)")


def test_same_captions_are_warned_of_where_they_count_as_wrong(checks: Checks) -> None:
    for number in range(6):
        Path(f"pairs/{number:02}.txt").write_text("the same" if number % 2 else "The  same")
    found = checks()["same captions"]
    assert found.status == "warn"
    assert "50.0 % of captions occur again" in found.detail
    assert checks('objective.positives="caption"')["same captions"].status == "ok"


def test_unreadable_pictures_and_missing_captions(checks: Checks) -> None:
    Path("pairs/03.png").write_bytes(b"not a picture")
    Path("pairs/04.txt").unlink()
    found = checks()
    assert found["pictures"].status == "warn"
    assert "03.png" in found["pictures"].detail
    assert found["no caption"].detail.startswith("1 of 12 rows")


def test_evaluation_data_are_opened(checks: Checks) -> None:
    task = '\n[[evaluation.tasks]]\nname = "t"\ntask = "retrieval"\ndata = "nowhere"\n'
    Path("recipe.toml").write_text(RECIPE + task)
    assert checks()["evaluation"].status == "fail"


def test_activation_bytes_of_one_linear_layer_more() -> None:
    def kept(layers: int, batch: int) -> int:
        architecture = Architecture(
            embed_dim=16,
            image=VisionTransformer(resolution=32, patch=16, width=64, layers=layers),
            text=TextTransformer(width=64, layers=1, context_length=8, embedding_width=8),
        )
        return activation_bytes(build_model(architecture), batch, "float32")

    # A block keeps several activations of (batch, 5 tokens, 64) float32, the wide ones four times that.
    token_bytes = 5 * 64 * 4
    assert 10 * token_bytes < kept(3, 8) / 8 - kept(2, 8) / 8 < 30 * token_bytes
    assert kept(2, 16) - kept(2, 8) == kept(2, 24) - kept(2, 16)


def test_parameters_in_training_are_counted_as_sixteen_bytes(checks: Checks) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build_model(PUBLISHED["ViT-B/32"]).parameters())
    assert count == 151_277_313
    detail = checks('model.architecture="ViT-B/32"')["memory of the run"].detail
    assert f"{16 * count / 2**30:.1f} GiB for 151.3M parameters" in detail


def test_failure_is_exit_code_1_and_the_shape_of_the_json(run: Run) -> None:
    Path("recipe.toml").write_text(RECIPE)
    outcome = run("doctor", "recipe.toml", "--json")
    assert outcome.code == 1
    assert outcome.json.keys() == {"ok", "recipe", "checks"}
    assert outcome.json["ok"] is False
    data = next(check for check in outcome.json["checks"] if check["name"] == "data")
    assert data.keys() == {"name", "status", "detail"}
    assert data["status"] == "fail"
    assert "FAIL  data: pairs: no such file or folder" in run("doctor", "recipe.toml").out


def test_machine_is_fine_where_the_tests_run() -> None:
    found = {check.name: check for check in machine_checks()}
    assert found["versions"].status == "ok"
    assert found["device"].detail.startswith("c")
    assert [name for name, check in found.items() if check.status == "fail"] == []
