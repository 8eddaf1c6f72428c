"""The captions on the page of `diptych report`: what the verb `caption` writes, beside what is true."""

import html
import re
import shutil
from pathlib import Path

import pytest

from diptych.data.sources.opening import open_source
from diptych.reports.caption_gallery import COUNT, Captioned, Gallery
from diptych.reports.render import render_page
from diptych.training.engine import train
from diptych.training.recipes import load_recipe
from tests.cli.command_line import Run

CARD = re.compile(
    r'<figure class="panel"><img src="data:image/jpeg;base64,(.+?)" alt="(.*?)">.*?<b>(.*?)</b>.*?</figure>'
)
TITLE = "Captions of held-out images"


@pytest.fixture(scope="module")
def captioner(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shipped recipe, which names its held-out pictures, with a checkpoint and a result."""
    out = tmp_path_factory.mktemp("captioner") / "run"
    settings = (
        "data.train='scenes:train?count=32&side=36'",
        "model.architecture.image={resolution=32, layers=[1, 1, 1, 1], width=8, stem_stride=2}",
        "training.batch_size=8",
        "training.samples=16",
        "checkpoint.every_steps=1",
        "data.workers=0",
        "evaluation.tasks=[]",
    )
    train(load_recipe("caption-forward", settings), out)
    return out


def cards(page: Path) -> list[tuple[str, str]]:
    """The true caption and the written one of each picture."""
    found = CARD.findall(page.read_text())
    return [(html.unescape(truth), html.unescape(written)) for _, truth, written in found]


def test_the_pictures_that_the_recipe_names_are_shown_with_what_the_verb_caption_writes(
    captioner: Path, run: Run
) -> None:
    assert run("report", captioner).code == 0
    source = open_source("scenes:test?count=8&side=72&distractors=0")
    pictures = []
    for row in range(COUNT):
        image = source[row].image
        assert isinstance(image, bytes)
        pictures.append(Path(f"{row}.png"))
        pictures[-1].write_bytes(image)
    written = run("caption", *pictures, "--model", captioner, "--precision", "float32", "--json").json
    assert cards(captioner / "report.html") == [
        (source[row].captions[0], each["caption"] or "(nothing)") for row, each in enumerate(written)
    ]
    page = (captioner / "report.html").read_text()
    assert page.index(TITLE) < page.index("<h2>Curves")
    assert set(re.findall(r'(?:src|href)="(.{11})', page)) == {"data:image/"}  # it needs nothing but itself


def test_other_pictures_are_shown_from_all_over_their_data_and_only_where_they_have_captions(
    captioner: Path, run: Run, tmp_path: Path
) -> None:
    assert run("report", captioner, "--captions", "scenes:test?count=32&distractors=0").code == 0
    source = open_source("scenes:test?count=32&distractors=0")
    truths = [truth for truth, _ in cards(captioner / "report.html")]
    assert truths == [source[row].captions[0] for row in range(0, 32, 4)]
    (tmp_path / "photos").mkdir()
    image = source[0].image
    assert isinstance(image, bytes)
    (tmp_path / "photos" / "alone.png").write_bytes(image)
    outcome = run("report", captioner, "--captions", tmp_path / "photos")
    assert outcome.code == 1
    assert "caption" in outcome.err


def test_a_run_that_goes_on_is_shown_by_its_newest_checkpoint_and_without_one_says_why(
    captioner: Path, run: Run, tmp_path: Path
) -> None:
    going = tmp_path / "going"
    shutil.copytree(captioner, going, ignore=shutil.ignore_patterns("model"))
    assert run("report", going).code == 0
    assert len(cards(going / "report.html")) == COUNT
    assert not (going / "model").exists()
    shutil.rmtree(going / "checkpoints")
    assert run("report", going).code == 0
    assert cards(going / "report.html") == []
    assert "no whole checkpoint yet" in (going / "report.html").read_text()


def test_models_that_write_no_captions_and_several_runs_are_refused(
    captioner: Path, run: Run, tmp_path: Path
) -> None:
    settings = ("training.batch_size=8", "training.samples=8", "schedule.warmup_steps=1", "evaluation={}")
    other = tmp_path / "other"
    train(load_recipe("bag-of-words", (*settings, "data.train='scenes:train?count=16'")), other)
    assert run("report", other).code == 0
    assert TITLE not in (other / "report.html").read_text()
    refused = run("report", other, "--captions", "scenes:test?count=8")
    assert refused.code == 1
    assert "writes no captions" in refused.err
    assert run("report", captioner, other, "--captions", "scenes:test?count=8").code == 2
    assert run("report", captioner, other).code == 0
    assert TITLE not in Path("report.html").read_text()


def test_word_for_word_looks_past_capitals_and_spaces_and_at_every_true_caption() -> None:
    same = Captioned(b"", "a red circle , alone .", ("Something else.", "A red circle, alone."))
    other = Captioned(b"", "a red <circle>", ("a blue circle",))
    assert same.exact
    assert not other.exact
    section = render_page("gallery.html", gallery=Gallery("photos/<1>", [same, other, other]))
    assert "1 of 3 word for word" in section
    assert "photos/&lt;1&gt;" in section
    assert "<b>a red &lt;circle&gt;</b>" in section
    assert section.count("<dd>the same</dd>") == 1
