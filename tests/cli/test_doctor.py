"""`diptych doctor`: what it finds wrong with a recipe and its data, and that it finds nothing wrong with good ones."""

import csv
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from diptych.data.subsets.same_images import neighbouring_rows
from diptych.doctor import data_checks, forecast_checks, recipe_checks
from diptych.doctor.caption_checks import least_loss
from diptych.doctor.check import Check
from diptych.doctor.machine_checks import check_machine
from diptych.doctor.same_image_checks import chance_to_meet
from diptych.models.architectures import PUBLISHED
from diptych.models.building import build_model
from diptych.training.planning.pace import Pace
from diptych.wording import duration
from tests.cli.command_line import Run

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
TASK = '\n[[evaluation.tasks]]\nname = "t"\ntask = "retrieval"\ndata = "DATA"\n'

Find = Callable[..., Check]


@pytest.fixture
def pairs() -> None:
    """Twelve good pairs and a good recipe."""
    Path("pairs").mkdir()
    for number in range(12):
        Image.new("RGB", (32, 32), (20 * number, 0, 0)).save(f"pairs/{number:02}.png")
        Path(f"pairs/{number:02}.txt").write_text(f"square number {number}")
    Path("recipe.toml").write_text(RECIPE)


@pytest.fixture
def find(pairs: None) -> Find:
    """The check of a name, with `--set` assignments that make the recipe worse; later checks are not made."""

    def find(name: str, *assignments: str, device: str = "cpu") -> Check:
        checks = recipe_checks.check_recipe("recipe.toml", assignments, device=device)
        return next(check for check in checks if check.name == name)

    return find


def test_good_recipe_has_no_complaint(pairs: None) -> None:
    found = {check.name: check for check in recipe_checks.check_recipe("recipe.toml")}
    assert {check.status for check in found.values()} == {"ok"}, found
    assert "12 of 12 used" in found["data"].detail
    assert "100 steps of 4 pairs" in found["length"].detail
    assert "33.3 times the data" in found["length"].detail
    assert "an estimate" in found["time of the run"].detail
    assert {"memory of the run", "checkpoints", "disk of the run"} <= found.keys()


def test_unknown_setting_ends_the_checks(pairs: None) -> None:
    found = list(recipe_checks.check_recipe("recipe.toml", ("training.stepz=3",)))
    assert [(check.name, check.status) for check in found] == [("recipe", "fail")]
    assert "steps" in found[0].detail


def test_missing_data_end_the_checks_of_the_data_and_memory_is_still_forecast(pairs: None) -> None:
    checks = recipe_checks.check_recipe("recipe.toml", ("data.train=nowhere",))
    found = {check.name: check for check in checks}
    assert found["data"].status == "fail"
    assert found["memory of the run"].status == "ok"
    assert found.keys() & {"pictures", "time of the run"} == set()


