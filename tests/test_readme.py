"""README.md, run: every ```python and ```console block, in one temporary folder, in order.

A ```text block after a ```python block is what the code prints. In a ```console block, a line that starts
with `$ ` is a command, and the lines up to the next command are what it prints on standard output. A line
`...` stands for any lines, a word `...` for any word. Decimal numbers may differ a little: processors round
differently. Blocks that follow the comment `<!-- long -->` run in `make nightly`; blocks of other kinds
(```bash) are not run.
"""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
NUMBER = re.compile(r"-?\d+\.\d+|-?\d+")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its lines, the line it starts on, and whether it is a long one."""

    language: str
    text: str
    line: int
    long: bool


def blocks(markdown: str) -> Iterator[Block]:
    for match in re.finditer(r"(<!-- long -->\n+)?^```(\w+)\n(.*?)^```$", markdown, re.MULTILINE | re.DOTALL):
        line = markdown[: match.start(2)].count("\n") + 1
        yield Block(match[2], match[3], line, bool(match[1]))


def commands(text: str) -> Iterator[tuple[str, str]]:
    """(command, expected output) of a console block; a backslash at the end of a line continues a command."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        command, output = re.findall(r"\A((?:.*\\\n)*.*\n)((?:.*\n?)*)\Z", part)[0]
        yield command.replace("\\\n", " ").strip(), output


def same_line(expected: str, actual: str) -> bool:
    """Word by word, where a word that starts with `...` stands for any word."""
    wanted, got = expected.split(), actual.split()
    return len(wanted) == len(got) and all(
        left.startswith("...") or same_word(left, right) for left, right in zip(wanted, got, strict=True)
    )


def same_word(expected: str, actual: str) -> bool:
    """Equal but for the last digits of decimal numbers: 2 %, or one unit of the last place."""
    if NUMBER.sub("#", expected) != NUMBER.sub("#", actual):
        return False
    for left, right in zip(NUMBER.findall(expected), NUMBER.findall(actual), strict=True):
        if "." not in left and "." not in right:
            if left != right:
                return False
        elif abs(float(left) - float(right)) > max(
            0.02 * abs(float(left)), 1.5 * 10 ** -len(left.partition(".")[2])
        ):
            return False
    return True


def same_output(expected: str, actual: str) -> bool:
    """`expected` line by line, where a line `...` stands for any number of lines."""
    wanted = [line for line in expected.splitlines() if line.strip()]
    got = [line for line in actual.splitlines() if line.strip()]
    if not wanted:
        return not got
    if wanted[0].strip() == "...":
        rest = "\n".join(wanted[1:])
        return any(same_output(rest, "\n".join(got[skip:])) for skip in range(len(got) + 1))
    return (
        bool(got) and same_line(wanted[0], got[0]) and same_output("\n".join(wanted[1:]), "\n".join(got[1:]))
    )


def run(command: list[str], folder: Path) -> str:
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "110",
        "NO_COLOR": "1",
    }
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{command[-1]}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def run_blocks(chosen: list[Block], folder: Path) -> int:
    """Run the blocks, compare what they print, return how many outputs were compared."""
    compared = 0
    for position, block in enumerate(chosen):
        if block.language == "python":
            following = chosen[position + 1] if position + 1 < len(chosen) else None
            assert following is not None, f"README.md:{block.line}: no ```text block with the output"
            assert following.language == "text", f"README.md:{block.line}: no ```text block with the output"
            actual = run([sys.executable, "-c", block.text], folder)
            assert same_output(following.text, actual), (
                f"README.md:{following.line}: the code printed\n{actual}"
            )
            compared += 1
        elif block.language == "console":
            for command, expected in commands(block.text):
                actual = run(["bash", "-euo", "pipefail", "-c", command], folder)
                assert same_output(expected, actual), f"README.md:{block.line}: {command} printed\n{actual}"
                compared += 1
    return compared


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as after cloning: the recipes and the package are there."""
    for name in ("recipes", "diptych"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_readme_runs_and_prints_what_it_says(folder: Path) -> None:
    assert run_blocks([block for block in blocks(README) if not block.long], folder) >= 4


@pytest.mark.nightly
def test_readme_runs_with_its_long_commands(folder: Path) -> None:
    assert run_blocks(list(blocks(README)), folder) >= 5


def test_make_targets_that_pages_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
    named = {name for page in pages for name in re.findall(r"`make ([a-z0-9-]+)", page.read_text("utf-8"))}
    assert named
    assert named <= targets


def test_extras_that_the_readme_names_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    named = {name for group in re.findall(r"\[([a-z,]+)\]'", README) for name in group.split(",")}
    assert named
    assert named <= extras.keys()


def test_relative_links_lead_somewhere() -> None:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in pages
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_files_that_the_pages_name_exist() -> None:
    missing = [
        f"{page.relative_to(ROOT)}: {name}"
        for page in sorted((ROOT / "docs").glob("*.md"))
        for name in re.findall(
            r"`((?:diptych|tests|recipes|docs|benchmarks)/[^\s`*]*)`", page.read_text("utf-8")
        )
        if not (ROOT / name).exists()
    ]
    assert missing == []


def test_nothing_is_left_to_fill_in() -> None:
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    placeholder = "@@" + "FILL" + "@@"
    assert [page.name for page in pages if placeholder in page.read_text("utf-8")] == []


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("0.912  cat", "0.915  cat"),
        ("a\n...\nz", "a\nb\nc\nz"),
        ("...", ""),
        ("two  spaces\n", "two spaces"),
        ("0.01", "0.02"),  # one unit of the last place
        ("loss 3.10, ... pairs a second", "loss 3.11, 1,204 pairs a second"),
    ],
)
def test_outputs_that_count_as_the_same(expected: str, actual: str) -> None:
    assert same_output(expected, actual)


@pytest.mark.parametrize(
    ("expected", "actual"),
    [
        ("0.912  cat", "0.812  cat"),
        ("0.912  cat", "0.912  dog"),
        ("a\nb", "a"),
        ("a", "a\nb"),
        ("", "a"),
        ("a\n...\nz", "a\nb"),
        ("(2, 77)", "(2, 76)"),  # whole numbers are exact
        ("loss 3.10, ... pairs a second", "loss 3.11, pairs a second"),
    ],
)
def test_outputs_that_differ(expected: str, actual: str) -> None:
    assert not same_output(expected, actual)


def test_blocks_and_commands_are_found() -> None:
    fence = "`" * 3
    console = f"{fence}console\n$ one \\\n  two\nout\n$ three\n{fence}\n"
    page = f"x\n{console}<!-- long -->\n{fence}python\npass\n{fence}\n"
    first, second = blocks(page)
    assert list(commands(first.text)) == [("one    two", "out\n"), ("three", "")]
    assert (first.long, second.long, second.language) == (False, True, "python")


def test_a_wrong_output_is_found(tmp_path: Path) -> None:
    wrong = [Block("console", "$ echo 1\n2\n", 1, False)]
    with pytest.raises(AssertionError, match="echo 1 printed"):
        run_blocks(wrong, tmp_path)
    failing = [Block("console", "$ exit 3\n", 1, False)]
    with pytest.raises(AssertionError, match="exit 3"):
        run_blocks(failing, tmp_path)
