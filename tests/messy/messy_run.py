"""Every command over a messy folder, in a process that has no privileges, and what came of it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.messy.messy_folder import NIGHTLY, Truth, permit, without_privileges, write_classes, write_pile

_SECONDS = 300  # of one command, before it counts as hanging

_RECIPE = """
[model.architecture]
embed_dim = 16
image = {{ resolution = 32, patch = 16, width = 64, layers = 1 }}
text = {{ width = 64, layers = 1, context_length = 32 }}
[data]
train = {pile}
most_bad = 1.0
[objective]
name = "clip"
[optimizer]
learning_rate = 1e-3
[training]
steps = 4
batch_size = 32
precision = "float32"
"""


@dataclass(frozen=True)
class Result:
    """What one command came to; `peak_bytes` is the memory of the whole process at its most."""

    code: int
    out: str
    err: str
    seconds: float
    peak_bytes: int

    @property
    def json(self) -> Any:
        (line,) = self.out.splitlines()
        return json.loads(line)


@dataclass(frozen=True)
class MessyRun:
    """A messy folder after every command has seen it.

    verdicts: by path, "read" or the reason why an image cannot be read. left_out: by reason, what the walk left out.
    changed: files of the folder that are not as they were. strays: what was written where nobody asked for it.
    """

    folder: Path
    pile: Truth
    classes: Truth
    results: dict[str, Result]
    verdicts: dict[bytes, str]
    left_out: dict[str, int]
    changed: list[bytes]
    strays: list[str]
    noise: str

    @property
    def top(self) -> bytes:
        return os.fsencode(self.folder / "pile")

    def relative(self, path: str) -> bytes:
        """The path of an image inside the pile, as the truth has it."""
        return os.path.relpath(os.fsencode(path), self.top)


def commands(folder: Path) -> dict[str, list[str]]:
    """The commands by name; what they write lies in `folder` beside the pile and the class folders."""
    pile, classes, model = str(folder / "pile"), str(folder / "classes"), str(folder / "model")

    def at(name: str) -> str:
        return str(folder / name)

    own = ["--model", model, "--json"]
    short = ["--set", "training.steps=2", "--set", "training.batch_size=16", "--set", "data.most_bad=1.0"]
    return {
        "index": ["index", pile, "--index", at("index"), *own],
        "index again": ["index", pile, "--index", at("index"), *own],
        "search": ["search", "a red square", "--index", at("index"), "--count", "5000", "--json"],
        "search by image": [
            "search",
            "--image",
            f"{pile}/names/{{a,b}}.jpg",
            "--index",
            at("index"),
            "--json",
        ],
        "verify index": ["verify", at("index"), "--json"],
        "classify": ["classify", pile, "--labels", "a,b", *own],
        "classify one": ["classify", f"{pile}/names/{{a,b}}.jpg", "--labels", "a,b", *own],
        "data inspect": ["data", "inspect", pile, "--json"],
        "data verify": ["data", "verify", pile, "--allow-no-caption", "--json"],
        "data words": ["data", "words", pile, "--json"],
        "data pack": ["data", "pack", pile, "--out", at("packed"), "--allow-no-caption", "--json"],
        "data verify, packed": ["data", "verify", at("packed"), "--allow-no-caption", "--json"],
        "index, packed": ["index", at("packed"), "--index", at("index of packed"), *own],
        "embed, Parquet": ["embed", pile, "--out", at("pile.parquet"), *own],
        "embed, npy": ["embed", pile, "--out", at("pile.npy"), *own],
        "index, embeddings": [
            *(
                "index",
                pile,
                "--index",
                at("index of embeddings"),
                "--embeddings",
                at("pile.parquet"),
                "--json",
            )
        ],
        "train": ["train", at("tiny.toml"), "--out", at("run"), "--json"],
        "evaluate retrieval": ["evaluate", "retrieval", "--data", pile, "--truncate", *own],
        "evaluate zero-shot": ["evaluate", "zero-shot", "--data", classes, *own],
        "finetune": [
            "finetune",
            classes,
            "--out",
            at("finetuned"),
            "--method",
            "full",
            "--keep",
            "none",
            *short,
            *own,
        ],
        "classify by its own": ["classify", classes, "--model", at("finetuned"), "--json"],
        "doctor": ["doctor", at("tiny.toml"), "--json"],
    }


DAILY = (
    *("index", "index again", "search", "classify", "data verify", "data pack", "embed, npy", "train"),
    *("evaluate retrieval", "evaluate zero-shot", "finetune"),
)


@contextmanager
def messy_run(count: int) -> Iterator[MessyRun]:
    """Write about `count` files, run the commands over them, and remove all of it at the end.

    All commands run over `NIGHTLY` files, and those of `DAILY` over fewer.
    """
    # Not in pytest's folders: nobody else may enter those, and a path here must be short for the pile's long ones.
    folder = Path(tempfile.mkdtemp(prefix="messy-"))
    pile = Truth()
    try:
        pile = write_pile(folder / "pile", count)
        classes = write_classes(folder / "classes", count)
        chosen = commands(folder)
        if count < NIGHTLY:
            chosen = {name: chosen[name] for name in DAILY}
        yield _run(folder, pile, classes, chosen)
    finally:
        permit(pile)
        shutil.rmtree(folder)


def _run(folder: Path, pile: Truth, classes: Truth, chosen: Mapping[str, list[str]]) -> MessyRun:
    (folder / "tiny.toml").write_text(_RECIPE.format(pile=json.dumps(str(folder / "pile"))))
    for name in ("here", "home", "cache"):
        (folder / name).mkdir()
    plan = {
        "model": str(folder / "model"),
        "pile": str(folder / "pile"),
        "results": str(folder / "results.json"),
        "commands": chosen,
        "seconds": _SECONDS,
    }
    (folder / "plan.json").write_text(json.dumps(plan))
    before = _stamps(folder)
    environment = {
        **os.environ,
        "HOME": str(folder / "home"),
        "XDG_CACHE_HOME": str(folder / "cache"),
        "DIPTYCH_CACHE": str(folder / "cache"),
        "TMPDIR": str(folder / "cache"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    environment.pop("DIPTYCH_DATA", None)
    done = subprocess.run(
        [sys.executable, "-m", "tests.messy.messy_commands", str(folder / "plan.json")],
        cwd=folder / "here",
        env=environment,
        preexec_fn=without_privileges,
        capture_output=True,
        check=False,
        timeout=len(chosen) * _SECONDS,
    )
    noise = done.stderr.decode(errors="backslashreplace")
    assert done.returncode == 0, noise[-20_000:]
    found = json.loads((folder / "results.json").read_text())
    after = _stamps(folder)
    return MessyRun(
        folder=folder,
        pile=pile,
        classes=classes,
        results={name: Result(**result) for name, result in found["commands"].items()},
        verdicts={os.fsencode(name): reason for name, reason in found["verdicts"].items()},
        left_out=found["left_out"],
        changed=sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path)),
        strays=[str(path) for name in ("here", "home") for path in (folder / name).rglob("*")],
        noise=noise,
    )


def _stamps(folder: Path) -> dict[bytes, tuple[int, int, int]]:
    """Mode, size and time of change of everything in the pile and the class folders; links are not followed."""
    found = {}
    for name in (b"pile", b"classes", b"outside"):
        for place, _, names in os.walk(os.path.join(os.fsencode(folder), name)):
            for path in (place, *(os.path.join(place, one) for one in names)):
                try:
                    status = os.lstat(path)
                except OSError:  # the folder whose path is too long
                    continue
                found[path] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found
