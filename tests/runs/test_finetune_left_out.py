"""What a run of fine-tuning says it left out."""

from pathlib import Path

from diptych.runs.finetune_recipe import FinetuneRequest
from diptych.runs.finetune_run import finetune_recipe, plan_finetuning
from tests.training.label_pictures import write_pictures

SETTINGS = (
    "training.steps=2", "training.batch_size=6", "data.near_copies=false", "data.most_bad=0.9", "data.workers=0",
)  # fmt: skip


def test_damaged_images_of_the_held_out_part_count_as_left_out(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images")
    for file in sorted(images.rglob("*.png"))[::4]:
        data = bytearray(file.read_bytes())
        data[len(data) // 2 : len(data) // 2 + 40] = bytes(40)
        file.write_bytes(data)
    request = FinetuneRequest(data=str(images), model="diptych-mini", keep=())
    recipe = plan_finetuning(request, SETTINGS, say=lambda _: None).recipe
    found = finetune_recipe(recipe, tmp_path / "run", device="cpu", say=lambda _: None)
    held_out = found.before["held_out"].skipped["damaged image"]
    assert held_out > 0
    assert found.left_out["damaged image"] == found.result.left_out["damaged image"] + held_out
