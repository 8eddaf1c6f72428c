"""Texts that are not valid Unicode, in tables that hold nothing else.

Linux file names are bytes. Python keeps those that are not UTF-8 as lone surrogates, which JSON can escape
(`diptych.atomic.escaped`) and tables (Parquet, LanceDB, PostgreSQL) cannot hold; nor can all of those hold NUL.
"""

import contextlib
import os
from collections.abc import Iterator

# Both move to places of the private plane 16, where no assigned character is, and back.
_MOVED = 0x100000
_TO_STORED = {0: _MOVED} | {code: _MOVED + code for code in range(0xD800, 0xE000)}
_FROM_STORED = {stored: code for code, stored in _TO_STORED.items()}


@contextlib.contextmanager
def utf8_address(path: str | os.PathLike[str]) -> Iterator[str]:
    """Yield an address of a file or folder for libraries that take UTF-8 alone, such as those written in Rust.

    It is the path itself, or for one that is not UTF-8, that of an open descriptor (Linux), until the body ends.
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
    """`text` as a table can hold it."""
    return text if text.isascii() and "\0" not in text else text.translate(_TO_STORED)


def original(text: str) -> str:
    """What `stored` was given."""
    return text if text.isascii() else text.translate(_FROM_STORED)
