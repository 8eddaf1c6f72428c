"""Kills a refresh with SIGKILL at each of its steps, in forked children, and looks at what is left.

Run by `test_refresh.py` in a process of its own, so that the forks start from one without threads. A kill
leaves the page cache, so it is no power cut; the order of flushes and renames has to stand for that.
"""

import itertools
import json
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
from fake_encoder import FakeEncoder, Folder, vector_of

from diptych.search.build import refresh
from diptych.search.index import Index
from diptych.search.storage import WorkArea

STEPS = ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "shutil.rmtree")


class Killer:
    """Counts the steps of this process that touch `folder`, and kills it before step number `at`.

    With `tear` given only the steps around rows being added count, and the end of that file of the work area
    is lost, as in a write that was cut short.
    """

    def __init__(self, folder: Path, at: int, tear: str | None) -> None:
        self._folder, self._left, self._tear = folder, at, tear
        append = WorkArea.append

        def append_in_steps(area: WorkArea, items: list, vectors: np.ndarray) -> None:
            self._step()
            append(area, items, vectors)
            self._step()

        WorkArea.append = append_in_steps
        if tear is None:
            sys.addaudithook(self._audit)
            os.fsync = lambda handle: self._step()

    def _audit(self, event: str, arguments: tuple) -> None:
        if event in STEPS and str(arguments[0]).startswith(str(self._folder)):
            self._step()

    def _step(self) -> None:
        self._left -= 1
        if self._left == 0:
            if self._tear:
                torn = self._folder / "work" / self._tear
                os.truncate(torn, max(0, torn.stat().st_size - 7))
            os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step: int, tear: str | None, index: Path, photos: Path) -> bool:
    """Refresh in a child that is killed before its `step`-th step; False when it was done before."""
    child = os.fork()
    if child == 0:
        Killer(index, step, tear)
        refresh(index, Folder(photos), FakeEncoder())
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL), status
    return status != 0


def state(folder: Path) -> dict[str, list[float]]:
    """Every picture with its vector; the hashes are right, or this raises."""
    index = Index(folder)
    index.verify()
    vectors = np.load(folder / index.manifest.vectors_name)
    return {index[row].uri: vectors[row].tolist() for row in range(len(index))}


def expected(photos: Path) -> dict[str, list[float]]:
    return {
        str(path): vector_of(path.read_bytes()).astype(np.float16).tolist()
        for path in sorted(photos.iterdir())
    }


class Story:
    """An index, the data as they are now, and what the index may hold after a kill."""

    def __init__(self, scratch: Path) -> None:
        self.photos = scratch / "photos"
        self.photos.mkdir()
        for number in range(12):
            self._write(number, "picture")
        self.first = scratch / "first"
        refresh(self.first, Folder(self.photos), FakeEncoder())
        self.old = state(self.first)
        assert self.old == expected(self.photos)
        for number in (1, 5):
            (self.photos / f"{number:02}.png").unlink()
        changed = (2, 7, 20, 21, 22, 23, 24)
        for number in changed:
            self._write(number, "another picture")
        (self.photos / "03.png").rename(self.photos / "30.png")
        self.new = expected(self.photos)
        self.to_embed = len(changed)
        self.index = scratch / "index"
        self.outcome = {"killed": 0, "old": 0, "new": 0, "resumed_with_less_work": 0}

    def _write(self, number: int, words: str) -> None:
        (self.photos / f"{number:02}.png").write_bytes(f"{words} {number}".encode())

    def run(self, tear: str | None) -> None:
        """Kill at step 1, 2, 3, ... until the refresh gets to its end."""
        for step in itertools.count(1):
            shutil.rmtree(self.index, ignore_errors=True)
            shutil.copytree(self.first, self.index)
            if not killed_at(step, tear, self.index, self.photos):
                assert state(self.index) == self.new
                return
            self.outcome["killed"] += 1
            self.check(f"step {step}, torn: {tear}", lost=int(tear is not None))

    def check(self, where: str, lost: int) -> None:
        left = state(self.index)
        assert left in (self.old, self.new), f"{where}: a mixture"
        self.outcome["old" if left == self.old else "new"] += 1
        to_embed = self.to_embed if left == self.old else 0
        lines = self.index / "work" / "items.jsonl"
        kept = lines.read_bytes().count(b"\n") if to_embed and lines.exists() else 0
        encoder = FakeEncoder()
        refresh(self.index, Folder(self.photos), encoder)
        assert state(self.index) == self.new, f"{where}: the next refresh did not repair it"
        assert to_embed - kept <= len(encoder.embedded) <= to_embed - kept + lost, where
        self.outcome["resumed_with_less_work"] += len(encoder.embedded) < to_embed
        manifest = Index(self.index).manifest
        names = {"index.json", "lock", manifest.vectors_name, manifest.items_name}
        assert {file.name for file in self.index.iterdir()} == names, where


def main(scratch: Path) -> None:
    os.fsync = lambda handle: None  # after a kill, unlike a power cut, the page cache is still there
    story = Story(scratch)
    for tear in (None, "vectors.f16", "items.jsonl"):
        story.run(tear)
    print(json.dumps(story.outcome))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
