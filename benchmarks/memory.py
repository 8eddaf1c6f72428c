"""Peak memory of one call, in a process of its own. Linux alone says and forgets what a process held at most."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TypeVar

Result = TypeVar("Result")


def in_own_process(run: Callable[..., Result], *arguments: object) -> Result:
    """What `run` returns from a fresh process, which no other case has filled or fragmented."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run, *arguments).result()


def growth(run: Callable[[], object]) -> float:
    """MiB that this process held at most during `run`, beyond what it held before."""
    try:
        # proc_pid_clear_refs(5): 5 sets the peak back to what is held now.
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError as error:
        raise SystemExit(f"memory is measured through Linux's /proc/self/clear_refs: {error}") from None
    before = peak()
    kept = run()  # until the peak has been read
    after = peak()
    del kept
    return after - before


def peak() -> float:
    """The most MiB of memory that this process has held, since its start or since it was set back."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024  # from KiB
