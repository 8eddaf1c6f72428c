"""Caption files of every kind that is broken, and what must become of the image beside each."""

import json
from collections.abc import Iterator

from tests.messy.messy_pictures import READ, Fate

NOT_UTF8 = "text is not UTF-8"
INVALID_JSON = "invalid JSON"
WRONG_TYPE = "field of the wrong type"


def caption_files() -> Iterator[tuple[str, str, bytes, Fate]]:
    """(name, suffix, content, what becomes of the image) of each file."""
    for name, data, fate in _texts():
        yield name, ".txt", data, fate
    yield "caption", ".caption", b"one caption\nanother caption\n", (READ,)
    yield "caption in capitals", ".TXT", b"a caption", (READ,)
    for name, data, fate in _records():
        yield name, ".json", data, fate
    yield "record in capitals", ".JSON", b'{"caption": "a caption"}', (READ,)


def _texts() -> Iterator[tuple[str, bytes, Fate]]:
    good = {
        "plain": "a red square",
        "two lines": "a red square\na square that is red\n",
        "lines of Windows": "a red square\r\nanother\r\n",
        "lines of old Macs": "a red square\ranother\r",
        "empty": "",
        "spaces": " \n\t\n \n",
        "byte order mark": "\N{BYTE ORDER MARK}a red square",
        "NUL": "a red\0 square\0\0",
        "control characters": "a \x1b[31mred\x1b[0m square\x07\x08\x7f",
        "separators": "a red\N{LINE SEPARATOR}square\x0b\x0c\x1c\x85",
        "emoji": "\N{BICYCLE}\N{VARIATION SELECTOR-16}\N{ZERO WIDTH JOINER}\N{WOMAN}",
        "right to left": "\N{RIGHT-TO-LEFT OVERRIDE}\N{HEBREW LETTER ALEF}\N{ARABIC LETTER BEH}",
        "combining": "e" + "\N{COMBINING ACUTE ACCENT}" * 500,
        "not characters": "a \ufffe\uffff square \U0010ffff",
        "private use": "\ue000\uf8ff",
        "HTML": "<b>a &amp;&lt;square&#0;&#x110000;</b>&",
        "braces": "{} {0} %s %d ${HOME} $(id) `id`",
        "SQL": "a'; DROP TABLE images; --",
        "control tokens": "<|startoftext|><|endoftext|> a red square <|endoftext|>",
        "number": "12345",
        "one word of 100,000 letters": "a" * 100_000,
        "one line of 10 MB": "a red square on the left of a blue circle " * 240_000,
        "10 MB of captions": "".join(f"{number}: {'a square ' * 110}\n" for number in range(10_000)),
    }
    for name, text in good.items():
        yield name, text.encode(), (READ,)
    yield "UTF-16", "a red square".encode("utf-16"), (NOT_UTF8,)
    yield "UTF-32", "a red square".encode("utf-32"), (NOT_UTF8,)
    yield "Latin-1", "ein gr\N{LATIN SMALL LETTER U WITH DIAERESIS}nes Quadrat".encode("latin-1"), (NOT_UTF8,)
    yield "surrogates", b"a \xed\xa0\xbd\xed\xb8\x80 square", (NOT_UTF8,)
    yield "cut letter", "a \N{SNOWMAN}".encode()[:-1], (NOT_UTF8,)
    yield "bytes of an image", b"\xff\xd8\xff\xe0\0\x10JFIF", (NOT_UTF8,)


def _records() -> Iterator[tuple[str, bytes, Fate]]:
    good = {
        "caption": '{"caption": "a red square"}',
        "captions": '{"captions": ["a red square", "a square"], "tags": ["red"], "label": "square"}',
        "nothing": "{}",
        "nulls": '{"caption": null, "captions": null, "tags": null, "label": null}',
        "caption that is not a number": '{"caption": NaN}',
        "label that is not a number": '{"caption": "a square", "label": NaN, "tags": NaN}',
        "infinite field": '{"caption": "a square", "width": Infinity, "height": -Infinity, "score": 1e999}',
        "byte order mark": '\N{BYTE ORDER MARK}{"caption": "a red square"}',
        "the same key twice": '{"caption": "a", "caption": "b", "label": "x", "label": "y"}',
        "half a character": '{"caption": "a \\ud800 square", "label": "x\\udfff", "author": "\\ud800"}',
        "NUL": '{"caption": "a\\u0000b", "label": "a\\u0000b", "a\\u0000": "b\\u0000"}',
        "fields of an index": '{"id": "x", "uri": [1], "vector": "v", "sha256": 1, "caption": "a", "score": {}}',
        "fields of Python": '{"__class__": 1, "__init__": 2, "self": 3, "key": "k", "image": "../../etc/passwd"}',
        "nested metadata": '{"caption": "a", "more": ' + "[" * 90 + "]" * 90 + "}",
        "10,000 fields": json.dumps({f"field {number}": number for number in range(10_000)}),
        "metadata of 10 MB": json.dumps({"caption": "a square", "notes": "x" * 10_000_000}),
        "integers beyond 64 bits": '{"caption": "a", "number": ' + "9" * 300 + "}",
        "dates": '{"caption": "a", "taken": "0000-00-00", "latitude": "north", "longitude": []}',
        "label with a slash": '{"label": "../x/y"}',
        "label of 100,000 letters": json.dumps({"label": "x" * 100_000}),
        "empty names": '{"": "", " ": " ", "caption": "a square"}',
    }
    for name, text in good.items():
        yield name, text.encode("utf-8", "surrogatepass"), (READ,)
    yield "UTF-16", '{"caption": "a"}'.encode("utf-16"), (READ, INVALID_JSON, NOT_UTF8)
    invalid = {
        "empty": b"",
        "cut": b'{"caption": "a red squ',
        "trailing comma": b'{"caption": "a",}',
        "single quotes": b"{'caption': 'a'}",
        "two objects": b'{"caption": "a"}\n{"caption": "b"}',
        "not UTF-8": b'{"caption": "gr\xfcn"}',
        "list": b'[{"caption": "a"}]',
        "text": b'"a red square"',
        "number": b"7",
        "null": b"null",
        "nested 300 deep": b'{"caption": "a", "more": ' + b"[" * 300 + b"]" * 300 + b"}",
        "nested 100,000 deep": b'{"caption": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        "a number of 10,000 digits": b'{"number": ' + b"9" * 10_000 + b"}",
        "NULs": bytes(100),
    }
    for name, data in invalid.items():
        yield name, data, (INVALID_JSON,)
    wrong = {
        "caption is a number": '{"caption": 7}',
        "caption is an object": '{"caption": {"en": "a"}}',
        "captions of several types": '{"captions": ["a", 7, null]}',
        "label is a list": '{"label": ["a"]}',
        "label is a fraction": '{"label": 1.5}',
        "label is true": '{"label": true}',
        "tags are an object": '{"tags": {"a": 1}}',
    }
    for name, text in wrong.items():
        yield name, text.encode(), (WRONG_TYPE,)
