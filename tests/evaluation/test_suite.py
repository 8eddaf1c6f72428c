"""A suite of tasks: what is kept and what is done again, failures, kills, several processes, and its files."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.embed.encode import Progress
from diptych.errors import DataError, SettingsError
from diptych.evaluation.job import prepare
from diptych.evaluation.suite import suite_run as suite_module
from diptych.evaluation.suite.headlines import headlines
from diptych.evaluation.suite.suite_files import Result, read_result, write_result
from diptych.evaluation.suite.suite_rows import (
    class_rows,
    confused_pairs,
    confusions,
    outcomes_in_words,
    sample_mistakes,
)
from diptych.evaluation.suite.suite_run import SuiteSubject, read_suite_folder, run_suite
from diptych.evaluation.suite.suite_tasks import default_suite, read_suite
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.evaluation.tasks import FewShot, LinearProbe, Retrieval, TaskSettings, ZeroShot
from diptych.evaluation.zero_shot.reliability import reliability
from diptych.models.architectures import Classifier
from diptych.models.building import build_model
from diptych.reports.suite_markdown import described, markdown
from tests.processes import run_processes
from tests.tiny_model import preprocessing, random_clip

COLOURS = {"red": (220, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 220)}


@dataclass
class Diary:
    """A watch that remembers what it was told."""

    begun: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def begin(self, task: TaskSettings, steps: int) -> Iterator[Progress]:
        self.begun.append(task.name)
        yield lambda count: None

    def end(self, result: Result, *, kept: bool) -> None:
        if kept:
            self.kept.append(result.name)
        if result.error is not None:
            self.failed.append(result.name)


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder a class, four pictures in each; one picture is damaged."""
    top = tmp_path_factory.mktemp("data") / "classes"
    for name, colour in COLOURS.items():
        (top / name).mkdir(parents=True)
        for number in range(1, 5):
            Image.new("RGB", (10 * number, 30), colour).save(top / name / f"{number}.png")
    (top / "red" / "torn.png").write_bytes(b"no picture")
    return top


@pytest.fixture(scope="module")
def captioned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "captioned"
    folder.mkdir()
    for name, colour in COLOURS.items():
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name} square")
    return folder


@pytest.fixture(scope="module")
def subject() -> SuiteSubject:
    return SuiteSubject(
        model=random_clip(),
        preprocess=preprocessing(),
        name="tiny",
        fingerprint="f" * 64,
        precision="float32",
        templates=("{}",),
    )


@pytest.fixture
def tasks(classes: Path, captioned: Path) -> list[TaskSettings]:
    return [ZeroShot(name="colours", data=str(classes)), Retrieval(name="pairs", data=str(captioned))]


def run(tasks: list[TaskSettings], subject: SuiteSubject, folder: Path) -> tuple[list[Result], Diary]:
    diary = Diary()
    return run_suite(tasks, subject, folder, diary), diary


def test_a_suite_does_every_task_and_its_files_give_the_same_back(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    results, diary = run(tasks, subject, tmp_path / "out")
    assert diary.begun == ["colours", "pairs"]
    back = read_suite_folder(tmp_path / "out")
    assert list(back) == ["colours", "pairs"]
    for made in results:
        read = back[made.name]
        assert made.report is not None
        assert read.report is not None
        assert read.report.to_json() == json.loads(json.dumps(made.report.to_json()))
        assert (read.made_by, read.seconds) == (made.made_by, made.seconds)
    made_rows, read_rows = results[0].report.outcomes, back["colours"].report.outcomes  # type: ignore[union-attr]
    assert made_rows is not None
    assert read_rows is not None
    assert (read_rows.keys, read_rows.labels, read_rows.positions) == (
        made_rows.keys,
        made_rows.labels,
        made_rows.positions,
    )
    np.testing.assert_array_equal(read_rows.predicted, made_rows.predicted)
    np.testing.assert_array_equal(read_rows.scores["top1"], made_rows.scores["top1"])


def test_what_is_done_is_kept(tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path) -> None:
    first, _ = run(tasks, subject, tmp_path)
    files = {file: file.stat().st_mtime_ns for file in (tmp_path / "tasks").iterdir()}
    again, diary = run(tasks, subject, tmp_path)
    assert (diary.begun, diary.kept) == ([], ["colours", "pairs"])
    assert [result.report.to_json() for result in again] == [result.report.to_json() for result in first]  # type: ignore[union-attr]
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "tasks").iterdir()} == files


