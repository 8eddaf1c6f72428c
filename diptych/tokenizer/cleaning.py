"""Clean texts as for CLIP's published models: ftfy, HTML unescaping twice, white space, lower case.

`clean` returns `html.unescape(html.unescape(ftfy.fix_text(text)))`, with white space collapsed and letters in lower
case; `clean_pieces` yields the same from left to right, so that the beginning of a huge text is cheap. The loop of
ftfy.fix_text is written out here, over ftfy's own fixers, for two reasons. It can stop early. And two of its steps take
quadratic time on malicious texts, hours for one megabyte: an ampersand that is escaped many times loses one escape per
pass, and Unicode normalisation sorts long runs of combining marks by insertion.
"""

import html
import re
import unicodedata
from collections.abc import Iterator

import ftfy
import regex
from ftfy import chardata, fixes

# Part of the tokenizer's fingerprint: raise it if the cleaning of any text changes.
CLEANING_VERSION = "1"

# Text of these characters passes ftfy and html.unescape unchanged, except for the kind of line break: printable ASCII
# without the ampersand, tab, line feed, form feed, carriage return.
_PLAIN = re.compile(r"[ -%'-~\t\n\f\r]*")
# ftfy drops, replaces or keeps these characters one by one, whatever is beside them (except terminal escapes, which end
# before the line does): ASCII without the ampersand, white space, controls that it drops.
_CONTEXT_FREE = re.compile(
    "[\x00-%'-\x7f\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\u206a-\u206f\ufeff\ufff9-\ufffc]*"
)

_LONE_SURROGATE = re.compile("[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]")

# ftfy reads a text line by line, and breaks longer lines into segments of this many characters.
_SEGMENT = 1_000_000
# Cleaned pieces have about this many characters.
_PIECE = 1 << 12
# The places to cut a text: no entity of html.unescape contains one of these two, and lower-casing does not look across
# them (the only letter that depends on its neighbours, the final sigma, stops at both).
_CUT = re.compile("[ \n]")

_ESCAPED_AMPERSAND = r"(?:amp|AMP|#0{0,21}38|#[xX]0{0,20}26);"
_ESCAPED_TOO_OFTEN = re.compile(f"&(?:{_ESCAPED_AMPERSAND}){{17,}}")
_ESCAPED_16_TIMES = "&" + 16 * "amp;"
_MANY_MARKS = regex.compile(r"\p{M}{64,}+")

_TRANSLATED = re.compile(
    "["
    + re.escape("".join(map(chr, [*chardata.LIGATURES, *chardata.WIDTH_MAP, *chardata.CONTROL_CHARS])))
    + "]"
)


def lone_surrogate(text: str) -> int | None:
    """Return the position of half a UTF-16 pair without its other half in `text`; None if there is none."""
    found = None if text.isascii() else _LONE_SURROGATE.search(text)
    return found.start() if found else None


def clean(text: str) -> str:
    """Return `text` as the models were trained to see it.

    An ampersand that is escaped more than 16 times counts as escaped 16 times. The result is the same, unless another
    repair of its segment takes as many passes.
    """
    return " ".join(filter(None, clean_pieces(text)))


def clean_pieces(text: str) -> Iterator[str]:
    """Yield `clean(text)` in pieces of whole words; the pieces joined by spaces are the cleaned text.

    Reading only some of them is exact: ftfy works on one segment after another, and the pieces are cut at a space or a
    line feed, and nothing after ftfy looks across these.
    """
    held = ""  # fixed text after the last cut
    for segment in _fixed_segments(text):
        held += segment
        start = 0
        while len(held) - start >= _PIECE:
            cut = max(held.rfind(" ", start, start + _PIECE), held.rfind("\n", start, start + _PIECE)) + 1
            if cut == 0:
                found = _CUT.search(held, start + _PIECE)
                if found is None:
                    break
                cut = found.end()
            yield _finished(held[start:cut])
            start = cut
        held = held[start:]
    yield _finished(held)


def _finished(fixed: str) -> str:
    return " ".join(html.unescape(html.unescape(fixed)).split()).lower()


def _fixed_segments(text: str) -> Iterator[str]:
    """Yield the segments of ftfy.fix_text(text), in order; lines that need no context come several at a time."""
    unescape = True
    start = 0
    while start < len(text):
        limit = min(start + _SEGMENT, len(text))
        simple = _CONTEXT_FREE.match(text, start, limit)
        simple_stop = simple.end() if simple else start
        stop = text.rfind("\n", start, simple_stop) + 1 or text.find("\n", start, limit) + 1 or limit
        segment = text[start:stop]
        start = stop
        # A "<" shows that the text is HTML, whose entities are intended: from here on, ftfy leaves them.
        unescape = unescape and "<" not in segment
        yield _fixed(segment, unescape)


def _fixed(text: str, unescape: bool) -> str:
    """Apply ftfy.fix_and_explain to one segment: all fixers in ftfy's order until nothing changes."""
    if _PLAIN.fullmatch(text):
        return fixes.fix_line_breaks(text)
    while True:
        before = text
        if unescape:
            text = fixes.unescape_html(_ESCAPED_TOO_OFTEN.sub(_ESCAPED_16_TIMES, text))
        text = fixes.fix_c1_controls(ftfy.fix_encoding(text))
        if _TRANSLATED.search(text):  # str.translate is slow, so it is called only if it changes something
            text = fixes.fix_character_width(fixes.fix_latin_ligatures(text))
        text = fixes.fix_surrogates(fixes.fix_line_breaks(fixes.uncurl_quotes(text)))
        text = fixes.remove_terminal_escapes(text)
        if _TRANSLATED.search(text):
            text = fixes.remove_control_chars(text)
        text = unicodedata.normalize("NFC", _MANY_MARKS.sub(_in_canonical_order, text))
        if text == before:
            return text


def _in_canonical_order(marks: regex.Match[str]) -> str:
    """Decompose and sort a run of combining marks: normalisation itself would take quadratic time."""
    decomposed = "".join(unicodedata.normalize("NFD", mark) for mark in marks.group())
    ordered: list[str] = []
    movable: list[str] = []
    for mark in decomposed:
        if unicodedata.combining(mark):
            movable.append(mark)
        else:  # nothing moves across a character of class 0
            ordered += [*sorted(movable, key=unicodedata.combining), mark]
            movable = []
    return "".join([*ordered, *sorted(movable, key=unicodedata.combining)])
