"""`diptych report`: pages of runs that are done, stopped, killed, old, or nothing yet; alone and over each other."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from diptych.reports.run_page import page
from diptych.runs.run_summary import read_run
from tests.cli.command_line import Run

RECIPE = {
    "model": {"architecture": {"embed_dim": 16}},
    "training": {"batch_size": 64, "steps": 200, "seed": 0},
    "optimizer": {"learning_rate": 5e-4},
    "data": {"weights": {"@a/b": 2.0}, "train": "<b>&\"'</b>"},
}


class Checker(HTMLParser):
    """Every tag closed in order; and what the page refers to."""

    VOID = ("meta", "br", "link", "img", "input", "hr", "wbr")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.references: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.remove(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def checked(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    return checker


def words(html: str) -> str:
    return " ".join(" ".join(checked(html.replace("<wbr>", "")).text).split())


def record(step: int, **more: float) -> dict[str, float]:
    return {
        "step": step,
        "samples": 64 * step,
        "loss": 4.0 * math.exp(-step / 100),
        "seconds": step / 2,
        **more,
    }


def make_run(
    folder: Path, lines: list[Any], recipe: dict[str, Any] | None = None, done: bool = False
) -> Path:
    folder.mkdir()
    (folder / "recipe.json").write_text(json.dumps(RECIPE if recipe is None else recipe))
    text = "".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    if done:
        (folder / "model").mkdir()
        (folder / "model" / "diptych.json").write_text("{}")
    return folder


def whole_run(folder: Path, **recipe: Any) -> Path:
    lines = [
        record(
            step,
            accuracy=step / 400,
            gradient_norm=2.0,
            learning_rate=5e-4,
            logit_scale=14.0,
            samples_per_second=128.0,
            data_share=0.02,
            **({"digits_top1": step / 300, "text_to_image_median_rank": 50.0} if step % 50 == 0 else {}),
        )
        for step in range(10, 201, 10)
    ]
    return make_run(folder, lines, RECIPE | recipe, done=True)


def test_a_page_needs_nothing_but_itself(run: Run) -> None:
    folder = whole_run(Path("first"))
    outcome = run("report", folder)
    assert outcome.code == 0, outcome.err
    assert outcome.out == "first: done, step 200 of 200, loss 0.600\nfirst/report.html\n"
    html = (folder / "report.html").read_text()
    found = checked(html)
    assert found.references == []
    assert not {"script", "link", "iframe", "img"} & set(found.tags)
    assert not re.search(r"url\(|@import|https?:", html)
    assert "light-dark(" in html
    assert 'name="viewport"' in html


def test_a_done_run_shows_its_curves_its_evaluations_and_its_recipe() -> None:
    html = page([read_run(whole_run(Path("first")))])
    said = words(html)
    titles = re.findall(r"<h3>(.*?)</h3>", html)
    assert titles == [
        "Loss",
        "Accuracy in the batch",
        "Logit scale",
        "Gradient norm",
        "Learning rate",
        "Speed",
        "Waiting for data",
        "digits top1",
        "text to image median rank",
    ]
    assert "Done: 200 steps of 64 pairs in 100 s." in said
    assert "guessing 4.16" in said  # ln 64
    assert "Compute-bound." in said
    assert "digits top1 66.7 %" in said
    assert "text to image median rank 50" in said
    assert 'train = "<b>&' in said  # escaped: it is text, not a tag
    assert 'weights = { "@a/b" = 2.0 }' in said


def test_what_counts_as_right_is_that_of_the_objective() -> None:
    clip = words(page([read_run(whole_run(Path("first")))]))
    views = words(page([read_run(whole_run(Path("second"), objective={"name": "simclr"}))]))
    assert "the text of an image, among all of a batch" in clip
    assert "the other view of an image, among all of a batch" in views


def test_a_stopped_run_says_where_it_stands_and_what_is_left() -> None:
    folder = make_run(Path("cut"), [*(record(step) for step in range(10, 101, 10)), '{"step": 110, "lo'])
    now = (folder / "metrics.jsonl").stat().st_mtime
    assert "Running after 100 of 200 steps, 64 pairs each. About 50 s left." in words(
        page([read_run(folder, now)])
    )
    stopped = words(page([read_run(folder, now + 3600)]))
    assert "Stopped after 100 of 200 steps, 64 pairs each." in stopped
    assert "--resume continues it. About 50 s left." in stopped
    assert "1 line of the log could not be read and was left out." in stopped


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [{"step": 10}],
        [{"step": 10, "loss": 4.0}],
        [{"step": 10, "loss": math.nan}, {"step": 20, "loss": math.inf}],
        [{"step": 10, "accuracy": 0.0}, {"step": 20, "accuracy": 0.0}],
        [{"step": 0, "loss": 1.0, "seconds": 0.0}],
        [{"step": 10, "loss": 0.0, "gradient_norm": 0.0}, {"step": 20, "loss": 0.0, "gradient_norm": 1e30}],
        [{"step": 10, "loss": -3.0, "logit_bias": -10.0}],
    ],
)
@pytest.mark.parametrize("recipe", [{}, RECIPE])
def test_whatever_the_log_lacks_there_is_a_page(lines: list[Any], recipe: dict[str, Any]) -> None:
    checked(page([read_run(make_run(Path("run"), lines, recipe))]))


def test_a_loss_at_chance_and_numbers_that_are_none_are_pointed_out() -> None:
    lines = [{"step": step, "loss": 4.15} for step in range(10, 201, 10)]
    said = words(page([read_run(make_run(Path("run"), [*lines, {"step": 210, "loss": math.nan}]))]))
    assert "The loss is that of guessing" in said
    assert "infinite or not a number: loss 1 times" in said


def test_waiting_for_data_is_a_verdict_with_advice() -> None:
    lines = [record(step, data_share=0.5) for step in range(10, 101, 10)]
    assert "Data-bound. The steps waited for data 50.0 % of the time. More data.workers" in words(
        page([read_run(make_run(Path("run"), lines))])
    )


def test_several_runs_are_drawn_over_each_other_and_their_recipes_compared(run: Run) -> None:
    first = whole_run(Path("first"))
    other = {"learning_rate": 1e-3, "weight_decay": 0.1}
    second = whole_run(Path("second"), optimizer=other)
    outcome = run("report", first, second, "--json")
    assert outcome.json["report"] == "report.html"
    assert [one["run"] for one in outcome.json["runs"]] == ["first", "second"]
    assert outcome.json["runs"][0].keys() == {
        *("run", "state", "step", "total", "seconds_left", "verdict", "metrics", "best"),
    }
    html = Path("report.html").read_text()
    loss = html[html.index("<h3>Loss") : html.index("<h3>Accuracy")]
    assert loss.count('class="line c0"') == loss.count('class="line c1"') == 1
    said = words(html)
    assert "setting first second optimizer.learning_rate 0.0005 0.001 optimizer.weight_decay - 0.1" in said
    assert "training.seed" not in said  # the same in both


def test_the_best_evaluation_is_marked_in_its_curve_and_told_in_the_table(run: Run) -> None:
    values = {50: 0.25, 100: 0.75, 150: 0.75, 200: 0.5}
    lines = [record(step, digits_top1=value) for step, value in values.items()]
    make_run(Path("run"), lines, {**RECIPE, "evaluation": {"best": "digits_top1"}})
    best = {"metric": "digits_top1", "step": 100, "value": 0.75}
    assert run("report", "run", "--json").json["runs"][0]["best"] == best
    html = Path("run/report.html").read_text()
    chart = html[html.index("<h3>digits top1") :]
    # Of 1000 by 360, an axis from 0 to 80 %: half of the way, and 75 of 80 parts up.
    assert 'class="dot c1" d="M500.0 22.5h0"' in chart
    assert "digits top1 50.0 % (best 75.0 %, step 100)" in words(html)
    # Without the setting nothing is kept, and nothing marked.
    make_run(Path("other"), lines, RECIPE)
    assert run("report", "other", "--json").json["runs"][0]["best"] is None
    assert "(best" not in Path("other/report.html").read_text()


def test_runs_with_the_same_name_are_told_apart_by_their_folders() -> None:
    for parent in ("a", "b"):
        Path(parent).mkdir()
        whole_run(Path(parent) / "run")
    assert "a/run" in words(page([read_run("a/run"), read_run("b/run")]))


def test_a_sweep_is_shown_by_its_best_trials(run: Run) -> None:
    Path("sweep").mkdir()
    for number in range(10):
        whole_run(Path("sweep") / f"trial-{number:04d}")
    trials = [
        {"number": number, "settings": {}, "status": "done", "metrics": {"loss": 10.0 - number}}
        for number in range(10)
    ]
    values = {"format_version": 1, "asked": {}, "metric": "loss", "goal": "minimise", "trials": trials}
    Path("sweep/sweep.json").write_text(json.dumps(values))
    shown = run("report", "sweep", "--json").json
    assert shown["report"] == "report.html"
    assert [Path(one["run"]).name for one in shown["runs"]] == [
        f"trial-{9 - place:04d}" for place in range(8)
    ]


def test_a_folder_without_a_run_is_an_error(run: Run) -> None:
    Path("empty").mkdir()
    outcome = run("report", "empty")
    assert outcome.code == 1
    assert "holds no run" in outcome.err
    assert not list(Path("empty").iterdir())
