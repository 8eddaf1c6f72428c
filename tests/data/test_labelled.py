"""Pictures whose only word is their class."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from diptych.data.example import Example
from diptych.data.subsets.labelled import LabelledSource, class_names, sample_per_class
from diptych.errors import DataError


@dataclass
class Drawers:
    """Examples of classes, some of which are not known."""

    labels: tuple[str | None, ...]
    name: str = "drawers"
    fingerprint: str = "f"

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, position: int, /) -> Example:
        label = self.labels[position]
        captions = (f"a {label}", "a thing")
        return Example(str(position), Path("x.png"), captions, tags=("tag",), label=label)

    def describe(self) -> str:
        return self.name


SOURCE = Drawers(("cat", "dog", None, "cat", "owl", "dog", "cat", "owl"))
ALL = np.ones(8)


def test_an_example_says_its_class_and_nothing_else() -> None:
    found = LabelledSource(SOURCE, "label", required=False)
    assert [example.captions for example in found][:3] == [("cat",), ("dog",), ()]  # type: ignore[attr-defined]
    assert not any(found[position].tags for position in range(len(found)))
    assert LabelledSource(SOURCE, "caption", required=True)[2].captions == ("a None",)
    with pytest.raises(DataError, match="no label to learn"):
        LabelledSource(SOURCE, "label", required=True)[2]


def test_classes_are_those_of_the_examples_that_are_seen_in_order() -> None:
    assert class_names(SOURCE, ALL, "label") == ("cat", "dog", "owl")
    seen = np.array([1.0, 1, 1, 1, 0, 1, 1, 0])
    assert class_names(SOURCE, seen, "label") == ("cat", "dog")
    with pytest.raises(DataError, match="1 classes"):
        class_names(SOURCE, np.eye(8)[0], "label")


def test_a_few_of_each_class_are_drawn_with_the_seed_among_those_that_are_seen() -> None:
    weights = np.array([2.0, 1, 1, 0, 1, 1, 1, 1])
    drawn = [sample_per_class(SOURCE, weights, "label", 1, seed) for seed in range(60)]
    for kept in drawn:
        labels = [SOURCE.labels[position] for position in np.flatnonzero(kept)]
        assert sorted(map(str, labels)) == ["cat", "dog", "owl"]
        assert all(kept[position] == weights[position] for position in np.flatnonzero(kept))
    # Each of a class's examples is drawn by some seed, and never the one that is not seen.
    assert {int(position) for kept in drawn for position in np.flatnonzero(kept)} == {0, 1, 4, 5, 6, 7}
    assert np.array_equal(drawn[0], sample_per_class(SOURCE, weights, "label", 1, 0))
    with pytest.raises(DataError, match="'cat' has 2 different images"):
        sample_per_class(SOURCE, weights, "label", 3, 0)


def test_a_few_of_each_class_are_different_images() -> None:
    class Repeating(Drawers):
        """Each image in two rows."""

        def __getitem__(self, position: int, /) -> Example:
            return replace(super().__getitem__(position), image=bytes([position // 2]))

    source = Repeating(("cat", "cat", "cat", "cat", "dog", "dog", "dog", "dog", "dog", "dog"))
    for seed in range(20):
        drawn = np.flatnonzero(sample_per_class(source, np.ones(10), "label", 2, seed))
        assert len(drawn) == len({position // 2 for position in drawn.tolist()}) == 4
    with pytest.raises(
        DataError, match="'cat' has 2 different images; expected at least labels_per_class = 3"
    ):
        sample_per_class(source, np.ones(10), "label", 3, 0)
