"""`diptych evaluate all`: what it prints and writes, and the page that it writes."""

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diptych.evaluation.suite.suite_files import Result
from diptych.evaluation.task_report import Outcomes, Report, Scores
from diptych.reports.page_parts import PageImage
from diptych.reports.suite_page import page
from tests.cli.command_line import Run
from tests.cli.test_report import checked, words

SUITE = """
[[tasks]]
name = "colours"
task = "zero-shot"
data = "{classes}"

[[tasks]]
name = "pairs"
task = "retrieval"
data = "{pictures}"
"""
ABSENT = '\n[[tasks]]\nname = "absent"\ntask = "retrieval"\ndata = "nowhere/<b>"\n'


@pytest.fixture
def suite(classes: Path, pictures: Path) -> Path:
    file = Path("suite.toml")
    file.write_text(SUITE.format(classes=classes, pictures=pictures))
    return file


def test_a_suite_is_measured_and_the_second_time_kept(tiny: Path, suite: Path, run: Run) -> None:
    arguments = ("evaluate", "all", "--suite", suite, "--model", tiny, "--out", "out", "--device", "cpu")
    first = run(*arguments)
    assert first.code == 0, first.err
    lines = [line.split() for line in first.out.splitlines()]
    assert [line[0] for line in lines] == ["task", "colours", "pairs", "pairs", "out/report.html"]
    assert lines[1][1:3] == ["6", "top1"]
    assert "1/2 colours: done in" in first.err
    again = run(*arguments)
    assert again.code == 0
    assert again.out == first.out
    assert "1/2 colours: is there already, and nothing has changed" in again.err
    assert "2/2 pairs: is there already" in again.err


def test_the_json_has_what_evaluate_itself_says(tiny: Path, suite: Path, classes: Path, run: Run) -> None:
    model = ("--model", tiny, "--device", "cpu", "--precision", "float32")
    found = run("evaluate", "all", "--suite", suite, *model, "--out", "out", "--json").json
    assert found.keys() == {"model", "out", "report", "tasks"}
    assert (found["out"], found["report"]) == ("out", "out/report.html")
    assert [(task["name"], task["status"], task["error"]) for task in found["tasks"]] == [
        ("colours", "done", None),
        ("pairs", "done", None),
    ]
    alone = run("evaluate", "zero-shot", "--data", classes, *model, "--json").json
    assert found["tasks"][0]["result"] == alone
    file = json.loads(Path("out/tasks/colours.json").read_text())
    assert {name: file[name] for name in alone} == alone


def test_a_task_that_fails_is_said_and_makes_the_exit_code_1(tiny: Path, suite: Path, run: Run) -> None:
    suite.write_text(ABSENT + suite.read_text())
    outcome = run("evaluate", "all", "--suite", suite, "--model", tiny, "--out", "out", "--device", "cpu")
    assert outcome.code == 1
    assert "1/3 absent: failed: nowhere/<b>: no such file or folder" in outcome.err
    assert [line.split()[0] for line in outcome.out.splitlines()[1:-1]] == [
        "colours",
        "pairs",
        "pairs",
        "absent",
    ]
    assert "absent failed: nowhere/<b>: no such file" in words(Path("out/report.html").read_text())
    assert "Failed: nowhere/\\<b\\>: no such file" in Path("out/report.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--suite", "nowhere.toml"), "nowhere.toml: no such file; expected a TOML file of settings"),
        (("--suite", "broken.toml"), "broken.toml [[tasks]] 1: task 'retreival': did you mean 'retrieval'?"),
        (("--out", "used"), "used: is a folder with other files; name a new folder with --out"),
    ],
)
def test_wrong_suites_and_folders_are_errors_in_one_line(
    tiny: Path, suite: Path, arguments: tuple[str, ...], said: str, run: Run
) -> None:
    Path("broken.toml").write_text('[[tasks]]\nname = "a"\ntask = "retreival"\ndata = "d"\n')
    Path("used").mkdir()
    Path("used/mine.txt").write_text("")
    command = ("evaluate", "all", "--model", tiny, "--device", "cpu", "--precision", "float32")
    outcome = run(
        *command, *(("--out", "out") if "--out" not in arguments else ("--suite", suite)), *arguments
    )
    assert outcome.code == 1
    assert outcome.err == f"error: {said}\n"


