"""The docstrings of the public functions: every argument described, and every example run."""

import doctest
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych

SECTIONS = ("Args", "Attributes", "Returns", "Raises", "Example")
# No arguments to describe, and nothing to raise.
PLAIN = {"available_models"}


def functions() -> Iterator[tuple[str, Callable[..., Any]]]:
    """Every public function and class that is not an error, and the methods of an open index."""
    for name in sorted(diptych.__all__):
        value = getattr(diptych, name)
        if callable(value) and not (isinstance(value, type) and issubclass(value, Exception)):
            yield name, value
    index = diptych.open_index.__annotations__["return"]
    home = inspect.getmodule(diptych.open_index)
    opened = getattr(home, index) if isinstance(index, str) else index
    yield from ((f"open_index().{name}", getattr(opened, name)) for name in ("search", "images"))


FUNCTIONS = dict(functions())


def described(docstring: str) -> list[str]:
    """The names that a docstring's table of arguments has, in order."""
    table = re.search(r"^Args:\n((?:[ \t]+.*\n|\n)*)", docstring + "\n", re.MULTILINE)
    return re.findall(r"^    (\w+): ", table[1], re.MULTILINE) if table else []


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `images` has three drawings of the sample with captions, `images.index` is their index, and
    `classes` has ten red and ten blue images in a folder each."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "images").mkdir()
    source = diptych.open_source("sample:test")
    for row in (23, 46, 291):
        name = source[row].captions[0]
        data = source[row].image
        assert isinstance(data, bytes)
        (folder / "images" / f"{name}.webp").write_bytes(data)
        (folder / "images" / f"{name}.txt").write_text(name)
    for number, colour in enumerate(["red"] * 10 + ["blue"] * 10):
        place = folder / "classes" / colour
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 80, (32, 32, 3), np.uint8)
        pixels[..., 0 if colour == "red" else 2] += 150
        Image.fromarray(pixels).save(place / f"{number}.png")
    diptych.build_index(folder / "images", folder / "images.index", device="cpu")
    return folder


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_is_described(name: str) -> None:
    function = FUNCTIONS[name]
    arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
    assert described(inspect.getdoc(function) or "") == arguments


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_docstring_begins_with_a_sentence_and_has_its_sections_in_order(name: str) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    assert re.match(r"[A-Z][^\n]*\.(?:\n|$)|[A-Z][^\n]*[.;] ", text), text.partition("\n")[0]
    found = re.findall(r"^(\w+):$", text, re.MULTILINE)
    assert found == [section for section in SECTIONS if section in found]
    assert "Raises" in found or name in PLAIN


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_example_prints_what_it_says(name: str, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = inspect.getdoc(FUNCTIONS[name]) or ""
    example = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    if not example.examples:
        assert name == "open_index().images"
        return
    monkeypatch.chdir(images)
    said: list[str] = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=said.append)
    assert not said, "".join(said)


def test_an_argument_that_is_not_described_is_noticed() -> None:
    assert described(
        "Do.\n\nArgs:\n    one: a\n        two: no argument, only text\n\nReturns:\n    three: x"
    ) == ["one"]
