"""Follow four jobs through the package, and list the files that each enters: `python scripts/walks.py [--files]`.

1. one pair, from the command to the loss: `diptych train` until the first objective returns;
2. one query: `diptych search TEXT`;
3. one `diptych classify IMAGE`;
4. one search over HTTP, on the event loop of `diptych serve`.

A file counts as entered when a function of it is called: its import alone does not count. A call from a module into one
of a higher row of the layers (docs/design.md) is listed as a call upward; a callback that was passed down is one too.
"""

import argparse
import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import diptych

PACKAGE = Path(diptych.__file__).parent
# Row of each package and module directly below `diptych`; the lowest first.
ROWS = (
    {"__init__", "errors", "config", "atomic", "locks", "printable", "distributed", "wording"},
    {"models", "tokenizer", "objectives", "data"},
    {"weights"},
    {"pretrained"},
    {"hardware"},
    {"embed"},
    {"training", "evaluation", "search"},
    {"runs"},
    {"doctor"},
    {"reports", "serving"},
    {"cli"},
)
ROW = {name: number for number, names in enumerate(ROWS) for name in names}
TINY = """
[model.architecture]
embed_dim = 16
image = { resolution = 32, patch = 16, width = 16, layers = 1, heads = 1 }
text = { width = 16, layers = 1, heads = 1, context_length = 16 }

[data]
train = "sample:train"

[schedule]
warmup_steps = 1

[training]
steps = 1
batch_size = 8
"""
QUERY = "a red bicycle"


class Walk:
    """The files of the package whose functions are called while the profiler is on, in order."""

    def __init__(self, until: str | None = None) -> None:
        self.files: dict[str, None] = {}
        self.functions: set[tuple[str, str]] = set()
        self.upward: dict[str, None] = {}
        self._until = until

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        """Note a call; stop after a return from a file that begins with `until`."""
        file = module_of(frame)
        if (
            file is None or not frame.f_code.co_flags & inspect.CO_OPTIMIZED
        ):  # the body of a module or a class
            return
        if event == "call":
            self.files.setdefault(file)
            self.functions.add((file, frame.f_code.co_qualname))
            caller = frame.f_back
            above = module_of(caller) if caller is not None else None
            if above is not None and row_of(file) > row_of(above):
                assert caller is not None
                self.upward.setdefault(
                    f"{above} {caller.f_code.co_qualname} -> {file} {frame.f_code.co_qualname}"
                )
        elif event == "return" and self._until is not None and file.startswith(self._until):
            sys.setprofile(None)

    def found(self) -> dict[str, Any]:
        """Return what was seen, as JSON takes it."""
        lines = sum(len((PACKAGE / file).read_text("utf-8").splitlines()) for file in self.files)
        return {
            "files": list(self.files),
            "lines": lines,
            "functions": len(self.functions),
            "upward": list(self.upward),
        }


def import_everything() -> None:
    """Import every module, so that what runs at import does not count; a module whose extra is absent is left out."""
    for found in pkgutil.walk_packages([str(PACKAGE)], "diptych."):
        if not found.name.endswith(("__main__", "decoding_child")):
            with contextlib.suppress(ImportError):
                importlib.import_module(found.name)


def module_of(frame: FrameType) -> str | None:
    """Return the path of a frame's file below the package; None for code of others."""
    name = frame.f_code.co_filename
    return name[len(str(PACKAGE)) + 1 :] if name.startswith(f"{PACKAGE}{os.sep}") else None


def row_of(file: str) -> int:
    """Return the number of a file's row; the command line's entry is above all."""
    return ROW.get(file.partition("/")[0].removesuffix(".py"), len(ROWS))


def train(folder: Path) -> dict[str, Any]:
    """Follow a pair from the command to the loss."""
    recipe = folder / "tiny.toml"
    recipe.write_text(TINY)
    command = ["train", str(recipe), "--out", str(folder / "run"), "--device", "cpu"]
    return followed(command, Walk(until="objectives"))