def test_the_page_needs_nothing_but_itself_and_shows_mistakes(tiny: Path, suite: Path, run: Run) -> None:
    assert run("evaluate", "all", "--suite", suite, "--model", tiny, "--out", "out").code == 0
    html = Path("out/report.html").read_text()
    found = checked(html)
    assert not {"script", "link", "iframe"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?:", html)
    pictures = [place for place in found.references if not place.startswith("#")]
    result = json.loads(Path("out/tasks/colours.json").read_text())
    assert len(pictures) == round(6 * (1 - result["metrics"]["top1"])) > 0
    for place in pictures:
        kind, data = place.split(",", 1)
        assert kind == "data:image/png;base64"
        assert Image.open(io.BytesIO(base64.b64decode(data))).format == "PNG"
    ids = re.findall(r' id="([^"]+)"', html)
    assert (
        {place[1:] for place in found.references if place.startswith("#")} == set(ids) == {"colours", "pairs"}
    )


def a_result(labels: tuple[str, ...], target: list[int], predicted: list[int]) -> Result:
    right = np.equal(target, predicted).astype(np.float32)
    scores = Scores(
        len(target), {"top1": float(right.mean())}, {"top1": (0.1, 0.7)}, {"top1": 0.1, "majority": 0.5}
    )
    outcomes = Outcomes(
        keys=tuple(map(str, range(len(target)))),
        scores={"top1": right},
        labels=labels,
        target=np.array(target),
        predicted=np.array(predicted),
        probability=np.full(len(target), 0.75, np.float32),
    )
    report = Report(
        task="zero-shot",
        model="m",
        data="<data>",
        scores=scores,
        groups={"<group>": scores},
        skipped={"<why>": 3},
        outcomes=outcomes,
    )
    return Result(name="t", made_by={}, report=report)


def test_names_of_other_peoples_making_are_text_on_the_page() -> None:
    evil = ("<script>alert(1)</script>", '"><img src=x onerror=y>', "a&b")
    mistake = PageImage(b"", '<t>" x="', "called <p>", '<k>"')
    html = page("runs/<m>", [a_result(evil, [0, 0, 1, 1, 2, 2], [0, 1, 1, 0, 0, 0])], {"t": [mistake]})
    found = checked(html)
    assert "script" not in found.tags
    assert found.tags.count("img") == 1
    text = words(html)
    for name in (*evil, "<group>", "3 <why>", "zero-shot on <data>", "called <p>", "<m>"):
        assert name in text


def test_few_classes_are_a_square_and_many_a_list_of_pairs() -> None:
    few = page("m", [a_result(("a", "b", "c"), [0, 0, 1, 1], [1, 1, 1, 1])], {})
    assert '<table class="heat' in few
    assert 'title="a called b: 2 of 2"' in few
    names = tuple(f"class {number}" for number in range(20))
    target = [number for number in range(20) for _ in range(3)]
    predicted = [1 if number == 0 else number for number in target]
    many = page("m", [a_result(names, target, predicted)], {})
    assert '<table class="heat' not in many
    assert "class 0 called class 1 3 100.0 %" in words(many).replace("\xa0", " ")
    assert "The other 12 classes" in words(many)


def test_a_task_without_classes_or_outcomes_has_its_metrics() -> None:
    scores = Scores(3, {"image_to_text_r1": 0.5, "text_to_image_r1": 0.25, "x_median_rank": 1234.0}, {}, {})
    report = Report(task="retrieval", model="m", data="d", scores=scores)
    html = page("m", [Result(name="pairs", made_by={}, report=report)], {})
    assert {"image to text r1", "50.0 %", "1,234.0"} <= {
        text.replace("\xa0", " ") for text in checked(html).text
    }
    assert "<svg" not in html
