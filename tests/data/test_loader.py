import io
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diptych.data.batch import Batch
from diptych.data.example import Example
from diptych.data.images.augmentations import Drawings, RandomCrop
from diptych.data.images.canvas import canvas_for, drawing, random_square
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader, SourceTooDamagedError
from diptych.data.order import Indices
from diptych.data.subsets.permuted import ShuffledCaptions
from diptych.data.subsets.weighting import example_weights
from diptych.data.text_sampling import TextSampling, group_id, sample_text
from diptych.distributed import World, share
from diptych.errors import DataError, SettingsError


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


AnyLoader = TypeVar("AnyLoader", bound=Loader)


def loader_of(kind: type[AnyLoader], source: Listed, size: int, **more: object) -> AnyLoader:
    return kind(
        source=source,
        canvas=canvas_for(Drawings(), Preprocess(16)),
        tokenize=lambda texts: lengths(list(texts)),
        batch_size=size,
        seed=3,
        weights=np.ones(len(source)),
        **more,  # type: ignore[arg-type]
    )


def loader(source: Listed, size: int = 4, **more: object) -> Loader:
    return loader_of(Loader, source, size, **more)


TENSORS = ("canvas", "tokens", "groups", "mirrored", "chance", "rows", "seeds")


def take(loaded: Loader, count: int, position: int = 0) -> list[Batch]:
    return list(islice(loaded.batches(position), count))


def whole_batches(shares: Sequence[Sequence[Batch]]) -> list[dict[str, Tensor]]:
    """The tensors of global batches, from the batches of every process in their order."""
    joined = []
    for batch in zip(*shares, strict=True):
        rows = [len(each.rows) for each in batch]
        assert [each.first for each in batch] == [sum(rows[:rank]) for rank in range(len(rows))]
        assert {each.global_count for each in batch} == {sum(rows)}
        assert len({each.position for each in batch}) == 1
        joined.append({name: torch.cat([getattr(each, name) for each in batch]) for name in TENSORS})
    return joined


def run_of(source: Listed, workers: int, size: int, count: int, position: int = 0) -> list[dict[str, Tensor]]:
    """`count` global batches of 10, read by `size` processes of `workers` threads."""
    return whole_batches(
        [
            take(loader(source, 10, workers=workers, world=World(rank, size)), count, position)
            for rank in range(size)
        ]
    )


def assert_same(expected: list[dict[str, Tensor]], found: list[dict[str, Tensor]]) -> None:
    assert len(expected) == len(found)
    for left, right in zip(expected, found, strict=True):
        for name in TENSORS:
            assert torch.equal(left[name], right[name]), name


def damaged(count: int) -> list[Example]:
    """Examples of which two in a row, and the last, cannot be read."""
    pairs = examples(count)
    for row in (4, 5, count - 1):
        pairs[row] = Example(str(row), b"no image", ("broken",))
    return pairs


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_any_number_of_workers_and_processes_reads_the_same_batches(workers: int) -> None:
    source = Listed(damaged(26))
    expected = run_of(source, 1, 1, 4)
    for size in (1, 2, 3):
        assert_same(expected, run_of(source, workers, size, 4))


def test_resuming_with_other_workers_and_processes_goes_on_with_the_same_batches() -> None:
    source = Listed(damaged(26))
    resumed = [
        batch
        for start, (workers, size) in enumerate([(0, 1), (2, 2), (4, 1), (1, 3), (0, 2)])
        for batch in run_of(source, workers, size, 1, position=10 * start)
    ]
    assert_same(run_of(source, 1, 1, 5), resumed)


@pytest.mark.nightly
def test_fifty_random_histories_of_workers_and_processes_read_the_same_batches() -> None:
    source = Listed(damaged(53))
    expected = run_of(source, 1, 1, 12)
    random = np.random.default_rng(0)
    for _ in range(50):
        found: list[dict[str, Tensor]] = []
        while len(found) < len(expected):
            count = int(random.integers(1, len(expected) - len(found) + 1))
            workers, size = int(random.choice([0, 2, 4])), int(random.integers(1, 4))
            found += run_of(source, workers, size, count, position=10 * len(found))
        assert_same(expected, found)


class CutsBeforeDrawing(Loader):
    """The broken twin: every process draws for its own rows as if they were the batch."""

    twin = World()

    def _global_batches(self, position: int) -> Iterator[tuple[Indices, int]]:
        for indices, at in super()._global_batches(position):
            mine = share(len(indices), self.twin.rank, self.twin.size)
            yield indices[mine.start : mine.stop], at