def test_a_task_is_done_again_when_anything_that_it_depends_on_has_changed(
    tasks: list[TaskSettings],
    subject: SuiteSubject,
    tmp_path: Path,
    classes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(tasks, subject, tmp_path)

    def begun(changed: list[TaskSettings], by: SuiteSubject = subject) -> list[str]:
        names = run(changed, by, tmp_path)[1].begun
        run(tasks, subject, tmp_path)
        return names

    colours, pairs = tasks
    assert isinstance(colours, ZeroShot)
    assert begun([replace(colours, labels=("red", "green", "blue", "grey")), pairs]) == ["colours"]
    assert begun([replace(colours, templates="photo"), pairs]) == ["colours"]
    assert begun(tasks, replace(subject, templates=("a {}",))) == ["colours"]
    assert begun(tasks, replace(subject, precision="bfloat16")) == ["colours", "pairs"]
    labels = tmp_path / "labels.txt"
    labels.write_text("red\ngreen\nblue\n")
    by_file = [replace(colours, labels=str(labels)), pairs]
    run(by_file, subject, tmp_path)
    assert run(by_file, subject, tmp_path)[1].begun == []
    labels.write_text("red\ngreen\nblue\ngrey\n")
    assert run(by_file, subject, tmp_path)[1].begun == ["colours"]
    run(tasks, subject, tmp_path)
    more = classes / "red" / "more.png"
    Image.new("RGB", (5, 5), COLOURS["red"]).save(more)
    assert run(tasks, subject, tmp_path)[1].begun == ["colours"]
    more.unlink()
    run(tasks, subject, tmp_path)
    monkeypatch.setattr(suite_module, "EVALUATION_VERSION", suite_module.EVALUATION_VERSION + 1)
    assert run(tasks, subject, tmp_path)[1].begun == ["colours", "pairs"]


def test_figures_of_the_version_that_counted_rows_are_made_again(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suite_module, "EVALUATION_VERSION", 1)
        run(tasks, subject, tmp_path / "out")
    assert run(tasks, subject, tmp_path / "out")[1].begun == ["colours", "pairs"]


def test_a_failed_task_is_recorded_and_tried_again_and_the_others_go_on(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path, captioned: Path
) -> None:
    place = tmp_path / "later"
    late = Retrieval(name="late", data=str(place))
    results, diary = run([late, *tasks], subject, tmp_path / "out")
    assert diary.failed == ["late"]
    assert diary.begun == ["colours", "pairs"]
    assert results[0].report is None
    assert "no such file or folder" in str(results[0].error)
    assert json.loads((tmp_path / "out" / "tasks" / "late.json").read_text())["status"] == "failed"
    place.symlink_to(captioned)
    results, diary = run([late, *tasks], subject, tmp_path / "out")
    assert (diary.begun, diary.kept) == (["late"], ["colours", "pairs"])
    assert results[0].error is None


def test_a_task_that_fails_while_it_is_measured_is_recorded_too(
    subject: SuiteSubject, tmp_path: Path, captioned: Path
) -> None:
    (result,), _ = run([ZeroShot(name="no-labels", data=str(captioned))], subject, tmp_path)
    assert "has no label; zero-shot evaluation needs class folders" in str(result.error)


@pytest.mark.parametrize("name", ["colours.json", "*.npz"])
def test_a_damaged_result_is_made_again(
    name: str, tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    run(tasks[:1], subject, tmp_path)
    (file,) = (tmp_path / "tasks").glob(name)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"not a result|not as it was written"):
        read_suite_folder(tmp_path)
    assert run(tasks[:1], subject, tmp_path)[1].begun == ["colours"]
    assert list(read_suite_folder(tmp_path)) == ["colours"]


def test_outcomes_that_are_missing_are_noticed(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    run(tasks[:1], subject, tmp_path)
    (file,) = (tmp_path / "tasks").glob("*.npz")
    file.unlink()
    with pytest.raises(DataError, match="the outcomes of a task are missing; run diptych evaluate all again"):
        read_result(tmp_path / "tasks" / "colours.json")


def report(scores: list[float]) -> Report:
    values = np.array(scores, np.float32)
    return Report(
        task="zero-shot",
        model="m",
        data="d",
        scores=Scores(len(values), {"top1": float(values.mean()), "roc_auc": float("nan")}, {}, {}),
        outcomes=Outcomes(keys=tuple(f"k{i}" for i in range(len(values))), scores={"top1": values}),
    )


def test_a_write_that_is_cut_at_any_point_leaves_the_old_or_the_new_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that changes the folder is a place to die at."""
    import os  # noqa: PLC0415

    old = Result(name="t", made_by={"version": 1}, report=report([0, 1]))
    new = Result(name="t", made_by={"version": 2}, report=report([1, 1, 1]))
    found = set()
    real = {name: getattr(os, name) for name in ("replace", "fsync")}
    unlink = Path.unlink
    for last in range(30):
        folder = tmp_path / str(last)
        folder.mkdir()
        write_result(folder, old)
        calls = iter(range(1000))

        def dying(
            call: Callable[..., object], calls: Iterator[int] = calls, last: int = last
        ) -> Callable[..., object]:
            def guarded(*arguments: object, **options: object) -> object:
                if next(calls) >= last:
                    raise KeyboardInterrupt
                return call(*arguments, **options)

            return guarded

        with monkeypatch.context() as patch:
            for name, call in real.items():
                patch.setattr(os, name, dying(call))
            patch.setattr(Path, "unlink", dying(unlink))
            done = True
            try:
                write_result(folder, new)
            except KeyboardInterrupt:
                done = False
        back = read_result(folder / "t.json")
        assert back.report is not None
        assert back.report.outcomes is not None
        # The report and the outcomes are of one and the same run.
        assert len(back.report.outcomes.keys) == back.report.scores.count == 1 + back.made_by["version"]
        found.add((back.made_by["version"], done))
        if done:
            break
    assert found == {(1, False), (2, False), (2, True)}
    assert len(list(folder.glob("*.npz"))) == 1


def test_a_metric_that_is_not_defined_survives_the_file(tmp_path: Path) -> None:
    write_result(tmp_path, Result(name="t", made_by={}, report=report([0, 1])))
    assert json.loads((tmp_path / "t.json").read_text())["metrics"]["roc_auc"] is None
    back = read_result(tmp_path / "t.json").report
    assert back is not None
    assert np.isnan(back.scores.metrics["roc_auc"])


def test_keys_of_any_characters_survive_the_file(tmp_path: Path) -> None:
    keys = ("a/ä b.png", "\udcff.png", "new\nline", "")
    outcomes = Outcomes(keys=keys, scores={"top1": np.zeros(4, np.float32)}, labels=("<b>", "雪"))
    made = replace(report([0, 0, 0, 0]), outcomes=outcomes)
    write_result(tmp_path, Result(name="t", made_by={}, report=made, phrases={"雪": "snow"}))
    assert read_result(tmp_path / "t.json").phrases == {"雪": "snow"}
    back = read_result(tmp_path / "t.json").report
    assert back is not None
    assert back.outcomes is not None
    assert (back.outcomes.keys, back.outcomes.labels) == (keys, ("<b>", "雪"))
    assert back.outcomes.target is None


def test_two_models_are_never_mixed_in_one_folder(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    run(tasks[:1], subject, tmp_path)
    with pytest.raises(SettingsError, match=r"holds results of another model \(tiny\); name another folder"):
        run(tasks[:1], replace(subject, fingerprint="0" * 64), tmp_path)


def test_a_folder_of_other_files_is_refused(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(SettingsError, match="is a folder with other files; name a new folder with --out"):
        run(tasks, subject, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


def test_what_is_no_suites_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="expected a folder that diptych evaluate all wrote"):
        read_suite_folder(tmp_path)
    (tmp_path / "suite.json").write_text("[]")
    with pytest.raises(DataError, match="not the list of a suite"):
        read_suite_folder(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.tiny_model import preprocessing, random_clip
from diptych.distributed import processes
from diptych.evaluation.suite.suite_run import SuiteSubject
from diptych.evaluation.tasks import ZeroShot, Retrieval
from tests.evaluation.test_suite import Diary
from diptych.evaluation.suite.suite_run import run_suite
out, classes, captioned, absent = sys.argv[1:]
with processes("cpu") as here:
    subject = SuiteSubject(model=random_clip(), preprocess=preprocessing(), name="tiny", fingerprint="f" * 64,
                      precision="float32", templates=("{}",))
    tasks = [ZeroShot(name="colours", data=classes), Retrieval(name="absent", data=absent),
             Retrieval(name="pairs", data=captioned)]
    diary = Diary()
    # Only the first process may find or write files.
    folder = Path(out) if here.leads else Path(out) / "not" / "there"
    results = run_suite(tasks, subject, folder, diary)
    print(diary.begun, diary.kept, [result.error is not None for result in results])
"""


def test_two_processes_measure_what_one_does_and_the_first_one_writes(
    tasks: list[TaskSettings], subject: SuiteSubject, tmp_path: Path, classes: Path, captioned: Path
) -> None:
    alone, _ = run(tasks, subject, tmp_path / "alone")
    out = tmp_path / "two"
    arguments = ["-c", SCRIPT, str(out), str(classes), str(captioned), str(tmp_path / "nowhere")]
    told = []
    for _ in range(2):
        ended = run_processes(2, arguments)
        assert all(code == 0 for code, _, _ in ended), ended
        told.append([said.strip().splitlines()[-1] for _, said, _ in ended])
    assert told[0] == ["['colours', 'pairs'] [] [False, True, False]"] * 2
    assert told[1] == [
        "[] ['colours', 'pairs'] [False, True, False]",
        "[] [] [False, True, False]",
    ]
    assert not (out / "not").exists()
    together = read_suite_folder(out)
    assert list(together) == ["colours", "absent", "pairs"]
    for result in alone:
        other = together[result.name].report
        assert result.report is not None
        assert other is not None
        assert other.to_json() == json.loads(json.dumps(result.report.to_json()))


def test_probes_learn_from_their_training_data_and_answer_the_test_data(
    subject: SuiteSubject, classes: Path, tmp_path: Path
) -> None:
    other = tmp_path / "test"
    for name, colour in COLOURS.items():
        (other / name).mkdir(parents=True)
        Image.new("RGB", (20, 20), colour).save(other / name / "new.png")
    data = {"data": str(other), "train": str(classes)}
    probe, shots = run(
        [
            LinearProbe(name="probe", **data),  # type: ignore[arg-type]
            FewShot(name="shots", shots=(1, 2), seeds=2, **data),  # type: ignore[arg-type]
        ],
        subject,
        tmp_path / "out",
    )[0]
    assert probe.report is not None, probe.error
    assert shots.report is not None, shots.error
    assert (probe.report.task, probe.report.scores.count) == ("linear-probe", 3)
    assert probe.report.details["training_images"] == 12  # the damaged one is no more
    assert list(shots.report.scores.metrics) == ["top1_1_shot", "top1_2_shot"]
    assert headlines(shots.report) == ("top1_2_shot",)
    # One colour a class, which any features tell apart.
    assert probe.report.scores.metrics["top1"] == 1.0


def test_a_suite_measures_own_labels_and_word_order(
    subject: SuiteSubject, classes: Path, tmp_path: Path
) -> None:
    suite = tmp_path / "suite.toml"
    suite.write_text(
        f'[[tasks]]\nname = "own"\ntask = "labels"\ndata = "{classes}"\n'
        '[[tasks]]\nname = "order"\ntask = "word-order"\ndata = "scenes:binding?count=8&side=32"\n'
    )
    architecture = replace(
        subject.model.architecture, classifier=Classifier(classes=tuple(COLOURS), reads="embedding")
    )
    trained = replace(subject, model=build_model(architecture).eval())
    own, order = run(read_suite(suite), trained, tmp_path / "out")[0]
    assert own.report is not None, own.error
    assert order.report is not None, order.error
    assert (own.report.task, own.report.scores.count) == ("labels", 12)
    assert own.report.details["classes"] == 3
    assert (order.report.task, order.report.scores.count) == ("word-order", 8)
    assert headlines(order.report) == ("accuracy",)
    assert run(read_suite(suite), trained, tmp_path / "out")[1].kept == ["own", "order"]
    (without, _), _ = run(read_suite(suite), subject, tmp_path / "other")
    assert "has no classes of its own" in str(without.error)


def test_a_suite_probes_images_of_several_labels(subject: SuiteSubject, tmp_path: Path) -> None:
    for number in range(24):
        has = {"red": bool(number % 2), "blue": number % 3 > 0}
        Image.new("RGB", (20, 20), (200 * has["red"], 2 * number, 200 * has["blue"])).save(
            tmp_path / f"{number}.png"
        )
        labels = [name for name, shown in has.items() if shown]
        (tmp_path / f"{number}.json").write_text(json.dumps({"labels": labels}))
    probe = LinearProbe(name="several", data=str(tmp_path), train=str(tmp_path), metric="map11")
    (result,), _ = run([probe], subject, tmp_path.with_name("out"))
    assert result.report is not None, result.error
    assert result.report.scores.metrics["map11"] > result.report.scores.chance["map11"]


def test_a_published_dataset_brings_its_labels_templates_and_training_split(
    subject: SuiteSubject, tmp_path: Path
) -> None:
    (zero_shot,), _ = run([ZeroShot(name="digits", data="benchmark:digits")], subject, tmp_path)
    assert zero_shot.report is not None, zero_shot.error
    assert zero_shot.phrases == {}  # of a digit, the name is the phrase
    assert zero_shot.report.details["templates"] == ['a photo of the number: "{}".']
    job = prepare(LinearProbe(name="probe", data="benchmark:digits"), subject.context)
    assert [len(source) for source in job.sources] == [zero_shot.report.scores.count, 1797 - 256]


def test_settings_that_do_not_go_together_fail_with_a_reason(
    subject: SuiteSubject, classes: Path, tmp_path: Path
) -> None:
    place = str(classes)
    asked: dict[str, TaskSettings] = {
        "train is missing: ": LinearProbe(name="a", data=place),
        "map11 takes the classes from the metadata; leave out group_by": ZeroShot(
            name="b", data=place, metric="map11", group_by="x"
        ),
        "is not measured by the classes of its images": ZeroShot(name="c", data="benchmark:sample"),
        "have several labels each, which few-shot does not learn": FewShot(
            name="d",
            data=place,
            train=place,
            metric="map11",  # type: ignore[arg-type]
        ),
        "dataset 'cifar': did you mean 'cifar10'?": ZeroShot(name="e", data="benchmark:cifar"),
    }
    results, _ = run(list(asked.values()), subject, tmp_path)
    for said, result in zip(asked, results, strict=True):
        assert said in str(result.error)


def test_a_task_says_how_its_tables_are_read(subject: SuiteSubject, captioned: Path, tmp_path: Path) -> None:
    table, suite = tmp_path / "t.csv", tmp_path / "suite.toml"
    table.write_text("pic^words\n" + "".join(f"{name}.png^a {name} square\n" for name in COLOURS))
    suite.write_text(
        f'[[tasks]]\nname = "pairs"\ntask = "retrieval"\ndata = "{table}"\nimage_column = "pic"\n'
        f'caption_column = "words"\ndelimiter = "^"\nimage_root = "{captioned}"\n'
    )
    (result,), _ = run(read_suite(suite), subject, tmp_path / "out")
    assert result.report is not None, result.error
    assert result.report.scores.count == 3
    own = ZeroShot(name="digits", data="benchmark:digits", image_root=str(captioned))
    (refused,), _ = run([own], subject, tmp_path / "own")
    assert "benchmark:digits has its own columns; leave out image_root" in str(refused.error)


def test_a_suite_file_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "suite.toml"

    def refused(text: str, said: str) -> None:
        file.write_text(text)
        with pytest.raises(SettingsError, match=said):
            read_suite(file)

    refused("", "no tasks in it; expected one or more tables")
    refused("tasks = 3", "no tasks in it")
    refused("seed = 1\n[[tasks]]\n", "unknown setting 'seed'")
    refused(
        '[[tasks]]\nname = "a"\ntask = "zeroshot"\ndata = "d"', "task 'zeroshot': did you mean 'zero-shot'"
    )
    refused(
        '[[tasks]]\nname = "a"\ndata = "d"',
        r"tasks\]\] 1: task None: expected one of zero-shot, retrieval, linear-probe",
    )
    refused('[[tasks]]\nname = "a"\ntask = "retrieval"\ndata = "d"\nlabels = "x"', "unknown setting 'labels'")
    refused('[[tasks]]\nname = "a"\ntask = "retrieval"', "missing setting 'data'")
    refused('[[tasks]]\nname = "a/b"\ntask = "retrieval"\ndata = "d"', "name 'a/b' is to name a file")
    one = '[[tasks]]\nname = "{}"\ntask = "retrieval"\ndata = "d"\n'
    refused(one.format("a") + one.format("A"), "two tasks are called 'A'")
    file.write_text(
        '[[tasks]]\nname = "z"\ntask = "zero-shot"\ndata = "d"\nlabels = ["a", "b"]\nmetric = "map11"\n'
        + one.format("r")
        + '[[tasks]]\nname = "f"\ntask = "few-shot"\ndata = "d"\ntrain = "t"\nshots = [1, 3]\n'
    )
    assert read_suite(file) == [
        ZeroShot(name="z", data="d", labels=("a", "b"), metric="map11"),
        Retrieval(name="r", data="d"),
        FewShot(name="f", data="d", train="t", shots=(1, 3)),
    ]


def test_the_default_suite_has_the_sample_and_what_is_found(tmp_path: Path) -> None:
    names = [task.name for task in default_suite(tmp_path)]
    assert names[:3] == ["sample-zero-shot", "sample-retrieval", "digits"]
    assert "cifar10" not in names
    (tmp_path / "cifar-10-batches-py").mkdir()
    (tmp_path / "cifar-10-batches-py" / "batches.meta").write_bytes(b"")
    (tmp_path / "eval-emoji-vendor-shift.tar").write_bytes(b"")
    found = {task.name: task for task in default_suite(tmp_path)}
    assert found["cifar10"] == ZeroShot(name="cifar10", data="benchmark:cifar10")
    assert found["vendor_shift"] == ZeroShot(
        name="vendor_shift", data="benchmark:vendor_shift", group_by="vendor"
    )


OUTCOMES = Outcomes(
    keys=tuple(f"k{number}" for number in range(8)),
    scores={},
    labels=("cat", "dog", "owl", "unused"),
    target=np.array([0, 0, 0, 0, 1, 1, 2, 2]),
    predicted=np.array([0, 1, 1, 2, 1, 1, 0, 0]),
    probability=np.array([0.9, 0.8, 0.7, 0.6, 0.9, 0.5, 0.4, 0.3], np.float32),
)


def test_classes_and_confusions_are_the_hand_counted_ones() -> None:
    labels, matrix = confusions(OUTCOMES)
    assert labels == ("cat", "dog", "owl")
    assert matrix.tolist() == [[1, 2, 1], [0, 2, 0], [2, 0, 0]]
    assert [
        (row.label, row.count, row.right, row.mistaken_for, row.times) for row in class_rows(OUTCOMES)
    ] == [
        ("owl", 2, 0, "cat", 2),
        ("cat", 4, 1, "dog", 2),
        ("dog", 2, 2, None, 0),
    ]
    assert [(pair.target, pair.predicted, pair.count, pair.share) for pair in confused_pairs(OUTCOMES)] == [
        ("owl", "cat", 2, 1.0),
        ("cat", "dog", 2, 0.5),
        ("cat", "owl", 1, 0.25),
    ]
    found = reliability(OUTCOMES)
    assert found is not None
    assert found.accuracy == 3 / 8
    assert found.confidence == pytest.approx(5.1 / 8)


def test_classes_are_shown_by_their_phrases_and_told_apart_by_their_names() -> None:
    result = Result(
        name="t",
        made_by={},
        report=replace(report([0]), outcomes=OUTCOMES),
        phrases={"cat": "missile", "dog": "missile", "owl": "barn owl"},
    )
    shown = outcomes_in_words(result)
    assert shown is not None
    assert shown.labels == ("missile (cat)", "missile (dog)", "barn owl", "unused")
    assert shown.target is OUTCOMES.target


def test_mistakes_are_a_seeded_sample_of_the_wrong_answers() -> None:
    assert sample_mistakes(OUTCOMES, 100) == [1, 2, 3, 6, 7]
    some = sample_mistakes(OUTCOMES, 3)
    assert some == sample_mistakes(OUTCOMES, 3)
    assert set(some) < {1, 2, 3, 6, 7}
    assert {tuple(sample_mistakes(OUTCOMES, 3, seed=seed)) for seed in range(20)} > {tuple(some)}


def test_how_a_task_was_measured_fits_on_a_line() -> None:
    details = {"headline": "top1", "C": 10_000.0, "fits": 16, "converged": True, "tried": [1], "seed": 0.25}
    assert described(replace(report([0]), details=details)) == "C 10,000, fits 16, converged yes, seed 0.25"
    assert described(report([0])) == ""


def test_markdown_has_every_task_and_escapes_names() -> None:
    made = replace(report([0, 1]), outcomes=replace(OUTCOMES, labels=("<b>|c", "dog", "owl", "x")))
    text = markdown(
        [Result(name="one", made_by={}, report=made), Result(name="two", made_by={}, error="no `such` file")],
        "runs/a_model",
    )
    assert "# runs/a\\_model" in text
    assert "| one | 2 | top1 | 50.0 % | - | - | - |" in text
    assert "| two | - | failed |" in text
    assert "Failed: no \\`such\\` file" in text
    assert "| \\<b\\>\\|c | 4 | 25.0 % | dog (2) |" in text
    assert "| owl | \\<b\\>\\|c | 2 | 100.0 % |" in text
    assert "| roc auc | - | - | - |" in text
