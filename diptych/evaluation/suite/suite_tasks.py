"""The tasks of a suite: those that a TOML file lists, or those whose data are found."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from diptych import config
from diptych.errors import SettingsError
from diptych.evaluation.datasets.benchmark import default_root
from diptych.evaluation.datasets.dataset import all_datasets
from diptych.evaluation.datasets.finding import find_benchmark
from diptych.evaluation.suite.suite_files import NAME
from diptych.evaluation.tasks import PUBLISHED, Retrieval, TaskSettings, ZeroShot, read_task


def read_suite(file: str | Path) -> list[TaskSettings]:
    """Read the tasks of a TOML file: a table `[[tasks]]` each, with a `name`, a `task` and that task's settings.

    Raises:
        SettingsError: anything unknown, missing, of another type, or named twice.
    """
    values = config.read_toml(file)
    tables = values.pop("tasks", None)
    if values:
        raise SettingsError(
            f"{file}: unknown setting {next(iter(values))!r}; expected tables [[tasks]] alone"
        )
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise SettingsError(f"{file}: no tasks in it; expected one or more tables [[tasks]]")
    tasks = [read_task(table, f"{file} [[tasks]] {number}") for number, table in enumerate(tables, 1)]
    check_names(tasks, str(file))
    return tasks


def default_suite(root: Path | None = None) -> list[TaskSettings]:
    """Return tasks for the bundled sample, the digits of an installed scikit-learn, and every published dataset found.

    root: as `open_benchmark` takes it; `default_root()` without it. The natural shifts have a command of their own.
    Probes take longer than all other tasks, and are left to suites that name them.
    """
    tasks: list[TaskSettings] = [
        ZeroShot(name="sample-zero-shot", data="sample:test", label_from="caption"),
        Retrieval(name="sample-retrieval", data="sample:test", truncate=True),
    ]
    if importlib.util.find_spec("sklearn") is not None:
        tasks.append(ZeroShot(name="digits", data=f"{PUBLISHED}digits"))
    place = default_root() if root is None else root
    for name, dataset in all_datasets().items():
        on_disk = dataset.markers and find_benchmark(name, place, dataset.test_split) is not None
        if not on_disk or dataset.task == "natural-shift":
            continue
        if dataset.task == "retrieval":
            tasks.append(Retrieval(name=name, data=f"{PUBLISHED}{name}", truncate=True))
        else:
            tasks.append(ZeroShot(name=name, data=f"{PUBLISHED}{name}", group_by=dataset.group_by))
    return tasks


def check_names(tasks: Sequence[TaskSettings], where: str) -> None:
    """Raise SettingsError where a task's name cannot be a file's name, or two tasks have the same one."""
    seen: set[str] = set()
    for task in tasks:
        if not NAME.fullmatch(task.name):
            raise SettingsError(
                f"{where}: the task's name {task.name!r} is to name a file; expected letters, digits, - and _"
            )
        if task.name.lower() in seen:  # some systems have one file for both
            raise SettingsError(f"{where}: two tasks are called {task.name!r}; each needs a name of its own")
        seen.add(task.name.lower())
