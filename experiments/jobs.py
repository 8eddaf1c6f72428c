"""Jobs of an experiment that are done once: each in a process of its own, its result kept as one JSON file."""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from diptych.atomic import write_text

Result = dict[str, Any]


def options(name: str, about: str | None, *, workers: int = 2) -> argparse.ArgumentParser:
    """What every experiment of jobs can be asked. name: of its folder. about: its docstring, whose first line is shown.

    workers: how many jobs run at a time unless it is said.
    """
    parser = argparse.ArgumentParser(description=about.splitlines()[0] if about else None)
    parser.add_argument("--out", type=Path, default=Path("build") / name)
    parser.add_argument("--page", type=Path, default=Path(__file__).parents[1] / "docs" / "results")
    parser.add_argument("--workers", type=int, default=workers, help="jobs at a time; 0: in this process")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    return parser


def result_file(out: Path, name: str) -> Path:
    return out / "results" / f"{name}.json"


def read_result(out: Path, name: str, settings: Mapping[str, Any]) -> Result | None:
    """What a job found, or None where it is not done, or was done with other settings."""
    try:
        found = json.loads(result_file(out, name).read_text("utf-8"))
    except FileNotFoundError:
        return None
    same = found["settings"] == json.loads(json.dumps(settings))
    return dict(found["result"]) if same else None


def keep_result(out: Path, name: str, settings: Mapping[str, Any], result: Result) -> None:
    file = result_file(out, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"settings": settings, "result": result}, indent=1) + "\n")


def do_all(
    script: Path,
    out: Path,
    jobs: Mapping[str, Mapping[str, Any]],
    run: Callable[[str], Result],
    *,
    workers: int,
    arguments: Sequence[str] = (),
) -> dict[str, Result]:
    """The results of all jobs by name; those that are not done yet are done, `workers` at a time.

    jobs: the settings of each. run: does one job here, which happens where `workers` is 0. Otherwise each job is a
    process with one thread, `python SCRIPT --job NAME ARGUMENTS`, which keeps its result.
    """
    waiting = [name for name, settings in jobs.items() if read_result(out, name, settings) is None]
    started = time.perf_counter()

    def one(name: str) -> None:
        if not workers:
            keep_result(out, name, jobs[name], run(name))
            return
        log = out / "logs" / f"{name}.txt"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w", encoding="utf-8") as file:
            ended = subprocess.run(
                [sys.executable, str(script), "--job", name, *arguments],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=False,
            )
        if ended.returncode:
            raise RuntimeError(f"{name} failed; see {log}:\n{log.read_text('utf-8')[-2000:]}")
        minutes = (time.perf_counter() - started) / 60
        print(f"{name}: done after {minutes:.1f} minutes", flush=True)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        for _ in pool.map(one, waiting):
            pass
    found = {name: read_result(out, name, settings) for name, settings in jobs.items()}
    return {name: result for name, result in found.items() if result is not None}
