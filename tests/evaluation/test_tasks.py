"""One description of an evaluation task: the command line, a suite and a recipe all read it."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import numpy as np
import pytest
from PIL import Image

from diptych.cli.evaluate import evaluate_app
from diptych.embed.encode import Progress
from diptych.errors import SettingsError
from diptych.evaluation.job import Context, Job, Subject, prepare
from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.suite.suite_run import SuiteSubject, run_suite
from diptych.evaluation.suite.suite_tasks import read_suite
from diptych.evaluation.task_report import Report, Scores
from diptych.evaluation.tasks import TASKS, EvaluationTask, FewShot, Option, TaskSettings, read_task
from diptych.runs.evaluations import evaluation_of
from diptych.training.recipes import load_recipe
from tests.tiny_model import preprocessing, random_clip

DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True, kw_only=True)
class Brightness(TaskSettings):
    """A made-up task."""

    task: Literal["brightness"] = "brightness"
    above: Annotated[float, Option("The mean from which on an image counts as bright.")] = 0.0


def brightness(task: Brightness, context: Context) -> Job:
    source = context.tested(task).source

    def measure(subject: Subject, progress: Progress | None) -> Report:
        means = np.array([float(subject.preprocess(source[row].image).mean()) for row in range(len(source))])
        if progress is not None:
            progress(len(source))
        share = float(np.mean(means > task.above))
        return Report(
            task="brightness",
            model=subject.name,
            data=source.name,
            scores=Scores(len(source), {"mean": float(means.mean()), "bright": share}, {}, {}),
        )

    return Job(sources=(source,), measure=measure)


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EvaluationTask(
        settings=Brightness,
        job=f"{__name__}:brightness",
        summary="Share of bright images.",
        needs="an image",
        example="diptych evaluate brightness --data photos/",
        headline=("bright",),
    )
    monkeypatch.setitem(TASKS, "brightness", entry)


@pytest.fixture
def shades(tmp_path: Path) -> Path:
    for number, level in enumerate((0, 60, 200, 255)):
        Image.new("RGB", (20, 20), (level,) * 3).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(f"shade {level}")
    return tmp_path


class Silent:
    @contextlib.contextmanager
    def begin(self, task: TaskSettings, steps: int) -> Iterator[Progress]:
        yield lambda count: None

    def end(self, result: Result, *, kept: bool) -> None: ...


def measured_by_the_verb(shades: Path, capsys: pytest.CaptureFixture[str], *options: str) -> float:
    evaluate_app()(
        ["brightness", "--data", str(shades), "--device", "cpu", "--json", *options],
        result_action="return_value",
    )
    return float(json.loads(capsys.readouterr().out)["metrics"]["bright"])


@pytest.mark.usefixtures("made_up")
def test_a_new_task_is_a_verb_with_its_settings_as_options(
    shades: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert measured_by_the_verb(shades, capsys) == 0.5
    assert measured_by_the_verb(shades, capsys, "--above", "1.9") == 0.25


@pytest.mark.usefixtures("made_up")
def test_a_new_task_is_a_task_of_suites(shades: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(f'[[tasks]]\nname = "b"\ntask = "brightness"\ndata = "{shades}"\nabove = 1.9\n')
    subject = SuiteSubject(
        model=random_clip(),
        preprocess=preprocessing(),
        name="tiny",
        fingerprint="f" * 64,
        precision="float32",
        templates=("{}",),
    )
    (result,) = run_suite(read_suite(suite), subject, tmp_path / "out", Silent())
    assert result.report is not None, result.error
    assert result.report.scores.metrics["bright"] == 0.25


@pytest.mark.usefixtures("made_up")
def test_a_new_task_is_a_task_of_recipes(shades: Path) -> None:
    task = f'evaluation.tasks=[{{name="b", task="brightness", data="{shades}", above=1.9}}]'
    evaluate = evaluation_of(load_recipe("sample", (task, "evaluation.best=b_bright")))
    assert evaluate is not None
    assert evaluate(random_clip(), preprocessing())["b_bright"] == 0.25
    with pytest.raises(SettingsError, match="did you mean 'above'"):
        evaluation_of(load_recipe("sample", (task.replace("above", "abov"),)))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_is_described_whole(name: str) -> None:
    task = TASKS[name]
    module, _, function = task.job.partition(":")
    assert callable(getattr(import_module(module), function))
    assert read_task({"name": "n", "task": name, "data": "d"}, "here").task == name
    own = [
        hint
        for key, hint in get_type_hints(task.settings, include_extras=True).items()
        if hasattr(hint, "__metadata__")
    ]
    assert all(option.help.endswith(".") for hint in own for option in hint.__metadata__)


def test_the_page_of_suites_lists_every_task_with_its_settings() -> None:
    rows = [
        line for line in (DOCS / "evaluation.md").read_text("utf-8").splitlines() if line.startswith("| `")
    ]
    for name, task in TASKS.items():
        (row,) = [line for line in rows if line.startswith(f"| `{name}` |")]
        hints = get_type_hints(task.settings, include_extras=True)
        settings = [key for key, hint in hints.items() if hasattr(hint, "__metadata__") and key != "data"]
        assert [key for key in settings if f"`{key}`" not in row] == []


def test_only_the_part_of_the_data_that_is_asked_for_is_measured(tmp_path: Path) -> None:
    table = ["image,label,set"]
    for number in range(6):
        Image.new("RGB", (20, 20), (40 * number, 0, 0)).save(tmp_path / f"{number}.png")
        table.append(f"{number}.png,{'dark' if number < 3 else 'light'},{'ab'[number % 2]}")
    file = tmp_path / "t.csv"
    file.write_text("\n".join(table))
    values = {
        "name": "n",
        "task": "few-shot",
        "data": str(file),
        "train": str(file),
        "shots": [1],
        "seeds": 1,
    }
    task = read_task({**values, "where": {"set": ["a"]}}, "here")
    assert isinstance(task, FewShot)
    job = prepare(task, Context())
    assert [len(source) for source in job.sources] == [3, 6]
    report = job.report(Subject(model=random_clip(), preprocess=preprocessing(), name="tiny"))
    assert report.scores.count == 3
