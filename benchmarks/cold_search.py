"""Seconds until the first result: `diptych search` with the bundled model, from nothing but a shell.

    python benchmarks/cold_search.py [--index DIR] [--repetitions 9]

The index is one of the bundled sample, made in a temporary folder unless an index is named. Every run is a new process,
so that each imports everything again; the files are in the system's cache after the first round, which is not counted.
The cases take turns within a repetition. Above the search stands what it cannot do without: PyTorch, which the model
runs in, and LanceDB, which reads the index.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import alternate, describe_machine

SAMPLE = ("sample:train", "sample:test")


def run(*command: str) -> None:
    subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--index", type=Path, help="an index that was made with diptych-mini")
    parser.add_argument("--repetitions", type=int, default=9)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        index = str(arguments.index or Path(folder) / "sample.index")
        if arguments.index is None:
            for source in SAMPLE:
                run("-m", "diptych.cli", "index", source, "--index", index)
        cases = {
            'python -c "import torch"': ("-c", "import torch"),
            'python -c "import lancedb"': ("-c", "import lancedb"),
            'python -c "import torch, lancedb"': ("-c", "import torch, lancedb"),
            'diptych search "a red bicycle"': (
                "-m",
                "diptych.cli",
                "search",
                "a red bicycle",
                "--index",
                index,
            ),
        }
        seconds = alternate(
            {name: functools.partial(run, *command) for name, command in cases.items()}, arguments.repetitions
        )
    print(f"Medians of {arguments.repetitions} alternating repetitions, each in a new process")
    print(describe_machine("torch", "lancedb") + f", {len(os.sched_getaffinity(0))} cores to use\n")
    print("| command | seconds | fastest | slowest | x import torch |")
    print("|---|---|---|---|---|")
    floor = seconds['python -c "import torch"']
    for name, times in seconds.items():
        ratio = statistics.median(time / least for time, least in zip(times, floor, strict=True))
        print(
            f"| `{name}` | {statistics.median(times):.2f} | {min(times):.2f} | {max(times):.2f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
