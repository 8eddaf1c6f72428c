"""Every page: escaped, self-contained, and written by templates in which a misspelled name is an error."""

from collections.abc import Iterator
from pathlib import Path

import jinja2
import pytest

from diptych.palette import LINES, colours
from diptych.reports import render
from diptych.reports.render import render_page, render_text


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(render, "TEMPLATES", tmp_path)
    yield tmp_path
    render._environment.cache_clear()


def test_values_are_escaped_and_numbers_stay_with_their_units(templates: Path) -> None:
    (templates / "a.html").write_text("<p title='{{ name }}'>{{ name }} {{ share|percent }}</p>")
    assert render_page("a.html", name="<b>'", share=0.5) == (
        "<p title='&lt;b&gt;&#39;'>&lt;b&gt;&#39; 50.0\u00a0%</p>"
    )


def test_a_long_name_breaks_after_its_underscores_and_stays_escaped(templates: Path) -> None:
    (templates / "a.html").write_text("{{ name|breakable }}")
    assert render_page("a.html", name="a_<b>.c") == "a_<wbr>&lt;b&gt;.<wbr>c"


def test_a_misspelled_value_is_an_error(templates: Path) -> None:
    (templates / "a.html").write_text("{{ nmae }}")
    with pytest.raises(jinja2.UndefinedError, match="nmae"):
        render_page("a.html", name="x")


def test_text_of_our_own_is_not_escaped(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("a < {{ b }}\n")
    assert render_text(tmp_path / "page.md", b="`c` & d") == "a < `c` & d\n"


def test_the_palette_has_a_colour_for_each_line_in_light_and_dark() -> None:
    found = colours()
    assert all(f"c{number}" in found for number in range(LINES))
    assert found["ink"].light != found["ink"].dark
