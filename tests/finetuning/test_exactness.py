"""Steps of fine-tuning are those of the whole batch, however it is cut; a run ends where nothing gets better."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from diptych.data.images.augmentations import CentreCrop
from diptych.data.images.transforms import Preprocess
from diptych.evaluation.task_report import Report, Scores
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.runs.finetune_figures import best_alpha, losses
from diptych.runs.finetune_start import prepare
from diptych.training.approaches.classifier import ClassifierTask
from diptych.training.engine import train
from diptych.training.feeding import open_training_data
from diptych.training.settings import Recipe
from diptych.training.starting import starting_model
from diptych.training.step import training_step
from diptych.training.towers import WHOLE, Chunking
from diptych.training.trained_parts import choose_trained
from tests.finetuning.pictures import RESNET, VIT, recipe, saved_clip
from tests.training.label_pictures import write_pictures


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


def silent(_: str) -> None:
    pass


@pytest.mark.parametrize("method", ["full", "lp-ft", "lora", "flyp", "lit"])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_the_gradient_does_not_depend_on_how_the_batch_is_cut(
    method: str, tower: str, pictures: Path, tmp_path: Path
) -> None:
    init = saved_clip(tmp_path / "model", VIT if tower == "vit" else RESNET)
    prepared = prepare(recipe(pictures, init, method), tmp_path / "run", silent)
    gradients = []
    for chunking in (WHOLE, Chunking(images=2, texts=4), Chunking(images=4, texts=2, keep=1)):
        model, preprocess = starting_model(prepared, silent)
        model.double()
        choose_trained(model, prepared)
        task = prepared.make_task(model.train(), preprocess)
        batch = next(open_training_data(prepared, model, preprocess, silent).batches(0))
        optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.0)
        training_step(task, optimizer, batch, 0.0, None, group_positives=False, chunking=chunking)
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for name, value in gradients[0].items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("head", ["probe", "zero-shot", "zero"])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_the_loss_is_about_what_the_delivered_model_answers(
    head: str, tower: str, pictures: Path, tmp_path: Path
) -> None:
    """What the classifier reads in training, features or embeddings, is what it reads in use."""
    init = saved_clip(tmp_path / "model", VIT if tower == "vit" else RESNET)
    asked = recipe(pictures, init, "full", head=head)
    plain = type(asked)(**{**vars(asked), "augmentation": CentreCrop()})
    prepared = prepare(plain, tmp_path / "run", silent)
    model, preprocess = starting_model(prepared, silent)
    task = prepared.make_task(model.eval(), preprocess)
    assert isinstance(task, ClassifierTask)
    batch = next(open_training_data(prepared, model, preprocess, silent).batches(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    result = training_step(task, optimizer, batch, 0.0, None, group_positives=False)
    started, _ = load(str(tmp_path / "run" / "start"), device="cpu")
    pixels = task.images.normalised(batch.canvas.float() / 255)
    with torch.no_grad():
        logits = started.classify(pixels)
    expected = torch.nn.functional.cross_entropy(logits, batch.tokens[:, 0].long())
    # Both in float32, by the same kernels in another order of memory.
    assert result.loss == pytest.approx(expected.item(), abs=1e-5)
    assert result.accuracy == pytest.approx(
        (logits.argmax(dim=1) == batch.tokens[:, 0]).float().mean().item()
    )


def with_patience(pictures: Path, init: str) -> Recipe:
    values = recipe(pictures, init, "full")
    evaluation = type(values.evaluation)(every_steps=1, best="score", patience=2)
    training = type(values.training)(steps=30, batch_size=6)
    return Recipe(**{**vars(values), "evaluation": evaluation, "training": training})


def test_a_run_ends_when_evaluations_find_nothing_better_and_a_resumed_one_at_the_same_step(
    pictures: Path, tmp_path: Path
) -> None:
    init = saved_clip(tmp_path / "model")
    scores = [0.1, 0.3, 0.2, 0.3, 0.9]  # of equal values the first counts

    def evaluate_from(first: int, dies_at: int | None = None):  # type: ignore[no-untyped-def]
        calls = iter(range(first, 30))

        def evaluate(model: ImageModel, preprocess: Preprocess) -> Mapping[str, float]:
            call = next(calls)
            if call == dies_at:
                raise KeyboardInterrupt
            return {"score": scores[call]}

        return evaluate

    whole = prepare(with_patience(pictures, init), tmp_path / "whole", silent)
    result = train(whole, tmp_path / "whole", evaluate=evaluate_from(0))
    assert result.best is not None
    assert (result.step, result.best.step, result.best.value) == (4, 2, 0.3)
    assert (tmp_path / "whole" / "model" / "diptych.json").is_file()
    again = train(whole, tmp_path / "whole", resume=True, evaluate=evaluate_from(4))
    assert (again.step, again.best) == (4, result.best)


def report(value: float, low: float, high: float, task: str = "zero-shot") -> Report:
    scores = Scores(
        count=100, metrics={"top1": value}, confidence={"top1": (low, high)}, chance={"top1": 0.1}
    )
    return Report(task=task, model="m", data="d", scores=scores, details={"headline": "top1"})


def test_the_alarm_is_about_what_was_above_chance_and_is_more_than_luck() -> None:
    before = {"kept": report(0.5, 0.45, 0.55)}
    (loss,) = losses(before, {"kept": report(0.4, 0.35, 0.45)}, 0.2)
    assert loss.share == pytest.approx(0.25)
    assert (
        "kept: top1 fell from 50.0% to 40.0%, 25% of what it was above chance; a lower learning rate"
        in str(loss)
    )
    assert losses(before, {"kept": report(0.4, 0.35, 0.45)}, 0.3) == []
    assert losses(before, {"kept": report(0.6, 0.55, 0.65)}, 0.2) == []
    unsure = {"kept": report(0.5, 0.3, 0.7)}
    assert losses(unsure, {"kept": report(0.4, 0.2, 0.6)}, 0.2) == []
    guessing = {"kept": report(0.12, 0.09, 0.2)}
    assert losses(guessing, {"kept": report(0.0, 0.0, 0.05)}, 0.2) == []


def test_the_best_alpha_weighs_what_was_learned_and_what_was_kept_alike() -> None:
    def point(learned: float, shifted: float, kept: float) -> dict[str, Report]:
        return {
            "held_out": report(learned, 0, 1, "labels"),
            "shift": report(shifted, 0, 1, "labels"),
            "kept": report(kept, 0, 1),
        }

    curve = [(0.0, point(0.2, 0.2, 0.9)), (0.5, point(0.7, 0.5, 0.8)), (1.0, point(0.9, 0.5, 0.1))]
    assert best_alpha(curve) == 0.5
    assert best_alpha([(0.0, point(0.5, 0.5, 0.5)), (1.0, point(0.5, 0.5, 0.5))]) == 0.0
