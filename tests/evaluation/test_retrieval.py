"""Retrieval against a slow loop, with several captions an image and captions that images share."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images, embed_texts
from diptych.errors import DataError, TextError
from diptych.evaluation.metrics import Floats
from diptych.evaluation.retrieval import evaluate_retrieval, rank_both, relevant_rows, retrieval_scores
from diptych.models.image_model import ImageModel

CAPTIONS = (
    ("a cat", "my cat"),
    ("a dog",),
    ("a cat", "another", "one more"),
    ("a hill",),
    ("a dog", "a wolf"),
    ("the sea",),
)


def unit(generator: np.random.Generator, rows: int) -> Floats:
    vectors = generator.normal(size=(rows, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def slow_metrics(
    images: np.ndarray, texts: np.ndarray, captions: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Each query on its own: sort the gallery, find the first that is right by comparing captions."""
    flat = [(owner, text) for owner, of_one in enumerate(captions) for text in of_one]
    ranks: dict[str, list[int]] = {"image_to_text": [], "text_to_image": []}
    for image, vector in enumerate(images):
        order = sorted(range(len(flat)), key=lambda row: -float(texts[row] @ vector))
        ranks["image_to_text"].append(
            next(rank for rank, row in enumerate(order, 1) if flat[row][1] in captions[image])
        )
    for row, (_, text) in enumerate(flat):
        order = sorted(range(len(images)), key=lambda image: -float(images[image] @ texts[row]))
        ranks["text_to_image"].append(
            next(rank for rank, image in enumerate(order, 1) if text in captions[image])
        )
    metrics: dict[str, float] = {}
    for name, places in ranks.items():
        metrics |= {f"{name}_r{k}": float(np.mean([place <= k for place in places])) for k in (1, 5, 10)}
        metrics[f"{name}_median_rank"] = float(np.median(places))
    return metrics


@pytest.mark.parametrize("seed", range(5))
def test_metrics_equal_a_slow_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    captions = tuple(
        tuple(f"text {word}" for word in generator.choice(30, generator.integers(1, 6), replace=False))
        for _ in range(25)
    )
    count = sum(len(of_one) for of_one in captions)
    images, texts = unit(generator, 25), unit(generator, count)
    scores = retrieval_scores(rank_both(images, texts, *relevant_rows(captions)))
    expected = slow_metrics(images, texts, captions)
    assert {name: scores.metrics[name] for name in expected} == pytest.approx(expected)


def test_a_shared_caption_is_right_for_every_image_that_has_it() -> None:
    texts_of_image, images_of_text = relevant_rows(CAPTIONS)
    assert texts_of_image == [[0, 1, 3], [2, 7], [0, 3, 4, 5], [6], [2, 7, 8], [9]]
    assert images_of_text == [[0, 2], [0], [1, 4], [0, 2], [2], [2], [3], [1, 4], [4], [5]]


def test_counting_only_the_own_image_would_score_lower() -> None:
    captions = (("same",), ("same",))
    images = np.array([[1, 0], [0, 1]], np.float32)
    texts = np.array([[0.6, 0.8], [0.6, 0.8]], np.float32)
    shared = retrieval_scores(rank_both(images, texts, *relevant_rows(captions)))
    own = retrieval_scores(rank_both(images, texts, [[0], [1]], [[0], [1]]))
    assert shared.metrics["text_to_image_r1"] == 1
    assert own.metrics["text_to_image_r1"] == 0.5


def test_chance_is_what_random_vectors_score() -> None:
    generator = np.random.default_rng(0)
    captions = CAPTIONS * 1
    relevant = relevant_rows(captions)
    runs = [
        retrieval_scores(rank_both(unit(generator, 6), unit(generator, 10), *relevant)) for _ in range(400)
    ]
    for name, chance in runs[0].chance.items():
        assert np.mean([run.metrics[name] for run in runs]) == pytest.approx(chance, abs=0.04)


def test_a_collapsed_model_scores_at_chance_and_says_that_all_is_tied() -> None:
    same = np.full((40, 4), 0.5, np.float32)
    pairs = [[row] for row in range(40)]
    scores = retrieval_scores(rank_both(same, same, pairs, pairs))
    assert scores.metrics["image_to_text_r1"] == scores.metrics["text_to_image_r1"] == 1 / 40
    assert scores.metrics["image_to_text_tied"] == 1


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, captions in enumerate(CAPTIONS):
        generator = np.random.default_rng(number)
        path = tmp_path / "photos" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(generator.integers(0, 256, (16, 16, 3), np.uint8)).save(path)
        path.with_suffix(".txt").write_text("\n".join(captions))
    return tmp_path / "photos"


def test_report_of_a_folder_equals_the_slow_loop_over_its_embeddings(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path
) -> None:
    report = evaluate_retrieval(tiny_clip, tiny_preprocess, open_source(photos), model_name="tiny")
    images = embed_images(tiny_clip, tiny_preprocess, sorted(photos.glob("*.png")))
    texts = embed_texts(tiny_clip, [text for of_one in CAPTIONS for text in of_one])
    expected = slow_metrics(images, texts, CAPTIONS)
    assert {name: report.scores.metrics[name] for name in expected} == pytest.approx(expected)
    assert (report.task, report.scores.count) == ("retrieval", 6)
    assert set(report.scores.confidence) == {name for name in expected if "median" not in name}


def test_images_without_a_caption_or_unreadable_are_counted(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path
) -> None:
    (photos / "3.txt").write_text("")
    (photos / "5.png").write_bytes(b"no image")
    report = evaluate_retrieval(tiny_clip, tiny_preprocess, open_source(photos), model_name="tiny")
    assert report.scores.count == 4
    assert report.skipped == {"not an image": 1, "no caption": 1}


def test_data_without_captions_is_an_error(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path
) -> None:
    for file in photos.glob("*.txt"):
        file.write_text("")
    with pytest.raises(DataError, match="no image has a caption"):
        evaluate_retrieval(tiny_clip, tiny_preprocess, open_source(photos), model_name="tiny")


def test_a_folder_beside_its_table_of_captions_is_an_error_that_names_the_table(
    tiny_clip: ImageModel, tiny_preprocess: Preprocess, photos: Path
) -> None:
    for file in photos.glob("*.txt"):
        file.unlink()
    (photos / "captions.txt").write_text("image,caption\n")
    with pytest.raises(DataError, match=r"in captions\.txt, name that file in place of the folder"):
        evaluate_retrieval(tiny_clip, tiny_preprocess, open_source(photos), model_name="tiny")


def test_a_long_caption_stops_the_work_before_an_image_is_embedded(
    tiny_clip: ImageModel, photos: Path
) -> None:
    (photos / "1.txt").write_text("long " * 100)
    with pytest.raises(TextError):
        evaluate_retrieval(
            tiny_clip,
            lambda image: pytest.fail("an image was decoded"),
            open_source(photos),
            model_name="tiny",
        )


def test_outcomes_of_the_images_average_to_the_metrics(
    photos: Path, tiny_clip: ImageModel, tiny_preprocess: Preprocess
) -> None:
    report = evaluate_retrieval(tiny_clip, tiny_preprocess, open_source(photos), model_name="tiny")
    assert report.outcomes is not None
    assert [len(report.outcomes.keys), len(report.outcomes.positions)] == [report.scores.count] * 2
    assert len(report.outcomes.scores) == 6
    for name, values in report.outcomes.scores.items():
        # Images have from one to three captions: a plain mean over images would not be the mean over captions.
        assert values.mean() == pytest.approx(report.scores.metrics[name], abs=1e-6)
