"""What the tests and scripts look up on the PATH is what the Makefile installs."""

import ast
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import chromium
import programs
import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmarks", "diptych", "experiments", "scripts", "tests")
STARTERS = {"run", "Popen", "call", "check_call", "check_output", "create_subprocess_exec", "execv"}

# What every machine with a clone of this project has: Debian's essential packages, and make's own requirements.
ALWAYS_THERE = {"apt-get", "bash", "mkdir", "tar"}
# What `make setup` puts into the environment.
OF_THE_ENVIRONMENT = {"diptych", "python"}
# Programs whose names are not literals where they are looked up.
COMPUTED = {
    "diptych/models/layers/blocks.py": {"g++"},  # compilers; clang++ on macOS, gcc or clang beside a GPU
    "scripts/programs.py": set(programs.PACKAGES),
    "tests/test_readme.py": {"bash"},
}


def literal(node: ast.AST | None) -> set[str]:
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def looked_up(source: str) -> set[str]:
    """Return the literal names of programs that Python source looks for with `which` or starts.

    Commands are lists: written in the call, or assigned to a name that the call has, as `command` or `[*command]`.
    """
    tree = ast.parse(source)
    lists: dict[str, list[ast.List]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List):
            for target in node.targets:
                lists.setdefault(getattr(target, "id", ""), []).append(node.value)

    def programs_of(command: ast.AST | None) -> set[str]:
        if isinstance(command, ast.Starred):
            return programs_of(command.value)
        if isinstance(command, ast.Name):
            return set().union(*(programs_of(each) for each in lists.get(command.id, [])))
        if isinstance(command, ast.List) and command.elts:
            return literal(command.elts[0]) or programs_of(command.elts[0])
        return set()

    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            if node.func.attr == "which":
                found |= literal(node.args[0])
            elif node.func.attr in STARTERS:
                found |= programs_of(node.args[0])
    return found


def of_the_readme() -> set[str]:
    """Return the programs of the console commands that tests/test_readme.py runs."""
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return {command.split()[0] for line in lines for command in re.split(r"&&|\|", line)}


def test_every_program_that_is_looked_up_is_installed_by_the_makefile() -> None:
    found = dict.fromkeys(of_the_readme(), "README.md")
    for path in [ROOT / "conftest.py", *(file for name in FOLDERS for file in (ROOT / name).rglob("*.py"))]:
        file = path.relative_to(ROOT).as_posix()
        source = path.read_text("utf-8")
        starts = (
            looked_up(source) if "which" in source or "subprocess" in source or "exec" in source else set()
        )
        for program in starts | COMPUTED.get(file, set()):
            found[program] = file
    assert {"bash", "chromium", "diptych", "g++", "git"} <= found.keys(), "the search finds nothing"
    known = ALWAYS_THERE | OF_THE_ENVIRONMENT | programs.PACKAGES.keys()
    missing = {program: file for program, file in found.items() if program not in known}
    assert missing == {}, "add these to PACKAGES of scripts/programs.py"


@pytest.mark.parametrize(
    "source",
    [
        "shutil.which('exiftool')",
        "subprocess.run(['exiftool', path], check=True)",
        "command = ['exiftool', path]\nsubprocess.Popen([*command, other])",
        "command = ['exiftool', path]\nsubprocess.check_output(command)",
    ],
)
def test_the_search_above_finds_a_program(source: str) -> None:
    assert looked_up(source) == {"exiftool"}


@pytest.mark.parametrize("target", ["setup", "test", "check", "nightly"])
def test_the_makefile_installs_the_programs_before_the_tests(target: str) -> None:
    rules = (ROOT / "Makefile").read_text("utf-8")
    line = re.search(rf"^{target}:(.*)$", rules, re.MULTILINE)
    assert line is not None
    assert "$(VENV)/.ready-tests" in line[1]
    assert "\tpython scripts/programs.py\n" in rules.replace("$(BIN)/", "")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Pretend to be a machine that has git alone and no network. Return the installing commands that were run."""
    ran: list[list[str]] = []

    def record(command: list[str], **options: Any) -> subprocess.CompletedProcess[bytes]:
        if "--version" in command:  # what the driver does without its library
            return subprocess.CompletedProcess(command, 127)
        ran.append(command)
        return subprocess.CompletedProcess(command, 1 if "playwright" in command[0] else 0)

    monkeypatch.setattr(subprocess, "run", record)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/it" if name in ("apt-get", "git") else None)
    monkeypatch.setattr(programs, "browser_starts", lambda: any("chromium" in command for command in ran[2:]))
    return ran


def test_root_gets_what_is_missing(bare: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert programs.main() == 0
    first, download, browser = bare
    assert first[:2] == browser[:2] == ["apt-get", "install"]
    assert {"g++", "libatomic1"} <= set(first)
    assert "git" not in first
    assert download[1:] == ["install", "chromium"]
    assert browser[-1] == "chromium"


def test_others_are_told_the_one_command(
    bare: list[list[str]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert programs.main() == 1
    assert bare == []
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("  sudo apt-get install")
    assert {"chromium", "g++", "libatomic1"} <= set(last.split())


def test_a_machine_without_chromium_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="make setup"):
        chromium.executable("/absent/chrome")


def test_playwrights_own_chromium_comes_before_the_distributions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / "chrome"
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert chromium.executable(str(own)) == "/bin/chromium"
    own.touch()
    assert chromium.executable(str(own)) == str(own)
