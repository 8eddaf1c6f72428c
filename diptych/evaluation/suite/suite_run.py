"""Many tasks for one model, one after another: on all processes, resumable, and no failure stops the others.

A suite lies in one folder:

    suite.json      the model, and the names of the tasks in their order
    tasks/          their results; `suite_files` says how
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diptych.atomic import write_text
from diptych.config import plain
from diptych.distributed import gather_objects, share, world
from diptych.embed.encode import Progress
from diptych.errors import DataError, DiptychError, SettingsError
from diptych.evaluation.job import Context, Job, Subject, open_data, prepare
from diptych.evaluation.suite.suite_files import Result, read_result, write_result
from diptych.evaluation.suite.suite_tasks import check_names
from diptych.evaluation.tasks import TaskSettings

# To be raised when the same model and data would give other figures than before. 2: images count, and not
# rows; keys are paths.
EVALUATION_VERSION = 2
FORMAT_VERSION = 1
MANIFEST = "suite.json"
TASKS = "tasks"

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class SuiteSubject(Subject):
    """The model that a suite measures, and all that its results depend on beside the tasks.

    precision: that it was loaded in. templates: what goes around a label where neither task nor labels say. root: the
    folder of published datasets; `default_root()` without it.
    """

    fingerprint: str
    precision: str
    templates: tuple[str, ...]
    root: Path | None = None

    @property
    def context(self) -> Context:
        """Return what the tasks are prepared with."""
        return Context(open=partial(open_data, root=self.root), templates=self.templates)


class Watch(Protocol):
    """Whoever is told how a suite goes on."""

    def begin(self, task: TaskSettings, steps: int) -> AbstractContextManager[Progress]:
        """Return a context in which a task is done; what it yields gets the number of steps done since the last call.

        steps: this process's share of the images, and the classifiers that it fits.
        """
        ...

    def end(self, result: Result, *, kept: bool) -> None:
        """Take a task's result. kept: it was there before."""
        ...


def run_suite(
    tasks: Sequence[TaskSettings], subject: SuiteSubject, folder: Path, watch: Watch
) -> list[Result]:
    """Do what is left of a suite, and return every task's result, in the order of `tasks`.

    A task is kept as it is where its result is there and nothing that it depends on has changed: its settings, the
    model, the precision, the data's fingerprint, the labels and templates, `EVALUATION_VERSION`. One that raises a
    `DiptychError` is recorded as failed, and tried again the next time.

    Under torchrun every process takes part in each task, and the first one alone writes and talks to `watch`; the
    others return no report for tasks that were kept.

    Raises:
        SettingsError: two tasks of one name, or the folder holds other files or another model's results.
    """
    check_names(tasks, "the suite")
    problem = _begin(folder, tasks, subject) if world().leads else None
    problem = gather_objects(problem)[0]
    if problem is not None:
        raise SettingsError(problem)
    run = _Run(subject, folder, watch)
    return [run.result_of(task) for task in tasks]


def read_suite_folder(folder: Path) -> dict[str, Result]:
    """Read a suite's results by name, in the order of the suite; tasks that were not reached are missing.

    Raises:
        DataError: it is no such folder, or one of its files is not as it was written.
    """
    files = {name: _place(folder, name) for name in _manifest(folder)["tasks"]}
    return {name: read_result(file) for name, file in files.items() if file.is_file()}


@dataclass(frozen=True)
class _Run:
    subject: SuiteSubject
    folder: Path
    watch: Watch

    def result_of(self, task: TaskSettings) -> Result:
        """Return one task's result, kept or made; the same in all processes, but for the report of a kept one."""
        started = time.perf_counter()
        job, problem = _attempt(lambda: prepare(task, self.subject.context))
        if job is None:
            return self._finished(Result(name=task.name, made_by=_made_by(task, self.subject), error=problem))
        made_by = _made_by(task, self.subject, job)
        kept = _kept(_place(self.folder, task.name), made_by) if world().leads else None
        if gather_objects(kept is not None)[0]:
            if kept is not None:
                self.watch.end(kept, kept=True)
            return kept or Result(name=task.name, made_by=made_by)
        steps = len(share(job.images, world().rank, world().size)) + job.fits
        with self.watch.begin(task, steps) as progress:
            report, problem = _attempt(lambda: job.report(self.subject, progress))
        seconds = round(time.perf_counter() - started, 2)
        return self._finished(
            Result(
                name=task.name,
                made_by=made_by,
                report=report,
                error=problem,
                seconds=seconds,
                phrases=job.phrases,
            )
        )

    def _finished(self, result: Result) -> Result:
        if world().leads:
            write_result(self.folder / TASKS, result)
            self.watch.end(result, kept=False)
        return result


def _attempt(work: Callable[[], T]) -> tuple[T | None, str | None]:
    """Return what `work` returns, or why it failed in any of the processes; the same in all of them."""
    value, problem = None, None
    try:
        value = work()
    except DiptychError as error:
        problem = " ".join(str(error).split())
    problems = [found for found in gather_objects(problem) if found is not None]
    return (None, problems[0]) if problems else (value, None)


def _made_by(task: TaskSettings, subject: SuiteSubject, job: Job | None = None) -> dict[str, Any]:
    """Return all that a result depends on, as JSON gives it back."""
    values = {
        "evaluation_version": EVALUATION_VERSION,
        "model": subject.fingerprint,
        "precision": subject.precision,
        "settings": plain(task),
    }
    if job is not None:
        words = json.dumps(job.words, sort_keys=True)
        values["data"] = [source.fingerprint for source in job.sources]
        values["words"] = hashlib.sha256(words.encode()).hexdigest()
    return dict(json.loads(json.dumps(values)))


def _kept(file: Path, made_by: Mapping[str, Any]) -> Result | None:
    """Return the result in a file, if it is one that doing the task again would not change."""
    try:
        result = read_result(file)
    except DataError:
        return None  # missing, damaged, or of another version: it is made again
    return result if result.report is not None and result.made_by == made_by else None


def _place(folder: Path, name: str) -> Path:
    return folder / TASKS / f"{name}.json"


def _begin(folder: Path, tasks: Sequence[TaskSettings], subject: SuiteSubject) -> str | None:
    """Make the folder ready; returns what is wrong with it, if anything is."""
    if (folder / MANIFEST).is_file():
        try:
            before = _manifest(folder)
        except DataError as error:
            return str(error)
        if before["model_fingerprint"] != subject.fingerprint:
            return (
                f"{folder}: holds results of another model ({before['model']}); name another folder with --out, or "
                "delete this one"
            )
    elif folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        return f"{folder}: is a folder with other files; name a new folder with --out"
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "format_version": FORMAT_VERSION,
        "model": subject.name,
        "model_fingerprint": subject.fingerprint,
        "tasks": [task.name for task in tasks],
    }
    write_text(folder / MANIFEST, json.dumps(values, indent=1) + "\n")
    (folder / TASKS).mkdir(exist_ok=True)
    return None


def _manifest(folder: Path) -> dict[str, Any]:
    file = folder / MANIFEST
    try:
        values = json.loads(file.read_text("utf-8"))
        known = {name: values[name] for name in ("format_version", "model", "model_fingerprint", "tasks")}
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; expected a folder that diptych evaluate all wrote") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{file}: not the list of a suite ({error}); evaluate again into a new folder"
        ) from None
    if known["format_version"] != FORMAT_VERSION or not isinstance(known["tasks"], list):
        raise DataError(f"{file}: written by another version of Diptych; evaluate again into a new folder")
    return known