def test_cutting_before_drawing_is_seen_as_other_randomness() -> None:
    source = Listed(examples(26))
    shares = []
    for rank in range(2):
        twin = loader_of(CutsBeforeDrawing, source, 10)
        twin.twin = World(rank, 2)
        shares.append(take(twin, 1))
    (expected,) = run_of(source, 1, 1, 1)
    assert torch.equal(torch.cat([batch.rows for (batch,) in shares]), expected["rows"])
    for name in ("chance", "seeds"):
        joined = torch.cat([getattr(batch, name) for (batch,) in shares])
        assert not torch.equal(joined, expected[name])


def test_an_epoch_has_every_example_once() -> None:
    rows = torch.cat([batch.rows for batch in take(loader(Listed(examples(24)), 8), 3)])
    assert sorted(rows.tolist()) == list(range(24))


def test_seeds_belong_to_the_place_in_the_run() -> None:
    source = Listed(examples(12))
    by_four = torch.cat([batch.seeds for batch in take(loader(source, 4), 3)])
    by_six = torch.cat([batch.seeds for batch in take(loader(source, 6), 2)])
    assert torch.equal(by_four, by_six)
    assert len(set(by_four.tolist())) == 12


def test_fewer_rows_than_processes_is_an_error() -> None:
    with pytest.raises(SettingsError, match="batch_size 2: is smaller than the number of processes, 3"):
        loader(Listed(examples(4)), 2, world=World(0, 3))


def test_decoded_pictures_in_memory_change_no_batch() -> None:
    source = Listed(examples(10))
    for kept, read in zip(take(loader(source, cache=True), 6), take(loader(source), 6), strict=True):
        assert_same([{name: getattr(kept, name) for name in TENSORS}], [vars(read)])


@pytest.mark.parametrize("workers", [0, 1])
def test_the_time_that_the_consumer_waits_is_counted(workers: int) -> None:
    loaded = loader(Listed(examples(4)), workers=workers)
    take(loaded, 1)
    first = loaded.waited
    assert first > 0
    take(loaded, 1)
    assert loaded.waited > first


def test_every_pair_keeps_its_own_words() -> None:
    for batch in take(loader(Listed(examples(40)), size=8), 10):
        reds = batch.canvas[:, 0, 8, 8].tolist()
        assert batch.groups.tolist() == [group_id(f"caption {red}") for red in reds]


def test_a_pair_that_cannot_be_read_is_replaced_by_the_next_and_counted_by_reason() -> None:
    pairs = examples(60)
    pairs[7] = Example("7", b"not an image", ("broken",))
    pairs[8] = Example("8", png((8, 0, 0)), ())
    pairs[59] = Example("59", png((59, 0, 0))[:50], ("cut",))
    loaded = loader(Listed(pairs), size=60)
    (batch,) = take(loaded, 1)
    assert sorted(batch.rows.tolist()) == sorted([*range(7), 9, 9, *range(9, 59), 0])
    assert torch.equal(batch.canvas[:, 0, 8, 8].long(), batch.rows)
    assert loaded.skipped == {"not an image": 1, "no caption": 1, "truncated image": 1}
    assert loaded.asked == 60


@pytest.mark.parametrize("workers", [0, 3])
def test_too_many_bad_pairs_end_the_run_at_the_same_batch(workers: int) -> None:
    pairs = [
        Example(str(row), b"no", ("a",)) if row % 3 == 0 else pair for row, pair in enumerate(examples(60))
    ]
    loaded = loader(Listed(pairs), size=6, workers=workers)
    with pytest.raises(SourceTooDamagedError, match=r"more than 5% \(12 not an image\)"):
        take(loaded, 20)
    assert loaded.skipped.total() == 12
    assert loaded.asked == 36


def test_the_limit_of_bad_pairs_can_be_raised() -> None:
    pairs = [
        Example(str(row), b"no", ("a",)) if row % 3 == 0 else pair for row, pair in enumerate(examples(60))
    ]
    loaded = loader(Listed(pairs), size=20, most_bad=0.4)
    take(loaded, 3)
    assert (loaded.asked, loaded.skipped.total()) == (60, 20)


def test_a_source_without_any_good_pair_is_an_error() -> None:
    with pytest.raises(DataError, match="none of its pairs can be read"):
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
    permuted = ShuffledCaptions(source, 0)
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
