"""Sources: whatever people have, as a list of examples."""

import difflib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from diptych.data.columns import Columns
from diptych.data.example import IMAGE_SUFFIXES, Example
from diptych.data.folder import FolderSource, list_folder
from diptych.data.sample import sample_shard
from diptych.data.shards import ShardSource
from diptych.data.table import open_csv, open_jsonl
from diptych.errors import DataError, SettingsError

Location = str | os.PathLike[str]

_KINDS = (
    "expected a folder of images, a table (.csv, .tsv, .jsonl, .parquet), tar shards "
    "(shard.tar, 'shards/*.tar', 'shards/{000..003}.tar'), sample:train or sample:test"
)


class Source(Protocol):
    """Examples by number. Reading is safe from several threads, and a source can be sent to another process.

    Attributes:
        name: what was opened, for messages.
        fingerprint: 64 hexadecimal digits, equal for equal lists of examples; a run resumes only on the same.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Example:
        """One example; DataError where its files cannot be read, IndexError beyond the ends."""
        ...

    def describe(self) -> str:
        """What was found, and what was left out and why, in a few lines."""
        ...


def open_source(
    location: Location | Sequence[Location],
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
) -> Source:
    """Open a list of examples, whatever its form.

    location: a folder with captions beside the images or with a folder a class, a CSV, TSV, JSONL or Parquet
        table, tar shards (one, a folder or a list of them, or a pattern with `*` or `{000..003}`), or the
        bundled `sample:train` and `sample:test`.
    image_column, caption_column, label_column: columns of a table; found by their usual names where not
        given.
    delimiter: one character between the columns of a CSV or TSV table; found where not given.

    Raises:
        DataError: there is nothing to read, or it cannot be read as it stands.
        SettingsError: options of a table for something else.
    """
    columns = Columns(image_column, caption_column, label_column)
    if isinstance(location, str | os.PathLike):
        name = os.fspath(location)
        if os.path.isfile(name) and is_table(name):
            return _open_table(Path(name), columns, delimiter)
    else:
        name = ", ".join(os.fspath(item) for item in location)
    if delimiter is not None or columns != Columns():
        _check_exists(name)
        raise SettingsError(
            f"{name}: not a table, so it has no columns and no delimiter; leave those options out"
        )
    if not isinstance(location, str | os.PathLike):
        return _open_shards([path for item in location for path in expand(item)], name)
    if name.startswith("sample:"):
        return ShardSource([sample_shard(name.removeprefix("sample:"))], name=name, beside=False)
    if os.path.isdir(name):
        return _open_folder(Path(name))
    return _open_shards(expand(name), name)


def expand(location: Location) -> list[Path]:
    """The files that a path with `*`, `?`, `[...]`, `{a,b}` or `{000..003}` stands for.

    Braces keep their order and each alternative must exist, so that a missing shard is noticed; what a `*`
    finds is sorted by name. A file whose name has such characters stands for itself.

    Raises:
        DataError: no such file, or braces inside braces.
    """
    name = os.fspath(location)
    if os.path.exists(name):
        return [Path(name)]
    if re.search(r"\{[^}]*\{", name):
        raise DataError(f"{name}: braces inside braces are not read; give a list of patterns instead")
    paths: list[Path] = []
    for alternative in _braces(name):
        found = (
            [alternative] if os.path.exists(alternative) else sorted(glob.glob(alternative, recursive=True))
        )
        if not found:
            _check_exists(alternative)
        paths += map(Path, found)
    return paths


def is_table(path: Location) -> bool:
    """Whether a file is a table, by its suffix."""
    return Path(path).suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def _open_table(path: Path, columns: Columns, delimiter: str | None) -> Source:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return open_csv(path, columns, delimiter)
    if delimiter is not None:
        raise SettingsError(f"{path}: a delimiter is for .csv and .tsv tables; leave it out")
    if suffix == ".parquet":
        # Here, because pyarrow is an extra, and slow to import.
        from diptych.data.parquet import ParquetSource  # noqa: PLC0415

        return ParquetSource(path, columns)
    return open_jsonl(path, columns)


def _open_folder(folder: Path) -> Source:
    listing = list_folder(folder)
    shards = sorted(folder.glob("*.tar"))
    if shards and not len(listing.images):
        return ShardSource(shards, name=str(folder))
    return FolderSource(folder, listing)


def _open_shards(paths: Sequence[Path], name: str) -> Source:
    if not paths:
        raise DataError(f"an empty list of shards; {_KINDS}")
    for path in paths:
        suffix = path.suffix.lower().removeprefix(".")
        if suffix in IMAGE_SUFFIXES:
            raise DataError(f"{path}: one image, not a source; {_KINDS}")
        if is_table(path):
            raise DataError(f"{path}: tables are opened one at a time, by their full name; {_KINDS}")
        if suffix != "tar" and not path.name.lower().endswith(
            (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
        ):
            raise DataError(f"{path}: cannot tell what this is from its name; {_KINDS}")
    return ShardSource(paths, name=name)


def _check_exists(name: str) -> None:
    """DataError, with the nearest name that does exist, if a path does not."""
    if os.path.exists(name) or name.startswith("sample:") or glob.glob(name, recursive=True):
        return
    if glob.has_magic(name):
        raise DataError(f"{name}: no file matches this pattern")
    path = Path(name)
    names = os.listdir(path.parent) if path.parent.is_dir() else []
    nearest = difflib.get_close_matches(path.name, names, n=1)
    hint = f"did you mean {path.with_name(nearest[0])}?" if nearest else _KINDS
    raise DataError(f"{name}: no such file or folder; {hint}")


def _braces(pattern: str) -> Iterator[str]:
    """`a{b,c}d` and `a{00..02}d`, spelt out as a shell does; leading zeros set the width."""
    match = re.search(r"\{([^{}]*(?:,|\.\.)[^{}]*)\}", pattern)
    if match is None:
        yield pattern
        return
    before, after = pattern[: match.start()], pattern[match.end() :]
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        width = len(numbers[1]) if numbers[1].startswith("0") else 0
        step = 1 if first <= last else -1
        alternatives: Iterator[str] = (f"{number:0{width}}" for number in range(first, last + step, step))
    else:
        alternatives = iter(match[1].split(","))
    for alternative in alternatives:
        yield from _braces(before + alternative + after)
