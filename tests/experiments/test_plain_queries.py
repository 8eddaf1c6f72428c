"""The twenty plain queries: what counts as right is in the sample, and a hit is judged by it."""

import html
import re
from pathlib import Path
from types import ModuleType

import pytest

import diptych

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "mini"


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))
    import queries  # noqa: PLC0415

    return queries


def test_right_images_of_the_queries_are_in_the_sample(queries: ModuleType) -> None:
    drawings, photographs = diptych.open_source("sample:train"), diptych.open_source("sample:photographs")
    found = {query.words: query.right for query in queries.read_queries(drawings, photographs)}
    assert len(found) == 20
    assert all(found.values())
    assert found["a photo of a cat"] == {"sample:photographs#chelsea"}
    assert len(found["a motorcycle"]) == 5  # one a designer
    assert "sample:train#001683" in found["a clock"]
    with pytest.raises(ValueError, match="'a dog': no image 'poodle' in the sample"):
        queries.read_queries(photographs, photographs)


def test_hits_are_judged_and_shown(queries: ModuleType, tmp_path: Path) -> None:
    photographs = diptych.open_source("sample:photographs")
    diptych.build_index(photographs, tmp_path / "index", model="diptych-mini", device="cpu")
    uris = [f"sample:photographs#{photographs[row].key}" for row in range(len(photographs))]
    asked = [queries.PlainQuery("<cat>", frozenset(uris)), queries.PlainQuery("a dog", frozenset())]
    answers = queries.ask(asked, tmp_path / "index")
    assert [[hit.right for hit in answer.hits] for answer in answers] == [[True] * 5, [False] * 5]
    assert queries.verdict(answers) == "first hit right: 1 of 2"
    images = {uri: photographs[row] for row, uri in enumerate(uris)}
    text = queries.page("diptych-mini", answers, images)
    assert text.count("<img") == 10
    assert re.findall(r"<h3>(.*?) <em", text) == [html.escape("<cat>"), "a dog"]
    assert "First hit right: 1 of 2" in text
