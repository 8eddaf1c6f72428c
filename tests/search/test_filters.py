"""The language of filters: what it reads, what it refuses. That stores do what it says is in `test_stores.py`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.errors import SettingsError
from diptych.search.stores.filter_fields import FIELDS, condition
from diptych.search.stores.filter_syntax import parse
from diptych.search.stores.filters import (
    Combination,
    Comparison,
    Containment,
    Filter,
    Membership,
    Negation,
    matches,
)
from diptych.search.stores.image_rows import Item, item_id

ROW = Item(
    id=item_id("/a.jpg"),
    uri="/a.jpg",
    source="/",
    size=5,
    mtime_ns=None,
    sha256="0" * 64,
    width=30,
    height=20,
).to_row()


def test_and_binds_closer_than_or_and_not_closest() -> None:
    a, b, c = (Comparison("width", ">", number) for number in (1, 2, 3))
    assert parse("width > 1 or width > 2 and not width > 3") == Combination(
        "any", (a, Combination("all", (b, Negation(c))))
    )
    assert parse("(width > 1 OR width > 2) AND width > 3") == Combination(
        "all", (Combination("any", (a, b)), c)
    )


def test_quotes_hold_anything() -> None:
    assert parse(r'label = "a \"b\" and c"') == Comparison("label", "=", 'a "b" and c')
    assert parse("label = 'a\nb'") == Comparison("label", "=", "a\nb")
    assert parse(r"label in ('it\'s', plain)") == Membership("label", ("it's", "plain"))
    assert parse('label = "="') == Comparison("label", "=", "=")


def test_a_condition_from_its_parts_is_the_one_that_is_read() -> None:
    assert condition("width", ">=", 1000) == parse("width >= 1000")
    assert condition("tag", "in", "sea", "sun") == parse("tag in (sea, sun)")
    assert (
        condition("caption", "contains", "SEA")
        == Containment("caption_folded", "sea")
        == parse("caption contains Sea")
    )


def test_a_filter_and_its_negation_part_all_pictures() -> None:
    for text in ("modified < 2024-01-01", 'label = ""', "tag = sea", "width > 3", "shape = landscape"):
        assert matches(parse(text), ROW) != matches(parse(f"not ({text})"), ROW)


def test_every_field_that_is_documented_can_be_asked_for() -> None:
    for field in FIELDS:
        dates = dict.fromkeys(("modified", "taken"), "< 2024-01-01")
        places = {"latitude": "> 1", "longitude": "> 1", "place": 'near "1, 2, 3 km"'}
        value = {**dates, **places, "shape": "= square"}.get(field, "= 1")
        parse(f"{field} {value}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "the end"),
        ("width", "after 'width'"),
        ("width >", "a value"),
        ("width > wide", "whole number"),
        ("width = 99999999999999999999", "whole number"),
        ("bytes < 1.5", "whole number"),
        ("colour = red", "unknown field 'colour"),
        ("widht > 3", "did you mean 'width'"),
        ("label > cat", "expected one of the operators = != in"),
        ("label contains c", "expected one of"),
        ("modified > yesterday", "not a date"),
        ("shape = round", "landscape"),
        ("(width > 3", "`)`"),
        ("width > 3)", "`and`, `or` or the end"),
        ("width > 3 height > 4", "`and`, `or` or the end"),
        ("label in (a", "`)`"),
        ("label in ()", "a value"),
        ('label = "open', "cannot read"),
        ("label = cat; drop", "`and`, `or`"),
        ("not " * 30 + "width > 3", "nested parentheses"),
        ("(" * 30 + "width > 3" + ")" * 30, "nested parentheses"),
        (" or ".join(["width > 3"] * 200), "more than 100 conditions"),
        ("label in (" + ",".join(["a"] * 200) + ")", "more than 100 conditions and values"),
        ("x" * 5000, "characters"),
    ],
)
def test_a_filter_that_is_not_well_formed_is_refused(text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match="filter") as caught:
        parse(text)
    assert expected in str(caught.value)


@given(
    st.text(max_size=200)
    | st.lists(st.sampled_from([*FIELDS, "and", "or", "not", "in", "(", ")", "=", "3", "'a'"])).map(" ".join)
)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(text)
    except SettingsError:
        return
    assert matches(found, ROW) in (True, False)


def _nodes(filter_: Filter) -> int:
    match filter_:
        case Combination(_, parts):
            return 1 + sum(map(_nodes, parts))
        case Negation(part):
            return 1 + _nodes(part)
    return 1


@given(st.text(min_size=1))
def test_a_quoted_value_is_one_value(text: str) -> None:
    quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    assert _nodes(parse(f"label = {quoted}")) == 1
