"""docs/python.md, run, and what the pages import: `diptych` and its public names alone."""

import ast
import contextlib
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import diptych
from tests.data.tar_files import unpack
from tests.test_readme import blocks, same_output

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "python.md"
# These two are about the inside of the package.
_INSIDE = {"design.md", "adding-an-approach.md"}
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name not in _INSIDE),
]
# Code inside a command, as in `python -c "..."`.
INSIDE = re.compile(r"""python3? -c (["'])(.*?)\1""", re.DOTALL)


def python_in(page: str) -> list[tuple[int, str]]:
    """The Python of a page with the lines that it begins on: its blocks, and what commands run."""
    found = []
    for block in blocks(page):
        if block.language == "python":
            found.append((block.line, block.text))
        elif block.language in ("bash", "console"):
            found += [(block.line, match[2]) for match in INSIDE.finditer(block.text)]
    return found


def private_names(code: str) -> list[str]:
    """The names below `diptych` that are not public and that a piece of code imports or asks `diptych` for."""
    public = {*diptych.__all__}
    names = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name.startswith("diptych.")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "diptych":
            inner = node.module != "diptych"
            names += [
                f"{node.module}.{alias.name}" for alias in node.names if inner or alias.name not in public
            ]
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "diptych"
        ):
            names += [f"diptych.{node.attr}"] if node.attr not in public else []
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_use_public_names_alone(page: Path) -> None:
    found = [
        f"{page.name}:{line}: {name}"
        for line, code in python_in(page.read_text("utf-8"))
        for name in private_names(code)
    ]
    assert found == []


def test_private_names_are_found() -> None:
    code = "import diptych.data\nfrom diptych.search import query\nfrom diptych import load, config\ndiptych.embed\n"
    found = private_names(code + "import diptych\ndiptych.load\n")
    assert sorted(found) == ["diptych.config", "diptych.data", "diptych.embed", "diptych.search.query"]
    fence = "`" * 3
    page = (
        f'{fence}bash\npython -c "\nimport diptych.data"\n{fence}\n{fence}python\nimport diptych\n{fence}\n'
    )
    assert [code.strip() for _, code in python_in(page)] == ["import diptych.data", "import diptych"]


def test_the_page_names_the_public_surface() -> None:
    named = set(re.findall(r"`(\w+)`", PAGE.read_text("utf-8")))
    assert {*diptych.__all__} - {"__version__"} <= named


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the pages speak of: `pictures` has the bundled test sample, `photos` two classes of images."""
    (tmp_path / "pictures").mkdir()
    unpack(ROOT / "diptych" / "data" / "sample" / "test.tar", tmp_path / "pictures")
    for number, colour in enumerate(["red", "blue"] * 10):
        place = tmp_path / "photos" / colour
        place.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 80, (32, 32, 3), np.uint8)
        pixels[..., 0 if colour == "red" else 2] += 150
        Image.fromarray(pixels).save(place / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_page(page: Path) -> int:
    """Run the Python of a page; compare what it prints where a ```text block follows, and return how many were."""
    chosen = list(blocks(page.read_text("utf-8")))
    names: dict[str, Any] = {}
    compared = 0
    for block, following in zip(chosen, [*chosen[1:], None], strict=True):
        if block.language != "python":
            continue
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
        if following is not None and following.language == "text":
            assert same_output(following.text, printed.getvalue()), f"line {block.line}: {printed.getvalue()}"
            compared += 1
    return compared


def test_the_page_runs_and_prints_what_it_says(folder: Path) -> None:
    assert run_page(PAGE) >= 9


@pytest.mark.parametrize("name", ["datasets.md", "models.md", "search.md", "zero-shot.md"])
def test_the_python_of_other_pages_runs(name: str, folder: Path) -> None:
    run_page(ROOT / "docs" / name)
