"""The classifiers on disk: equal to the bit, never another's, never a damaged one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from diptych.data.images.transforms import Preprocess
from diptych.evaluation.zero_shot import classifier_cache
from diptych.evaluation.zero_shot.classification import classifier
from diptych.evaluation.zero_shot.classifier_cache import cache_folder, cached_classifier
from diptych.evaluation.zero_shot.prompts import TEMPLATES
from diptych.models.image_model import ImageModel
from diptych.weights.half_precision import to_half
from tests.tiny_model import random_clip

LABELS = (("cat",), ("kit fox", "swift fox"), ("dog",))
TEMPLATES_80 = TEMPLATES["imagenet"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "classifiers"


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[ImageModel]:
    """The models that a classifier was made of."""
    calls = []

    def build(model: ImageModel, *words: object) -> torch.Tensor:
        calls.append(model)
        return classifier(model, *words)  # type: ignore[arg-type]

    monkeypatch.setattr(classifier_cache, "classifier", build)
    return calls


def test_what_is_found_equals_what_would_be_made_again_to_the_bit(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, folder: Path, built: list[ImageModel]
) -> None:
    again = classifier(tiny_clip, LABELS, TEMPLATES_80)
    for _ in range(3):
        found = cached_classifier(tiny_clip, LABELS, TEMPLATES_80, preprocess=tiny_preprocess, folder=folder)
        assert torch.equal(found, again)
        # Products of matrices round by the order in memory too.
        assert found.stride() == again.stride()
    assert len(built) == 1
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: bytes([data[0] ^ 1]) + data[1:],
    ],
    ids=["empty", "cut", "one byte less", "one byte more", "a bit of the weights", "a bit of the digest"],
)
def test_a_damaged_file_is_made_again(
    tiny_clip: ImageModel,
    tiny_preprocess: Preprocess,
    folder: Path,
    built: list[ImageModel],
    damage: Callable[[bytes], bytes],
) -> None:
    whole = cached_classifier(tiny_clip, LABELS, TEMPLATES_80, preprocess=tiny_preprocess, folder=folder)
    (file,) = folder.iterdir()
    data = file.read_bytes()
    file.write_bytes(damage(data))
    found = cached_classifier(tiny_clip, LABELS, TEMPLATES_80, preprocess=tiny_preprocess, folder=folder)
    assert torch.equal(found, whole)
    assert len(built) == 2
    assert file.read_bytes() == data


def test_another_model_precision_phrase_template_or_order_is_another_classifier(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, folder: Path
) -> None:
    other = random_clip()
    with torch.no_grad():
        other.text.ln_final.weight[0] += 1e-3
    asked = [
        (tiny_clip, LABELS, TEMPLATES_80),
        (other, LABELS, TEMPLATES_80),
        (to_half(random_clip(), torch.bfloat16), LABELS, TEMPLATES_80),
        (tiny_clip, (*LABELS[:2], ("hound",)), TEMPLATES_80),
        (tiny_clip, LABELS, TEMPLATES_80[:79]),
        (tiny_clip, LABELS[::-1], TEMPLATES_80),
        (tiny_clip, (("cat", "kit fox"), ("swift fox",), ("dog",)), TEMPLATES_80),
    ]
    for number, (model, labels, templates) in enumerate(asked, 1):
        found = cached_classifier(model, labels, templates, preprocess=tiny_preprocess, folder=folder)
        assert torch.equal(found, classifier(model, labels, templates))
        assert len(list(folder.iterdir())) == number


def test_a_classifier_of_few_prompts_is_not_kept(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, folder: Path
) -> None:
    found = cached_classifier(tiny_clip, LABELS, ["{}"], preprocess=tiny_preprocess, folder=folder)
    assert torch.equal(found, classifier(tiny_clip, LABELS, ["{}"]))
    assert not folder.exists()


def test_a_folder_that_cannot_be_written_costs_nothing_but_time(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, tmp_path: Path, built: list[ImageModel]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    for _ in range(2):
        found = cached_classifier(
            tiny_clip, LABELS, TEMPLATES_80, preprocess=tiny_preprocess, folder=tmp_path / "file"
        )
        assert torch.equal(found, classifier(tiny_clip, LABELS, TEMPLATES_80))
    assert len(built) == 2


def test_a_write_that_fails_leaves_nothing_half_written(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: object, target: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    cached_classifier(tiny_clip, LABELS, TEMPLATES_80, preprocess=tiny_preprocess, folder=folder)
    assert list(folder.iterdir()) == []


def test_classifiers_lie_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIPTYCH_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path / "classifiers"
