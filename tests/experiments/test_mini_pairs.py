"""The texts of diptych-mini's pairs: forms, kinds out of WordNet, colours."""

import io
import sys
from pathlib import Path

import pytest
from PIL import Image

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
sys.path.insert(0, str(EXPERIMENTS / "mini"))

from pairs import colour_of, drawn_texts, photo_texts, with_article  # noqa: E402
from wordnet import WordNet  # noqa: E402

# Six nouns in the format of wndb(5WN): offset, file, type, words, pointers, gloss.
DATA = """  1 This is a licence line.
00000001 05 n 01 animal 0 000 | a living organism that moves
00000002 05 n 02 dog 0 domestic_dog 0 001 @ 00000001 n 0000 | a member of the genus Canis; "the dog barked"
00000003 05 n 02 poodle 0 poodle_dog 0 001 @ 00000002 n 0000 | an intelligent dog
00000004 18 n 01 tiger 0 000 | an audacious person
00000005 05 n 02 tiger 0 Panthera_tigris 0 001 @ 00000001 n 0000 | a large feline
00000006 04 n 01 run 0 000 | the act of running
"""
INDEX = """  1 This is a licence line.
animal n 1 0 1 0 00000001
dog n 1 1 @ 1 0 00000002
domestic_dog n 1 1 @ 1 0 00000002
poodle n 1 1 @ 1 0 00000003
run n 1 0 1 0 00000006
tiger n 2 1 @ 2 0 00000004 00000005
"""


@pytest.fixture
def wordnet(tmp_path: Path) -> WordNet:
    (tmp_path / "data.noun").write_text(DATA)
    (tmp_path / "index.noun").write_text(INDEX)
    return WordNet(tmp_path)


def square(colour: tuple[int, int, int]) -> bytes:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste(Image.new("RGBA", (20, 20), (*colour, 255)), (6, 6))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dog", "a dog"), ("apple", "an apple"), ("glass", "a glass"), ("bus", "a bus"), ("shoes", "shoes"),
     ("two dogs", "two dogs"), ("a dog", "a dog"), ("flag of Kiribati", "flag of Kiribati")],
)  # fmt: skip
def test_a_name_gets_its_article_unless_it_is_plural_or_has_one(name: str, expected: str) -> None:
    assert with_article(name) == expected


def test_a_poodle_is_a_dog_and_an_animal(wordnet: WordNet) -> None:
    poodle = wordnet.visible("Poodles")
    assert poodle is not None
    assert (poodle.words, poodle.gloss) == (("poodle", "poodle dog"), "an intelligent dog")
    assert wordnet.kinds(poodle) == ["dog", "animal"]
    assert wordnet.visible("run") is None  # an act cannot be seen
    assert wordnet.visible("zebra") is None


def test_a_tiger_is_the_animal_unless_the_keywords_speak_of_a_person(wordnet: WordNet) -> None:
    found = [wordnet.visible("tiger", hints) for hints in ((), ("animal",), ("person",))]
    assert [sense.gloss if sense else None for sense in found] == [
        "a large feline", "a large feline", "an audacious person",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("colour", "name"),
    [((220, 20, 20), "red"), ((30, 60, 220), "blue"), ((250, 220, 40), "yellow"), ((120, 120, 120), None)],
)
def test_the_colour_of_a_figure_is_that_of_most_of_it(colour: tuple[int, int, int], name: str | None) -> None:
    assert colour_of(square(colour)) == name


def test_a_drawing_says_its_name_its_keywords_its_kinds_and_its_colour(wordnet: WordNet) -> None:
    row = {"captions": ["poodle"], "tags": ["fluffy"], "source": "@iconify-json/noto"}
    texts = drawn_texts(row, square((220, 20, 20)), wordnet)
    assert {
        "poodle",
        "a poodle",
        "fluffy",
        "poodle, fluffy",
        "poodle dog",
        "a dog",
        "an animal",
        "a red poodle",
    } <= set(texts)
    assert texts.count("poodle") > len(texts) / 3
    said = drawn_texts({**row, "captions": ["red poodle"]}, square((220, 20, 20)), wordnet)
    assert not any("red red" in text for text in said)


def test_a_photograph_says_its_name_more_often_than_what_it_is() -> None:
    row = {
        "caption": "poodle",
        "label": "poodle",
        "tags": ["dog", "animal", "entity"],
        "gloss": "an intelligent dog",
    }
    texts = photo_texts(row)
    assert "entity" not in texts
    named = [text for text in texts if "poodle" in text]
    assert len(named) > len(texts) / 2
    assert "a dog" in texts
    assert "poodle, an intelligent dog" in texts
