import io
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diptych.data.augmentations import Drawings, RandomCrop
from diptych.data.canvas import canvas_for, drawing, random_square
from diptych.data.example import Example
from diptych.data.loader import (
    Batch,
    Loader,
    SourceTooDamagedError,
    TextSampling,
    example_weights,
    group_id,
    sample_text,
)
from diptych.data.permuted import PermutedCaptions
from diptych.data.transforms import Preprocess
from diptych.errors import DataError


def png(colour: tuple[int, ...], size: tuple[int, int] = (12, 9)) -> bytes:
    data = io.BytesIO()
    Image.new("RGBA" if len(colour) == 4 else "RGB", size, colour).save(data, "PNG")
    return data.getvalue()


class Listed:
    """A source over a list."""

    name = "listed"
    fingerprint = "0" * 64

    def __init__(self, examples: list[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, position: int, /) -> Example:
        return self.examples[position]

    def describe(self) -> str:
        return "listed"


def examples(count: int) -> list[Example]:
    return [
        Example(str(row), png((row, 0, 0)), (f"caption {row}",), ("tag",), metadata={"kind": row % 2})
        for row in range(count)
    ]


def lengths(texts: list[str]) -> Tensor:
    return torch.tensor([[len(text)] for text in texts])


def loader(source: Listed, size: int = 4, **more: object) -> Loader:
    return Loader(
        source=source,
        canvas=canvas_for(Drawings(), Preprocess(16)),
        tokenize=lambda texts: lengths(list(texts)),
        batch_size=size,
        seed=3,
        weights=np.ones(len(source)),
        **more,  # type: ignore[arg-type]
    )


def take(loaded: Loader, count: int, position: int = 0) -> list[Batch]:
    return list(islice(loaded.batches(position), count))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cache", [False, True])
def test_batches_from_a_position_equal_those_of_the_whole_run(workers: int, cache: bool) -> None:
    source = Listed(examples(10))
    whole = take(loader(source, workers=1), 6)
    resumed = take(loader(source, workers=workers, cache=cache), 3, position=12)
    for expected, found in zip(whole[3:], resumed, strict=True):
        assert expected.position == found.position
        for name in ("canvas", "tokens", "groups", "mirrored", "chance"):
            assert torch.equal(getattr(expected, name), getattr(found, name))


def test_every_pair_keeps_its_own_words() -> None:
    for batch in take(loader(Listed(examples(40)), size=8), 10):
        reds = batch.canvas[:, 0, 8, 8].tolist()
        assert batch.groups.tolist() == [group_id(f"caption {red}") for red in reds]


def test_a_pair_that_cannot_be_read_is_replaced_and_counted() -> None:
    pairs = examples(60)
    pairs[7] = Example("7", b"not an image", ("broken",))
    pairs[8] = Example("8", png((8, 0, 0)), ())
    loaded = loader(Listed(pairs), size=60)
    (batch,) = take(loaded, 1)
    # The thread reads ahead: the second epoch may have been counted too.
    assert loaded.skipped["ImageError"] >= 1
    assert loaded.skipped["DataError"] >= 1
    reds = batch.canvas[:, 0, 8, 8].tolist()
    assert sorted(reds) == sorted([*range(7), 9, 9, *range(9, 60)])


def test_too_many_bad_pairs_end_the_run() -> None:
    pairs = [Example(str(row), b"no", ("a",)) if row % 2 else pair for row, pair in enumerate(examples(60))]
    with pytest.raises(SourceTooDamagedError, match="more than 5%"):
        take(loader(Listed(pairs), size=30), 3)


def test_a_source_without_any_good_pair_is_an_error() -> None:
    with pytest.raises(DataError, match="no pair of it can be read"):
        take(loader(Listed([Example("a", b"no", ("a",))] * 3), size=2), 1)


def test_texts_are_drawn_with_the_stated_probabilities() -> None:
    settings = TextSampling(caption=0.6, caption_and_tags=0.3)
    random = np.random.default_rng(0).random((6_000, 4))
    texts = [sample_text(("cap",), ("x", "y", "z", "w"), settings, row) for row in random]
    alone = np.mean([text == "cap" for text in texts])
    joined = np.mean([text.startswith("cap, ") for text in texts])
    # Three standard errors over 6,000 draws.
    assert alone == pytest.approx(0.6, abs=0.019)
    assert joined == pytest.approx(0.3, abs=0.018)
    tags = [tag for text in texts for tag in text.split(", ") if tag != "cap"]
    shares = np.unique(tags, return_counts=True)[1] / len(tags)
    assert shares == pytest.approx([0.25] * 4, abs=0.02)


def test_a_pair_without_tags_always_gives_a_caption() -> None:
    settings = TextSampling(caption=0.0)
    assert sample_text(("only",), (), settings, np.full(4, 0.99)) == "only"


def test_groups_ignore_case_and_spacing() -> None:
    assert group_id("Red  Heart ") == group_id("red heart")
    assert group_id("red heart") != group_id("red hearts")


def test_pictures_whose_words_name_a_side_are_not_mirrored() -> None:
    pairs = [
        Example("a", png((1, 1, 1)), ("arrow to the left",)),
        Example("b", png((2, 2, 2)), ("an arrow",), ("right",)),
        Example("c", png((3, 3, 3)), ("a bright leftover",)),
    ]
    (batch,) = take(loader(Listed(pairs), size=3), 1)
    allowed = dict(zip(batch.canvas[:, 0, 8, 8].tolist(), batch.mirrored.tolist(), strict=True))
    assert allowed == {1: False, 2: False, 3: True}


def test_weights_come_from_metadata_and_held_out_examples_are_never_seen() -> None:
    source = Listed(examples(6))
    assert example_weights(source, "kind", {"1": 2.5}, {}).tolist() == [1, 2.5] * 3
    assert example_weights(source, None, {}, {"kind": ("0",)}).tolist() == [0, 1] * 3
    with pytest.raises(DataError, match="held out"):
        example_weights(source, None, {}, {"kind": ("0", "1")})


def test_permuted_captions_keep_every_picture_and_every_caption() -> None:
    source = Listed(examples(50))
    permuted = PermutedCaptions(source, 0)
    rows = [permuted[row] for row in range(50)]
    assert [row.image for row in rows] == [row.image for row in source.examples]
    assert sorted(row.captions for row in rows) == sorted(row.captions for row in source.examples)
    assert sum(row.captions == own.captions for row, own in zip(rows, source.examples, strict=True)) < 6


def test_a_drawing_keeps_its_pixels_and_its_transparency() -> None:
    canvas = drawing(Example("a", png((200, 100, 50, 128), (6, 4))), 8)
    assert canvas.shape == (4, 8, 8)
    assert canvas[:, 2:6, 1:7].reshape(4, -1).T.tolist() == [[200, 100, 50, 128]] * 24
    assert canvas[3].sum() == 128 * 24


def test_a_drawing_that_is_too_large_is_made_to_fit() -> None:
    canvas = drawing(Example("a", png((10, 20, 30), (60, 30))), 8)
    assert canvas[3].sum() == 255 * 8 * 4


def test_random_squares_cover_the_picture_and_keep_their_side() -> None:
    pixels = np.arange(3 * 4 * 7, dtype=np.uint8).reshape(3, 4, 7)
    corners = {
        int(random_square(pixels, np.array([0.5, across]), 4)[0, 0, 0])
        for across in np.linspace(0, 0.999, 40)
    }
    assert corners == {0, 1, 2, 3}


def test_the_papers_crop_is_a_square_of_the_resized_picture() -> None:
    canvas = canvas_for(RandomCrop(), Preprocess(8))
    decoded = canvas.decode(Example("a", png((9, 8, 7), (40, 16))))
    assert decoded.shape == (3, 8, 20)
    assert canvas.crop(decoded, np.array([0.2, 0.9])).shape == (3, 8, 8)