def test_wrong_columns_name_those_that_there_are(find: Find) -> None:
    with Path("pairs/table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("bild", "words"), ("00.png", "a"), ("01.png", "b")])
    found = find("data", "data.train=pairs/table.csv")
    assert found.status == "fail"
    assert "the columns are 'bild', 'words'; choose one with image_column" in found.detail
    found = find("data", "data.train=pairs/table.csv", "data.image_column=bidl")
    assert "no column 'bidl' for the image; the columns are 'bild', 'words'" in found.detail
    # With the image's column right and none for the captions, the words are what is missed.
    found = find("captions", "data.train=pairs/table.csv", "data.image_column=bild")
    assert found.status == "fail"
    assert "data.caption_column" in found.detail


def test_files_that_a_table_names_and_that_are_not_there(find: Find) -> None:
    with Path("pairs/table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), ("00.png", "a"), ("01.png", "b"), ("99.png", "c")])
    found = find("unreadable rows", "data.train=pairs/table.csv")
    assert found.status == "warn"
    assert found.detail.startswith("1 of 3 rows looked at")
    assert "99.png" in found.detail
    # Beside another folder none of them is there, unless that folder is named.
    shutil.move("pairs/table.csv", "table.csv")
    found = find("data", "data.train=table.csv")
    assert found.status == "fail"
    assert "00.png" in found.detail
    assert "pairs has some of them" in found.detail
    assert find("data", "data.train=table.csv", "data.image_root=pairs").status == "ok"


def test_warmup_longer_than_the_run(find: Find) -> None:
    assert find("warm-up", "schedule.warmup_steps=100").status == "warn"
    assert find("warm-up", "schedule.warmup_steps=99").status == "ok"


def test_batch_larger_than_the_data(find: Find) -> None:
    found = find("length", "training.batch_size=13")
    assert found.status == "warn"
    assert "set training.batch_size to at most 12" in found.detail
    assert find("length", "training.batch_size=12").status == "ok"


@pytest.mark.parametrize(
    ("rate", "status"),
    [("0.0", "fail"), ("-1e-3", "fail"), ("1e-9", "warn"), ("5e-4", "ok"), ("1e-2", "ok"), ("0.5", "warn")],
)
def test_learning_rates_with_which_the_loss_stays_at_ln_n(find: Find, rate: str, status: str) -> None:
    found = find("learning rate", f"optimizer.learning_rate={rate}")
    assert found.status == status
    assert ("ln 4 = 1.39" in found.detail) == (status != "ok")


def test_equal_captions_leave_nothing_to_learn(find: Find) -> None:
    for number in range(12):
        Path(f"pairs/{number:02}.txt").write_text("a  photo" if number % 2 else "A photo")
    found = find("something to learn")
    assert found.status == "fail"
    assert "above about 1.39, so it is stuck" in found.detail
    assert "data.caption_column" in found.detail
    # Making them positives does not help: every text is right for every picture.
    assert find("something to learn", "objective.positives=caption").status == "fail"


def test_permuted_captions_are_said_to_be_a_control(find: Find) -> None:
    found = find("something to learn", "data.permute_captions=true")
    assert found.status == "warn"
    assert "near ln 4 = 1.39" in found.detail


def test_the_least_loss_is_ln_k_for_k_equal_captions_in_a_batch() -> None:
    assert least_loss([str(number) for number in range(100)], 64) == 0.0
    assert least_loss(["same"] * 50, 64) == pytest.approx(math.log(64))
    # Two captions in equal parts: of 33 others in a batch of 100 rows drawn from 100, 49/99 have the same.
    assert least_loss(["a"] * 50 + ["b"] * 50, 100) == pytest.approx(math.log(50))


def test_equal_pictures_leave_nothing_to_learn(find: Find) -> None:
    for number in range(12):
        Image.new("RGB", (32, 32), "red").save(f"pairs/{number:02}.png")
    assert find("pictures").status == "fail"


def test_cut_captions_are_counted_with_start_and_end_token(find: Find) -> None:
    # Ten words are ten tokens: with the two special ones they fill a context of twelve exactly.
    Path("pairs/00.txt").write_text(" ".join(["cat"] * 10))
    assert find("cut captions").status == "ok"
    Path("pairs/00.txt").write_text(" ".join(["cat"] * 11))
    cut = find("cut captions")
    assert cut.status == "warn"
    assert cut.detail.startswith("1 of 12 rows looked at (8.3 %)")
    assert "the longest 11" in cut.detail


def test_same_captions_are_warned_of_where_they_count_as_wrong(find: Find) -> None:
    for number in range(6):
        Path(f"pairs/{number:02}.txt").write_text("the same" if number % 2 else "The  same")
    found = find("same captions")
    assert found.status == "warn"
    assert "50.0 % of captions occur again" in found.detail
    assert find("same captions", 'objective.positives="caption"').status == "ok"


def caption_table(rows: int, images: int) -> None:
    """A table whose rows go through the images again and again, each with a caption of its own."""
    lines = [f"{row % images:02}.png,words {row}" for row in range(rows)]
    Path("pairs/table.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")


def test_repeated_images_are_warned_of_where_they_count_as_wrong(find: Find) -> None:
    caption_table(36, 12)
    table = "data.train=pairs/table.csv"
    found = find("same images", table)
    assert found.status == "warn"
    # Each row has 2 others of its image among 35; in a batch of 4 a row meets 3 others.
    assert found.detail.startswith("36 rows show 12 images; about 15.8 % of the pairs of a batch")
    assert 'set objective.positives = "image"' in found.detail
    assert find("same images", table, "objective.positives=image").status == "ok"
    assert find("same images", table, "objective.positives=caption-or-image").status == "ok"
    assert '"caption-or-image"' in find("same images", table, "objective.positives=caption").detail
    assert find("same images").detail == "12 rows show 12 images"


def test_captions_that_are_equal_ask_for_both_beside_positives_by_image(find: Find) -> None:
    for number in range(6):
        Path(f"pairs/{number:02}.txt").write_text("the same")
    assert '"caption-or-image"' in find("same captions", "objective.positives=image").detail


def test_the_chance_to_meet_is_estimated_from_runs() -> None:
    total, copies = 100_000, 5
    neighbours = np.arange(total) // copies
    scattered = np.random.default_rng(0).permutation(neighbours)
    rows = neighbouring_rows(total, 10_000)
    exact = (copies - 1) / (total - 1)
    assert chance_to_meet(neighbours, total) == pytest.approx(exact)
    # Runs cut through the images at their ends.
    assert chance_to_meet(neighbours[rows], total) == pytest.approx(exact, rel=0.1)
    assert chance_to_meet(scattered[rows], total) == pytest.approx(exact, rel=0.3)
    assert chance_to_meet(np.arange(3), 3) == 0.0


def test_unreadable_pictures_and_missing_captions(find: Find) -> None:
    Path("pairs/03.png").write_bytes(b"not a picture")
    Path("pairs/04.txt").unlink()
    assert find("pictures").status == "warn"
    assert "03.png" in find("pictures").detail
    assert find("no caption").detail.startswith("1 of 12 rows")


def test_fewer_shards_than_workers_where_the_data_are_large(
    find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tarfile  # noqa: PLC0415

    with tarfile.open("one.tar", "w") as tar:
        tar.add("pairs", arcname="")
    settings = "data.train=one.tar", "data.workers=2"
    assert find("workers", *settings).status == "ok"  # the system keeps so few bytes in memory
    monkeypatch.setattr(data_checks, "READ_AT_ONCE", 1000)
    found = find("workers", *settings)
    assert found.status == "warn"
    assert "at least 2 shards, or set data.workers = 1" in found.detail
    assert find("workers", "data.train=one.tar", "data.workers=1").status == "ok"
    assert find("workers").status == "ok"  # a folder has no shards


def test_far_more_workers_than_processors(find: Find) -> None:
    assert find("workers", "data.workers=9999").status == "warn"


def test_evaluation_data_are_opened_and_a_time_that_never_comes_is_said(find: Find) -> None:
    Path("recipe.toml").write_text(RECIPE + TASK.replace("DATA", "nowhere"))
    assert find("evaluation").status == "fail"
    Path("recipe.toml").write_text(RECIPE + TASK.replace("DATA", "pairs"))
    assert find("evaluation").detail == "t: 12 rows"
    assert find("evaluation", "evaluation.every_steps=101").status == "warn"
    assert find("evaluation", "evaluation.every_steps=100").status == "ok"
    assert find("evaluation", "evaluation.captions=pairs").detail == "t: 12 rows; captions: 12 rows"
    assert find("evaluation", "evaluation.captions=nowhere").status == "fail"


def test_the_start_of_a_run_must_be_there(find: Find) -> None:
    assert find("start").detail == "from scratch"
    assert find("start", "model.init=runs/gone/model").status == "fail"
    assert find("start", "model.init=diptych-mini").status == "ok"
    assert find("start", "model.init=hf-hub:owner/name@v1").status == "ok"
    assert find("start", "model.init=ViT-B-32/laion2b_s34b_b79k").status == "ok"
    assert "no weights with the tag" in find("start", "model.init=ViT-B-32/laion").detail


def test_precisions_that_the_machine_lacks(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe_checks, "has_native_bfloat16", lambda device: False)
    found = find("precision", "training.precision=bfloat16")
    assert found.status == "warn"
    assert 'training.precision = "float32"' in found.detail
    assert (
        'training.precision = "float16"'
        in find("precision", "training.precision=bfloat16", device="cuda").detail
    )
    assert find("precision", "training.precision=float16").status == "warn"
    assert find("precision").status == "ok"
    monkeypatch.setattr(recipe_checks, "has_native_bfloat16", lambda device: True)
    assert find("precision", "training.precision=bfloat16").status == "ok"


def test_memory_that_is_not_there_names_the_chunk_that_fits(
    find: Find, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = "training.batch_size=4096", "model.architecture.image.layers=8"
    assert find("memory of the run", *settings).status == "ok"
    monkeypatch.setattr(forecast_checks, "free_memory", lambda device: 1 << 29)
    found = find("memory of the run", *settings)
    assert found.status == "fail"
    assert "set training.chunk = 1024" in found.detail
    assert "1,024 pairs at once" in find("memory of the run", *settings, "training.chunk=auto").detail
    assert find("memory of the run", *settings, "training.chunk=auto").status == "ok"
    assert find("memory of the run", *settings, "training.chunk=1024").status == "ok"


@pytest.mark.parametrize(
    ("seconds", "settings", "status"),
    [
        (0.1, (), "ok"),  # a run of ten seconds that is lost is no loss
        (20.0, (), "ok"),
        (20.0, ("checkpoint.every_minutes=60.0",), "warn"),  # of a run of 33 minutes
        (0.1, ("checkpoint.every_steps=100",), "ok"),
        (20.0, ("checkpoint.every_steps=100", "checkpoint.every_minutes=60.0"), "warn"),
        (20.0, ("checkpoint.every_steps=10", "checkpoint.every_minutes=60.0"), "ok"),
        (2000.0, ("checkpoint.every_minutes=90.0",), "warn"),  # more than an hour of work at stake
    ],
)
def test_checkpoints_that_come_too_late(
    find: Find, monkeypatch: pytest.MonkeyPatch, seconds: float, settings: tuple[str, ...], status: str
) -> None:
    pace = Pace(forward=0.0, training=seconds / 4, reading=0.0, update=0.0)
    monkeypatch.setattr(forecast_checks, "measure_pace", lambda *_: (pace, 4))
    assert find("checkpoints", *settings).status == status


def test_data_that_are_slower_than_the_model(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(forward=0.0, training=0.001, reading=10.0, update=0.0)
    monkeypatch.setattr(forecast_checks, "measure_pace", lambda *_: (pace, 4))
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert "data.cache = true" in find("time of the run").detail
    assert find("time of the run").status == "warn"
    # On two processors a step reads for 20 s; with a cache, the 12 pairs of the 400 that the run sees are read once.
    seconds = [find("time of the run", *settings).detail for settings in ((), ("data.cache=true",))]
    assert "33 min for 100 steps" in seconds[0]
    assert "60 s for 100 steps" in seconds[1]


def test_a_full_disk(find: Find, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "diptych.doctor.forecast_checks.shutil.disk_usage", lambda _: SimpleNamespace(free=1000)
    )
    found = find("disk of the run")
    assert found.status == "fail"
    assert "3 checkpoints" in found.detail


def test_parameters_in_training_are_counted_as_sixteen_bytes(find: Find) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build_model(PUBLISHED["ViT-B/32"]).parameters())
    assert count == 151_277_313
    detail = find("memory of the run", 'model.architecture="ViT-B/32"').detail
    assert f"{16 * count / 2**30:.1f} GiB for 151.3M parameters" in detail


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(3.4, "3 s"), (119, "119 s"), (600, "10 min"), (3 * 3600, "3.0 hours"), (1e6, "11.6 days")],
)
def test_durations_for_people(seconds: float, said: str) -> None:
    assert duration(seconds) == said


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
    found = {check.name: check for check in check_machine()}
    assert found["versions"].status == "ok"
    assert found["device"].detail.startswith("c")
    assert [name for name, check in found.items() if check.status == "fail"] == []


def test_the_first_loss_is_that_of_the_approach(find: Find) -> None:
    """ln N is that of CLIP; SigLIP begins with a bias of -10, which costs each pair 10."""
    assert find("something to learn").detail.startswith("the loss starts at ln 4 = 1.39; equal captions keep")
    siglip = find("something to learn", "objective.name=siglip").detail
    assert siglip == "the loss starts at 10.00"
    rate = find("learning rate", "objective.name=siglip", "optimizer.learning_rate=0.0").detail
    assert "the loss would stay at 10.00" in rate