def search(folder: Path) -> dict[str, Any]:
    """Follow a query from the command to its results."""
    return followed(["search", QUERY, "--index", str(index_in(folder))], Walk())


def classify(folder: Path) -> dict[str, Any]:
    """Follow an image from the command to its labels."""
    return followed(["classify", str(image_in(folder)), "--labels", "dog,bicycle"], Walk())


def http(folder: Path) -> dict[str, Any]:
    """Follow one search over HTTP, on the event loop; worker threads are not followed."""
    index, port, walk = index_in(folder), free_port(), Walk()

    def on(number: int, frame: object) -> None:
        sys.setprofile(walk)

    def off(number: int, frame: object) -> None:
        sys.setprofile(None)

    def ask() -> None:
        address = f"http://127.0.0.1:{port}/v1/search"
        body = json.dumps({"query": QUERY, "limit": 3}).encode()
        asked = urllib.request.Request(address, body, {"content-type": "application/json"})
        try:
            wait_for(port)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                answer.read()
            os.kill(os.getpid(), signal.SIGUSR1)
            with urllib.request.urlopen(asked, timeout=60) as answer:
                answer.read()
            os.kill(os.getpid(), signal.SIGUSR2)
        finally:
            os.kill(os.getpid(), signal.SIGINT)

    signal.signal(signal.SIGUSR1, on)
    signal.signal(signal.SIGUSR2, off)
    threading.Thread(target=ask, daemon=True).start()
    run(["serve", "--index", str(index), "--port", str(port)])
    return walk.found()


WALKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "train": train,
    "search": search,
    "classify": classify,
    "http": http,
}


def run(command: list[str]) -> None:
    """Run a command of the package in this process; what it prints goes to stderr."""
    from diptych.cli.__main__ import main  # noqa: PLC0415 - the package is imported before the walk begins

    code = main(command)
    sys.setprofile(None)
    if code:
        sys.exit(f"diptych {' '.join(command)}: exit code {code}")


def followed(command: list[str], walk: Walk) -> dict[str, Any]:
    """Run a command under the profiler."""
    sys.setprofile(walk)
    run(command)
    return walk.found()


def index_in(folder: Path) -> Path:
    """Build an index of the bundled test drawings in a process of its own."""
    place = folder / "index"
    subprocess.run(
        [sys.executable, "-m", "diptych.cli", "index", "sample:test", "--index", str(place)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return place


def image_in(folder: Path) -> Path:
    """Write a small image."""
    from PIL import Image  # noqa: PLC0415

    place = folder / "image.png"
    Image.new("RGB", (80, 60), (200, 30, 30)).save(place)
    return place


def free_port() -> int:
    """Return a port of loopback that nobody uses."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until something listens there."""
    for _ in range(600):
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on port {port}")


def main() -> None:
    """Print a table of the walks; with --files, the files of each in order, and the calls upward."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("walks", nargs="*", help=f"{', '.join(WALKS)}; all of them without a name")
    parser.add_argument(
        "--files", action="store_true", help="list the files in the order in which they are entered"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        with tempfile.TemporaryDirectory() as folder:
            stdout = os.dup(1)
            os.dup2(2, 1)
            import_everything()
            result = WALKS[options.one](Path(folder))
            os.write(stdout, json.dumps(result).encode())
        return
    print(f"{'walk':<10}{'files':>7}{'lines':>8}{'functions':>11}{'calls upward':>14}")
    for name in options.walks or WALKS:
        done = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, check=True)
        found = json.loads(done.stdout)
        print(
            f"{name:<10}{len(found['files']):>7}{found['lines']:>8,}{found['functions']:>11}{len(found['upward']):>14}"
        )
        if options.files:
            for place in [*found["files"], *(f"upward: {call}" for call in found["upward"])]:
                print(f"    {place}")


if __name__ == "__main__":
    main()
