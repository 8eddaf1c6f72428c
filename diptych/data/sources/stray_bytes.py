"""Store texts that are not valid Unicode in tables that allow only valid Unicode.

Linux file names are bytes. Python keeps those that are not UTF-8 as lone surrogates. JSON can escape them
(`diptych.atomic.escaped`), but tables (Parquet, LanceDB, PostgreSQL) cannot hold them, and some cannot hold NUL.
"""

import contextlib
import os
from collections.abc import Iterator

# Both are mapped to the private plane 16, which has no assigned characters, and back.
_MOVED = 0x100000
_TO_STORED = {0: _MOVED} | {code: _MOVED + code for code in range(0xD800, 0xE000)}
_FROM_STORED = {stored: code for code, stored in _TO_STORED.items()}


@contextlib.contextmanager
def utf8_address(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield an address of a file or folder for libraries that accept only UTF-8, such as those written in Rust.

    It is the path itself or, if that is not UTF-8, the path of an open descriptor (Linux), until the body ends.
    """
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        descriptor = os.open(name, os.O_RDONLY)
        try:
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        yield name


def stored(text: str) -> str:
    """Return `text` as a table can hold it."""
    return text if text.isascii() and "\0" not in text else text.translate(_TO_STORED)


def original(text: str) -> str:
    """Return the text that was given to `stored`."""
    return text if text.isascii() else text.translate(_FROM_STORED)
