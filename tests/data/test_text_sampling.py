"""Sentences are drawn evenly, fields are joined, and what was drawn before these settings existed is drawn still."""

from collections import Counter

import numpy as np
import pytest

from diptych.data.example import Example
from diptych.data.images.augmentations import CentreCrop
from diptych.data.images.canvas import canvas_for
from diptych.data.images.transforms import Preprocess
from diptych.data.loader import Loader
from diptych.data.text_sampling import TextSampling, join_fields, sample_text, split_sentences
from diptych.errors import SettingsError
from diptych.tokenizer import tokenize
from tests.data.image_files import drawing, encoded

REPORT = "No fracture. Is there fluid? There is none!\nHeart of normal size"


def test_sentences_end_with_a_stop_and_a_space_or_with_the_line() -> None:
    assert split_sentences(REPORT) == [
        "No fracture.",
        "Is there fluid?",
        "There is none!",
        "Heart of normal size",
    ]
    assert split_sentences("3.5 mm at www.example.org") == ["3.5 mm at www.example.org"]
    assert split_sentences("one") == ["one"]
    assert split_sentences("") == [""]
    assert split_sentences(" \n ") == [" \n "]


def test_each_sentence_of_each_caption_is_as_likely_as_the_others() -> None:
    """Pearson's chi-square of 6,000 draws: below the 99.9 % quantile of 5 degrees of freedom."""
    random = np.random.default_rng(0).random((6000, 4))
    captions = ("A. B. C.", "D. E. F.")
    found = Counter(sample_text(captions, (), TextSampling(sentence=1.0), row) for row in random)
    assert set(found) == {"A.", "B.", "C.", "D.", "E.", "F."}
    assert sum((count - 1000) ** 2 / 1000 for count in found.values()) < 20.5


def test_a_text_of_one_sentence_is_itself_and_a_share_of_texts_stays_whole() -> None:
    random = np.random.default_rng(1).random((4000, 4))
    assert {sample_text(("only this",), (), TextSampling(sentence=1.0), row) for row in random} == {
        "only this"
    }
    found = Counter(sample_text(("A. B.",), (), TextSampling(sentence=0.5), row) for row in random)
    assert found["A. B."] / 4000 == pytest.approx(0.5, abs=0.03)
    assert found["A."] / 4000 == pytest.approx(0.25, abs=0.03)


def test_without_the_new_settings_the_same_text_is_drawn_as_before() -> None:
    """The rule as it stood, on the same numbers."""
    captions, tags = ("one", "two", "three"), ("x", "y", "z", "w")
    settings = TextSampling(caption=0.4, caption_and_tags=0.3)
    for row in np.random.default_rng(2).random((500, 4)):
        caption = captions[int(row[0] * 3)]
        start, count = int(row[3] * 4), min(1 + int(row[2] * 3), 4)
        chosen = [tags[(start + step) % 4] for step in range(count)]
        expected = caption if row[1] < 0.4 else ", ".join([caption, *chosen] if row[1] < 0.7 else chosen)
        assert sample_text(captions, tags, settings, row) == expected


def test_more_tags_may_be_drawn_at_once_and_each_is_as_likely() -> None:
    random = np.random.default_rng(3).random((6000, 4))
    settings = TextSampling(caption=0.0, most_tags=6)
    texts = [sample_text(("c",), tuple("abcdef"), settings, row).split(", ") for row in random]
    assert Counter(map(len, texts)).keys() == {1, 2, 3, 4, 5, 6}
    shares = [count / 6000 for count in Counter(tag for text in texts for tag in text).values()]
    assert shares == pytest.approx([3.5 / 6] * 6, abs=0.03)


def test_fields_follow_the_caption_and_nothing_is_said_twice() -> None:
    metadata = {
        "title": "A boat",
        "description": "Seen from the pier.",
        "year": 1987,
        "empty": "",
        "none": None,
    }
    fields = ("title", "empty", "none", "description", "missing", "year")
    assert join_fields(("IMG_1",), metadata, fields) == ("IMG_1. A boat. Seen from the pier. 1987",)
    assert join_fields(("A boat", "Harbour!"), metadata, ("title",)) == ("A boat", "Harbour! A boat")
    assert join_fields((), metadata, ("title",)) == ("A boat",)
    assert join_fields((), metadata, ("empty",)) == ()
    assert join_fields(("x",), metadata, ()) == ("x",)


class _OneExample:
    name = fingerprint = "one"

    def __len__(self) -> int:
        return 1

    def __getitem__(self, _: int) -> Example:
        return Example(
            "0", encoded(drawing(), "png"), metadata={"title": "red boat", "description": "at sea"}
        )

    def describe(self) -> str:
        return self.name


def test_the_loader_joins_fields_where_there_is_no_caption() -> None:
    loader = Loader(
        source=_OneExample(),
        canvas=canvas_for(CentreCrop(), Preprocess(32)),
        tokenize=lambda texts: tokenize(texts, context_length=16),
        batch_size=1,
        seed=0,
        weights=np.ones(1),
        text=TextSampling(join=("title", "description")),
        workers=0,
    )
    assert (
        next(loader.batches(0)).tokens.tolist() == tokenize(["red boat. at sea"], context_length=16).tolist()
    )


@pytest.mark.parametrize(
    "wrong",
    [{"sentence": 1.5}, {"caption": 0.8, "caption_and_tags": 0.4}, {"caption": -0.1}, {"most_tags": 0}],
)
def test_settings_that_are_no_probabilities_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="text"):
        TextSampling(**wrong)  # type: ignore[arg-type]
