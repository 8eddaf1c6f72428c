"""Times of several implementations of the same work, fair to each on a machine that is not quiet."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version

import torch


def alternate(
    cases: Mapping[str, Callable[[], object]],
    repetitions: int,
    at_least: float = 0.0,
    *,
    warm_up: bool = True,
) -> dict[str, list[float]]:
    """Seconds of one call of each case, once for each repetition.

    The cases take turns within every repetition, so that a busy moment of the machine hits all of them, and the
    ratio of two is taken within a repetition. A case that is shorter than `at_least` seconds is called several
    times in a row. One call of each beforehand only warms up, unless the caller has done that with less.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for run in cases.values() if warm_up else ():
        run()
    for _ in range(repetitions):
        for name, run in cases.items():
            seconds[name].append(_time_one(run, at_least))
    return seconds


def median_ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """How many times as fast `fast` is: the median over the repetitions."""
    return statistics.median(a / b for a, b in zip(slow, fast, strict=True))


def ratio_with_spread(slow: Sequence[float], fast: Sequence[float]) -> str:
    """The same with the lowest and the highest ratio of a repetition: "3.1 (2.9 to 3.4)"."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def describe_machine(*packages: str) -> str:
    """Processor, threads, load, and the versions of Python and of the packages."""
    load = f"load {os.getloadavg()[0]:.1f}, " if hasattr(os, "getloadavg") else ""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{_processor()}, {torch.get_num_threads()} of {os.cpu_count()} cores, "
        f"{torch.backends.cpu.get_cpu_capability()}, {load}Python {platform.python_version()}, {versions}"
    )


def _time_one(run: Callable[[], object], at_least: float) -> float:
    calls, start = 0, time.perf_counter()
    while True:
        run()
        calls += 1
        elapsed = time.perf_counter() - start
        if elapsed >= at_least:
            return elapsed / calls


def _processor() -> str:
    """The name that Linux knows, with family and model: AMD and cloud machines share names between generations."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:
            lines = (line.partition(":") for line in file)
            facts = {name.strip(): value.strip() for name, _, value in lines}
        return f"{facts['model name']} (family {facts['cpu family']}, model {facts['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()
