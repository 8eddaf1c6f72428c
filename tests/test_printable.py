"""Names and captions on a terminal: one line each, and nothing that a terminal would obey."""

import pytest

from diptych.data.left_out import LeftOut
from diptych.printable import printable, printable_name


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a red bicycle", "a red bicycle"),
        ("ein grünes Rad \N{BICYCLE}", "ein grünes Rad \N{BICYCLE}"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe", r"\u202egpj.exe"),
        ("a\N{LINE SEPARATOR}b\x85", r"a\u2028b\x85"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_long_name_loses_its_middle() -> None:
    name = "a" * 4000 + "/photo.jpg"
    assert len(printable_name(name)) < 400
    assert printable_name(name).endswith("/photo.jpg")


def test_names_of_what_was_left_out_are_printable_and_whole_in_json() -> None:
    left_out = LeftOut()
    left_out.add("truncated image", "two\nlines.jpg")
    assert left_out.warnings() == [r"left out 1 (truncated image): two\nlines.jpg"]
    assert left_out.to_json() == {"truncated image": {"count": 1, "first": ["two\nlines.jpg"]}}
