"""Students and teachers in the engine: what is learned, what stays as it was, and what is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import diptych
from diptych import config
from diptych.data.images.transforms import Preprocess
from diptych.errors import SettingsError
from diptych.models.architectures import (
    Architecture,
    BagOfWords,
    LabelHead,
    ModifiedResNet,
    VisionTransformer,
)
from diptych.models.building import build_model
from diptych.models.heads.label_head import LabelHead as Head
from diptych.models.image_model import ImageModel
from diptych.training.approaches.approach import TaughtSettings
from diptych.training.approaches.clip_distillation import ClipDistillationTask
from diptych.training.approaches.label_distillation import LabelDistillationTask
from diptych.training.encoding.teacher import Teacher
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from diptych.training.settings import Recipe
from diptych.training.step import training_step
from diptych.weights.checkpoint import save_checkpoint
from tests.training.gradient_matrix import ROWS, batch_of
from tests.training.label_pictures import COLOURS, write_pictures

VIT = VisionTransformer(resolution=32, patch=16, width=16, layers=1, heads=2)
RESNET = ModifiedResNet(resolution=32, layers=(1, 1, 1, 1), width=4, heads=2, stem_stride=2)
WORDS = BagOfWords(width=16, context_length=12)
IMAGE = "model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}"
TINY = ("training.batch_size=6", "training.steps=3", "schedule.warmup_steps=1")


def saved(folder: Path, architecture: Architecture, resolution: int = 32, seed: int = 1) -> str:
    torch.manual_seed(seed)
    model = build_model(architecture).eval()
    with torch.no_grad():
        for parameter in model.text.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    save_checkpoint(folder, model, config.plain(Preprocess(resolution)))
    return str(folder)


def labelled(
    image: VisionTransformer | ModifiedResNet = VIT, classes: tuple[str, ...] = tuple(COLOURS)
) -> Architecture:
    return Architecture(embed_dim=16, image=image, text=LabelHead(classes=classes))


def clip_recipe(teacher: str, *more: str) -> Recipe:
    settings = (f"objective.teacher={teacher!r}", "augmentation={name='none'}", "training.precision=float32")
    none = tuple(
        f"objective.{name}_weight=0" for name in ("contrastive", "feature", "affinity", "interactive")
    )
    return load_recipe("clip-distillation", (*settings, *none, *more))


def task_of(recipe: Recipe, student: ImageModel) -> ClipDistillationTask:
    task = recipe.make_task(student, Preprocess(32))
    assert isinstance(task, ClipDistillationTask)
    return task


def loss_of(task: ClipDistillationTask | LabelDistillationTask, model: ImageModel) -> tuple[float, float]:
    """The loss of a batch, and the length of its gradient."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
    result = training_step(task, optimizer, batch_of(range(ROWS)), 0.0, None, group_positives=False)
    return result.loss, result.gradient_norm


def student_of(place: str) -> ImageModel:
    return diptych.load(place, device="cpu")[0].train()


@pytest.mark.parametrize("image", [VIT, RESNET])
def test_a_student_equal_to_its_teacher_has_nothing_to_learn_in_evaluation_mode(
    tmp_path: Path, image: VisionTransformer | ModifiedResNet
) -> None:
    place = saved(tmp_path / "teacher", Architecture(embed_dim=16, image=image, text=WORDS))
    student = student_of(place).eval()
    for part, expected in (("feature", 0.0), ("affinity", None)):
        task = task_of(clip_recipe(place, f"objective.{part}_weight=1"), student)
        loss, gradient = loss_of(task, student)
        if expected is not None:
            assert loss == pytest.approx(expected, abs=1e-9)
        assert gradient < 1e-5
    # The trap: a teacher whose batch norms are left in training mode.
    task.teacher.model.train()
    assert (loss_of(task, student)[1] > 1e-4) == (image is RESNET)


def test_the_teacher_is_neither_trained_nor_saved_nor_moved_by_batches(tmp_path: Path) -> None:
    place = saved(tmp_path / "teacher", Architecture(embed_dim=16, image=RESNET, text=WORDS))
    student = student_of(saved(tmp_path / "s", Architecture(embed_dim=16, image=VIT, text=WORDS), seed=2))
    task = task_of(clip_recipe(place, "objective.feature_weight=1"), student)
    before = {name: value.clone() for name, value in task.teacher.model.state_dict().items()}
    assert loss_of(task, student)[1] > 0
    assert all(torch.equal(value, before[name]) for name, value in task.teacher.model.state_dict().items())
    assert not any(value.requires_grad for value in task.teacher.model.parameters())
    assert not task.teacher.model.training
    assert sum(p.numel() for p in student.parameters()) == sum(
        p.numel() for p in student_of(str(tmp_path / "s")).parameters()
    )


