"""`diptych demo`: the story with a tiny amount of training, and the page that tells it."""

import html.parser
import json
import math
from pathlib import Path

import pytest

from diptych.reports.demo_page import page
from diptych.runs import demo_run
from diptych.runs.demo_story import Accuracy, DemoAnswer, DemoImage, DemoSearch, Story
from diptych.wording import minutes
from tests.cli.command_line import Run

PICTURE = DemoImage(b"\x00\x01", "image/webp", "<b>a & b</b>", "someone (MIT)")
STORY = Story(
    pairs=2298,
    seconds=142.4,
    batch_size=128,
    losses=[(10 * step, 4.8 * math.exp(-step / 20)) for step in range(1, 32)],
    task="What is <this>?",
    accuracies=[Accuracy("fresh", 0.25, 0.5, (0.2, 0.3)), Accuracy("chance", 1 / 300, 5 / 300)],
    answers=[DemoAnswer(PICTURE, "cat & dog", [("cat & dog", 0.7), ("bird", 0.2)])],
    searches=[DemoSearch("a <bird>", [(PICTURE, 0.31)])],
    next_steps=[('diptych search "a & b"', "look")],
)


class Reader(html.parser.HTMLParser):
    """Which tags a page opens, and that each is closed in its turn."""

    EMPTY = frozenset(("meta", "img", "br", "line", "!doctype"))

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page_is_whole_self_contained_and_escaped() -> None:
    text = page(STORY)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert reader.links
    assert all(link.startswith("data:image/webp;base64,") for link in reader.links)
    assert "http" not in text
    assert "<this>" not in text
    assert "<b>a" not in text
    assert "a &lt;bird&gt;" in text
    assert "light-dark(" in text


def test_page_says_what_was_found_beside_chance() -> None:
    text = page(STORY).replace("\u00a0", " ")
    assert "2 min 22 s" in text
    assert "ln 128 = 4.85" in text
    assert "2,298" in text
    assert "<strong>25.0 %</strong> right, 75 times as often as chance" in text
    assert "20.0 % to 30.0 %" in text
    assert "0.33 %" in text
    assert "1 of 1 first answers are" in " ".join(text.split())


@pytest.mark.parametrize(("seconds", "said"), [(5.2, "5 s"), (59.7, "1 min 0 s"), (142.4, "2 min 22 s")])
def test_duration_in_words(seconds: float, said: str) -> None:
    assert minutes(seconds) == said


def test_demo_runs_from_nothing_to_a_page(tiny: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_run, "DEFAULT_MODEL", str(tiny))
    monkeypatch.setattr(demo_run, "TRIAL_STEPS", 2)
    outcome = run("demo", "--minutes", "0.001", "--json")
    assert outcome.code == 0, outcome.err
    told = outcome.json
    assert (told["page"], told["model"], told["index"]) == ("demo/index.html", "demo/run/model", "demo/index")
    assert [report["count"] for report in told["zero_shot"]] == [300, 300, 300]
    assert told["zero_shot"][0]["chance"]["top1"] == pytest.approx(1 / 300)
    text = Path("demo/index.html").read_text("utf-8")
    assert text.count("<img") == demo_run.SHOWN + len(demo_run.QUERIES) * demo_run.HITS
    recorded = [json.loads(line)["loss"] for line in Path("demo/run/metrics.jsonl").read_text().splitlines()]
    assert [loss for _, loss in told["losses"]] == recorded
    # The model and the index that the page speaks of are there.
    assert run("verify", "demo/run").code == 0
    assert run("search", "a bird", "--index", "demo/index").code == 0


def test_demo_leaves_a_folder_with_other_files_alone(run: Run) -> None:
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("keep me")
    outcome = run("demo", "--out", "mine")
    assert outcome.code == 1
    assert "name a new folder with --out" in outcome.err
    assert Path("mine/notes.txt").read_text() == "keep me"
