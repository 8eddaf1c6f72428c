"""Jobs of an experiment that are done once: each in a process of its own, its result kept as one JSON file."""

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