def test_a_teacher_sees_the_students_view_in_its_own_size_and_normalisation(tmp_path: Path) -> None:
    larger = VisionTransformer(resolution=64, patch=16, width=16, layers=1, heads=2)
    place = saved(tmp_path / "t", Architecture(embed_dim=16, image=larger, text=WORDS), 64)
    teacher = Teacher(place, "clip-distillation", build_model(labelled()))
    seen = teacher.pixels(torch.full((2, 3, 32, 32), 0.25))
    mean, std = (torch.tensor(values)[:, None, None] for values in (Preprocess(64).mean, Preprocess(64).std))
    torch.testing.assert_close(seen, ((0.25 - mean) / std).expand(2, 3, 64, 64), rtol=0, atol=1e-5)


def test_the_shipped_recipes_distil_a_clip_and_a_classifier(tmp_path: Path) -> None:
    small = ("model.architecture.image={resolution=32, patch=16, width=16, layers=1, heads=2}", *TINY)
    clip = load_recipe("clip-distillation", small)
    assert isinstance(clip.objective, TaughtSettings)
    assert clip.objective.teacher == "diptych-mini"
    assert train(clip, tmp_path / "clip").step == 3
    teacher = saved(tmp_path / "teacher", labelled())
    pictures = write_pictures(tmp_path / "pictures", 4)
    settings = (f"objective.teacher={teacher!r}", f"data.train={str(pictures)!r}", *small)
    train(load_recipe("simclr-distil", settings), tmp_path / "student")
    student, _ = diptych.load(str(tmp_path / "student" / "model"), device="cpu")
    assert student.architecture.text == LabelHead(classes=tuple(COLOURS))


def test_a_student_comes_to_say_what_its_teacher_says_of_pictures_without_labels(tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pictures", 4)
    for number, file in enumerate(sorted(pictures.glob("*/*.png"))):
        file.rename(pictures / f"{number}.png")  # no class folders any more
    for folder in [path for path in pictures.iterdir() if path.is_dir()]:
        folder.rmdir()
    teacher = saved(tmp_path / "teacher", labelled())
    settings = (
        f"objective.teacher={teacher!r}",
        f"data.train={str(pictures)!r}",
        "objective.temperature=1.0",
        "augmentation={name='none'}",
        "optimizer={name='adamw', learning_rate=1e-2, weight_decay=0.0}",
        IMAGE,
    )
    few = ("training.batch_size=12", "schedule.warmup_steps=1")
    train(load_recipe("simclr-distil", (*settings, *few, "training.steps=60")), tmp_path / "student")
    pixels = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 0.1
    said = {}
    for name in ("teacher", "student/model"):
        model, _ = diptych.load(str(tmp_path / name), device="cpu")
        assert isinstance(model.text, Head)
        said[name] = model.text(model.image_features(pixels)).softmax(dim=1)
    uniform = (said["teacher"] - 1 / 3).abs().mean()
    assert (said["teacher"] - said["student/model"]).abs().mean() < 0.5 * uniform


def test_distillation_says_what_it_needs(tmp_path: Path) -> None:
    clip = saved(tmp_path / "clip", Architecture(embed_dim=8, image=VIT, text=WORDS))
    labels = saved(tmp_path / "labels", labelled(classes=("a", "b")))
    student = build_model(Architecture(embed_dim=16, image=VIT, text=WORDS))
    some = "objective.feature_weight=1"

    def task(place: str, *more: str) -> ClipDistillationTask:
        return task_of(clip_recipe(place, *more), student)

    with pytest.raises(SettingsError, match="nothing is learned"):
        task(clip)
    with pytest.raises(SettingsError, match="embed_dim = 8"):
        task(clip, some)
    task(clip, "objective.affinity_weight=1")
    with pytest.raises(SettingsError, match="embeds no texts"):
        task(labels, some)
    short = BagOfWords(width=16, context_length=5)
    with pytest.raises(SettingsError, match="reads 5 tokens"):
        task(saved(tmp_path / "short", Architecture(embed_dim=16, image=VIT, text=short)), some)
    recipe = load_recipe("simclr-distil", (f"objective.teacher={labels!r}",))
    with pytest.raises(SettingsError, match="2 classes apart"):
        recipe.make_task(build_model(labelled()), Preprocess(32))
    with pytest.raises(SettingsError, match="needs a teacher"):
        load_recipe("labels", ("objective.name=label-distillation",)).make_task(
            build_model(labelled()), Preprocess(32)
        )


def test_weights_of_the_student_change_and_the_teachers_file_does_not(tmp_path: Path) -> None:
    place = saved(tmp_path / "teacher", labelled())
    before = load_file(Path(place) / "model.safetensors")
    pictures = write_pictures(tmp_path / "pictures", 4)
    settings = (f"objective.teacher={place!r}", f"data.train={str(pictures)!r}", IMAGE, *TINY)
    train(load_recipe("simclr-distil", settings), tmp_path / "run")
    after = load_file(Path(place) / "model.safetensors")
    assert all(torch.equal(value, after[name]) for name, value in before.items())
