"""SIGKILL while an index is being written to and read: nothing acknowledged is lost, nothing deleted comes back."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diptych.search.image_index import Index
from diptych.search.integrity import verify
from diptych.search.stores.connect import connect
from diptych.search.stores.image_rows import item_id
from tests.search.index_story import MODES, batch, thumbnail_of, wrong

State = dict[int, int]  # number of a picture to its generation
Line = dict[str, Any]  # what a process says, from JSON


class Process:
    """A process of `index_story.py`, which is loaded and waits for `go`."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "tests.search.index_story"]
        self._process = subprocess.Popen(
            [*command, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin, self._stdout = self._process.stdin, self._process.stdout

    def lines(self) -> Iterator[Line]:
        """What it says, until it ends; a line that a kill has cut is none."""
        for line in self._stdout:
            with contextlib.suppress(ValueError):
                yield json.loads(line)

    def go(self) -> None:
        assert next(self.lines()) == {"ready": True}
        self._stdin.write("go\n")
        self._stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)

    def end(self) -> Line:
        """Its last word, when it has been told that there is no more."""
        self._stdin.close()
        return next(self.lines())

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        self._process.wait()
        self._stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()


class Ledger:
    """What writers have acknowledged, and what the one that was killed may or may not have done."""

    def __init__(self) -> None:
        self.sure: State = {}
        self.gone: set[int] = set()
        self._begun: Line | None = None

    def note(self, line: Line) -> None:
        if line.get("done"):
            assert self._begun is not None
            self._apply(self._begun)
            self._begun = None
        else:
            assert self._begun is None
            self._begun = line

    def expect(self, found: State) -> None:
        """`found` is what was acknowledged, with the last step done or not done as a whole."""
        if found != self.sure and self._begun is not None:
            self._apply(self._begun)
        self._begun = None
        assert found == self.sure
        assert not self.gone & found.keys()

    def _apply(self, step: Line) -> None:
        if step["began"] == "write":
            self.sure |= dict.fromkeys(step["numbers"], step["generation"])
        else:
            self.sure = {number: one for number, one in self.sure.items() if number not in step["numbers"]}
            self.gone |= set(step["numbers"])


def state(folder: Path) -> State:
    """Every picture that the index has; each row and each thumbnail is right, or this raises."""
    verify(folder)
    index, found = Index(folder), {}
    for rows in index._store.batches():
        for item, vector in zip(rows.items, rows.vectors, strict=True):
            assert wrong(item, vector) is None
            assert item.thumbnail is not None
            assert item.caption is not None
            assert index.database.thumbnail(item.thumbnail) == thumbnail_of(item.caption.encode())
            assert int(item.uri) not in found, "twice"
            found[int(item.uri)] = int(item.caption.rpartition(" ")[2])
    return found


def kill_writers(folder: Path, mode: str, kills: int) -> Ledger:
    dice, ledger = random.Random(mode), Ledger()
    with contextlib.ExitStack() as processes:

        def start(*arguments: object) -> Process:
            return processes.enter_context(Process(*arguments))

        first, reader = start("write", folder, "add", 999), start("read", folder)
        # A few are loaded ahead, while the one before them works.
        waiting = [start("write", folder, mode, seed) for seed in range(min(3, kills))]
        first.go()
        run_until_killed(first, ledger, 1, 0)
        ledger.expect(state(folder))
        reader.go()
        for number in range(kills):
            writer = waiting.pop(0)
            writer.go()
            run_until_killed(writer, ledger, dice.randrange(1, 14), dice.random() * 0.03)
            if number + 3 < kills:
                waiting.append(start("write", folder, mode, number + 3))
            ledger.expect(state(folder))
        told = reader.end()
    assert told["wrong"] == []
    assert told["searches"] > 0
    return ledger


def run_until_killed(writer: Process, ledger: Ledger, steps: int, pause: float) -> None:
    """Kill a writer a moment after its `steps`-th acknowledgement, wherever that finds it."""
    done = 0
    for line in writer.lines():
        ledger.note(line)
        done += line.get("done", False)
        if done == steps:
            time.sleep(pause)
            writer.kill()
            done += 1  # what it said before it died is still read


@pytest.mark.parametrize("mode", MODES)
def test_killed_writers_lose_nothing_and_readers_see_no_torn_row(tmp_path: Path, mode: str) -> None:
    ledger = kill_writers(tmp_path / "index", mode, kills=2)
    assert len(ledger.sure) > 6
    assert bool(ledger.gone) == (mode in ("delete", "purge"))


@pytest.mark.nightly
@pytest.mark.parametrize("mode", MODES)
def test_two_hundred_killed_writers_lose_nothing(tmp_path: Path, mode: str) -> None:
    kill_writers(tmp_path / "index", mode, kills=40)


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    kill_writers(tmp_path / "index", "purge", kills=2)
    with Process("write", tmp_path / "index", "add", 77) as writer:
        writer.go()
        run_until_killed(writer, Ledger(), 1, 0)
    database = connect(tmp_path / "index")
    assert database.names() == [Index(database).manifest.current.name]
    folders = [file.name for file in (tmp_path / "index").glob("*.lance")]
    assert folders == [f"{database.names()[0]}.lance"]


def test_a_writer_that_acknowledges_too_early_is_caught(tmp_path: Path) -> None:
    """The broken twin."""
    ledger = Ledger()
    with Process("write", tmp_path / "index", "lie", 1) as writer:
        writer.go()
        run_until_killed(writer, ledger, 99, 0)
    with pytest.raises(AssertionError):
        ledger.expect(state(tmp_path / "index"))


def step(began: str, numbers: list[int], generation: int = 0) -> Line:
    return {"began": began, "numbers": numbers, "generation": generation}


def test_the_checks_see_what_they_are_for(tmp_path: Path) -> None:
    """The broken twins: rows lost, come back, half written, torn, twice; each is noticed."""
    ledger = Ledger()
    ledger.note(step("write", [1, 2, 3]))
    ledger.note({"done": True})
    ledger.note(step("delete", [3]))
    ledger.note({"done": True})
    ledger.note(step("write", [4, 5]))
    for broken in ({1: 0}, {1: 0, 2: 0, 3: 0}, {1: 0, 2: 0, 4: 0}, {1: 0, 2: 1}):
        with pytest.raises(AssertionError):
            ledger.expect(broken)
        ledger._begun = step("write", [4, 5])
        ledger.sure = {1: 0, 2: 0}
    ledger.expect({1: 0, 2: 0, 4: 0, 5: 0})
    rows, _ = batch([1, 2], 0)
    assert wrong(rows.items[0], rows.vectors[0]) is None
    assert "the vector of another" in (wrong(rows.items[0], rows.vectors[1]) or "")
    assert item_id("1") == rows.items[0].id
