"""Run commands one after another in this process, and write down what each came to.

`python -m tests.messy.messy_commands PLAN`: a JSON file with `model` (a folder to write a tiny model to), `pile`
(the messy folder), `commands` (name to arguments), `seconds` (of one command) and `results` (the file to write).

It is a process of its own, so that it can be bounded and found hanging, and one for all commands, because importing
everything takes longer than most of them.
"""

import contextlib
import faulthandler
import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

from diptych.cli.__main__ import main as diptych
from diptych.data.examination import verify_source
from diptych.data.sources.folder import list_folder
from diptych.data.sources.opening import open_source
from tests.messy.messy_model import tiny_checkpoint

_MOST_MEMORY = 8 << 30  # bytes of addresses; an endless file would take all of a machine otherwise


def run(arguments: list[str], seconds: float) -> dict[str, Any]:
    """Run one command; more than `seconds` ends the process, with the stack of every thread on stderr."""
    out, err = io.StringIO(), io.StringIO()
    _forget_peak()
    started = time.monotonic()
    faulthandler.dump_traceback_later(seconds, exit=True)
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = diptych(arguments)
    faulthandler.cancel_dump_traceback_later()
    return {
        "code": code,
        "out": out.getvalue(),
        "err": err.getvalue(),
        "seconds": time.monotonic() - started,
        "peak_bytes": _peak(),
    }


def verdicts(pile: Path) -> tuple[dict[str, str], dict[str, int]]:
    """What becomes of each image of a folder, and how much else was left out, by reason."""
    listing = list_folder(pile)
    found = dict.fromkeys(listing.images, "read")
    for bad in verify_source(open_source(pile), need_caption=False).bad:
        found[listing.images[bad.position]] = bad.reason
    return found, dict(listing.left_out)


def _forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """The most memory that this process had since `_forget_peak`, in bytes."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    resource.setrlimit(resource.RLIMIT_AS, (_MOST_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    tiny_checkpoint(Path(plan["model"]))
    results: dict[str, Any] = {"commands": {}}
    for name, arguments in plan["commands"].items():
        print(f"{name}: diptych {' '.join(map(ascii, arguments))}", file=sys.stderr, flush=True)
        results["commands"][name] = run(arguments, plan["seconds"])
    results["verdicts"], results["left_out"] = verdicts(Path(plan["pile"]))
    Path(plan["results"]).write_text(json.dumps(results))
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
