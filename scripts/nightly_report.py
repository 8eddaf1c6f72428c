"""Turn the JUnit XML of `make nightly` into the Markdown page that is committed as its last result."""

import argparse
import datetime
import platform
from pathlib import Path
from xml.etree import ElementTree

import torch

import diptych
from diptych.atomic import write_text


def report(junit: Path, today: datetime.date) -> str:
    """The page: what ran, where, and one row a test."""
    suite = next(ElementTree.parse(junit).iter("testsuite"))
    cases = list(suite.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    lines = [
        "# The last nightly run",
        "",
        f"`make nightly`, {today.isoformat()}: {len(cases) - len(failed) - len(skipped)} passed, "
        f"{len(failed)} failed, {len(skipped)} skipped, {float(suite.get('time', '0')):.0f} s.",
        "",
        f"diptych {diptych.__version__}, torch {torch.__version__}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads.",
        "",
        "| test | result | seconds |",
        "|---|---|---:|",
    ]
    for case in cases:
        result = "FAILED" if case in failed else "skipped" if case in skipped else "passed"
        name = f"{case.get('classname', '')}.{case.get('name', '')}".replace("|", "\\|")
        lines.append(f"| `{name}` | {result} | {float(case.get('time', '0')):.1f} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("junit", type=Path)
    parser.add_argument("page", type=Path)
    arguments = parser.parse_args()
    write_text(arguments.page, report(arguments.junit, datetime.datetime.now(datetime.UTC).date()))


if __name__ == "__main__":
    main()
