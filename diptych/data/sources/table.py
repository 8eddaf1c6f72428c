"""Read CSV, TSV and JSONL tables by the byte offsets of their rows (Parquet has a file of its own).

A row is an example: a column with the image's path, relative to the table's folder, and columns with a caption or a
label. A table is read once when it is opened, so that a broken row is an early error with its line number. Afterwards
only the byte offsets of the rows are held in memory.
"""

import contextlib
import csv
import functools
import hashlib
import io
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from diptych.data.example import Example, parse_record
from diptych.data.files.places import Place, image_at, read_range, stream
from diptych.data.files.remote import RemotePath
from diptych.data.left_out import LeftOut
from diptych.data.sources.columns import (
    Columns,
    choose_columns,
    described_columns,
    example_from_row,
    image_path,
    remarks_on_cells,
)
from diptych.data.sources.image_root import find_image_root, spread
from diptych.data.sources.row_keys import Integers, NamedPaths, path_key
from diptych.data.sources.storage import Version
from diptych.errors import DataError, SettingsError

_LARGEST_FIELD = 1 << 26  # characters; a longer field is a quote that was never closed
_DELIMITERS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
_LOOKED_AT = 1000  # rows whose image files `describe` looks for

Row = dict[str, Any]


@dataclass(frozen=True)
class Rows:
    """The positions of the rows of a text table.

    columns: their names, in order.
    form: the form of the table, for messages.
    starts: the byte offset of every row, and the end of the last one.
    lines: the number of the first line of every row, from 1.
    sha256: of the text.
    version: of the file.
    parse: returns a row's cells by column, from its text and its place; raises DataError if it is broken.
    earlier: how many earlier rows name the same image as each row; see `NamedPaths`.
    broken: the numbers of the broken lines.
    """

    columns: Sequence[str]
    form: str
    starts: "array[int]"
    lines: "array[int]"
    sha256: str
    version: Version
    parse: Callable[[str, str], Row]
    earlier: Integers
    broken: Sequence[int] = ()


class TextTable:
    """The examples of a text table.

    image_root: the folder that image paths are relative to; found if not given (`find_image_root`).

    Attributes:
        left_out: empty, with remarks on how the table is read: broken rows are left out as they are read.
    """

    def __init__(self, path: Place, rows: Rows, chosen: Columns, image_root: Place | None = None) -> None:
        if not rows.lines:
            raise DataError(f"{path}: no rows below the column names; expected one row per image")
        self.name = str(path)
        self.fingerprint = rows.sha256
        self._path = path
        self._rows = rows
        self._chosen = chosen
        # On a server, each check is a request.
        sample = range(min(len(self), 20)) if isinstance(path, RemotePath) else spread(len(self))
        looked_at = self._whole_rows(sample)
        root = find_image_root(self.name, path.parent, image_root, self._named_images(looked_at))
        self._root = root.folder
        found = remarks_on_cells([row for _, row in looked_at], chosen)
        self.left_out = LeftOut((*root.remarks, *(f"{path}: {remark}" for remark in found)))

    def __len__(self) -> int:
        return len(self._rows.lines)

    def __getitem__(self, position: int) -> Example:
        if not 0 <= position < len(self):
            raise IndexError(position)
        where = self._where(position)
        row = self._row(position)
        named = row.get(self._chosen.image or "")
        path = image_path(named, self._root, where)
        image = image_at(path, where, self._root)
        key = path_key(str(named), self._rows.earlier, position)
        return example_from_row(key, image, row, self._chosen, where)

    def describe(self) -> str:
        """Summarise what was found in a few lines; the images of the first thousand rows are looked for."""
        lines = [
            f"{self.name}: {len(self):,} rows, {self._rows.form}",
            described_columns(self._rows.columns, self._chosen),
            *(remark.removeprefix(f"{self.name}: ") for remark in self.left_out.remarks),
        ]
        broken = self._rows.broken
        if broken:
            count = f"{len(broken):,} of {len(self):,} rows cannot be read and are left out"
            lines.append(f"{count}; the first is line {broken[0]:,}")
        # On a server, each check is a request.
        if not isinstance(self._root, RemotePath):
            looked_at = self._named_images(self._whole_rows(range(min(len(self), _LOOKED_AT))))
            missing = sum(not os.path.isfile(str(self._root / named)) for _, named in looked_at)
            if missing:
                lines.append(f"missing images: {missing:,} of the first {len(looked_at):,} rows")
        return "\n".join(lines)

    def _whole_rows(self, positions: Iterable[int]) -> list[tuple[str, Row]]:
        """Return the rows at `positions` with their places, without the broken ones."""
        rows = []
        for position in positions:
            with contextlib.suppress(DataError):
                rows.append((self._where(position), self._row(position)))
        return rows

    def _named_images(self, rows: Sequence[tuple[str, Row]]) -> list[tuple[str, str]]:
        return [(where, str(row.get(self._chosen.image or "")).strip()) for where, row in rows]

    def _where(self, position: int) -> str:
        return f"{self._path}, line {self._rows.lines[position]:,}"

    def _row(self, position: int) -> Row:
        starts = self._rows.starts
        data = read_range(
            self._path, starts[position], starts[position + 1] - starts[position], self._rows.version
        )
        return self._rows.parse(data.decode("utf-8"), self._where(position))


def open_csv(
    path: Place, wanted: Columns, delimiter: str | None, image_root: Place | None = None
) -> TextTable:
    """Open a table whose first line names the columns; fields are quoted with `"` as in RFC 4180.

    Raises:
        DataError: as in `choose_columns`; or a row has more or fewer fields than there are columns, a quote is never
            closed, or the text is not UTF-8. Names the line.
        SettingsError: the delimiter is not one character.
    """
    # The limit belongs to the `csv` module, for the whole process; its default of 131,072 characters is too small for
    # some captions.
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_FIELD))
    delimiter = _find_delimiter(path, wanted) if delimiter is None else delimiter.replace("\\t", "\t")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise SettingsError(f"delimiter {delimiter!r}: expected one character, such as ',' or ';' or a tab")
    starts, numbers, named = array("q"), array("q"), NamedPaths()
    with lines_of(path) as lines:
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        columns = _next_row(reader, lines) or []
        chosen = choose_columns(columns, wanted, str(path))
        image = columns.index(chosen.image or "")
        while True:
            start, number = lines.position, lines.count + 1
            row = _next_row(reader, lines)
            if row is None:
                break
            # Spreadsheets leave empty rows at the end of a table.
            if any(map(str.strip, row)):
                where = f"{path}, line {number:,}"
                if len(_without_surplus(row, len(columns))) != len(columns):
                    raise DataError(
                        f"{where}: {len(row)} fields, but there are {len(columns)} columns "
                        f'({", ".join(map(repr, columns))}); put text that holds {delimiter!r} in "quotes"'
                    )
                image_path(row[image], path.parent, where)
                named.add(row[image])
                starts.append(start)
                numbers.append(number)
        starts.append(lines.position)
    form = f"columns divided by a {_DELIMITERS.get(delimiter, repr(delimiter))}"
    parse = functools.partial(_parse_csv, columns=tuple(columns), delimiter=delimiter)
    rows = Rows(columns, form, starts, numbers, lines.sha256, lines.version, parse, named.earlier())
    return TextTable(path, rows, chosen, image_root)


def open_jsonl(path: Place, wanted: Columns, image_root: Place | None = None) -> TextTable:
    """Open a table with one JSON object per line; its columns are the fields of all objects.

    Raises:
        DataError: as in `choose_columns`; or a line is not a JSON object, or has no image. Names the line.
    """
    starts, numbers, named = array("q"), array("q"), NamedPaths()
    columns: dict[str, None] = {}
    image = ""
    with lines_of(path) as lines:
        start = lines.position
        for text in lines:
            if text.strip():
                where = f"{path}, line {lines.count:,}"
                row = _parse_json(text, where)
                if not columns:
                    image = choose_columns(list(row), Columns(wanted.image), where).image or ""
                image_path(row.get(image), path.parent, where)
                named.add(row[image])
                columns |= dict.fromkeys(row)
                starts.append(start)
                numbers.append(lines.count)
            start = lines.position
        starts.append(start)
    chosen = (
        choose_columns(list(columns), Columns(image, wanted.caption, wanted.label), str(path))
        if columns
        else wanted
    )
    rows = Rows(
        list(columns),
        "one JSON object per line",
        starts,
        numbers,
        lines.sha256,
        lines.version,
        _parse_json,
        named.earlier(),
    )
    return TextTable(path, rows, chosen, image_root)


class Lines:
    """The lines of a UTF-8 file, counted in lines and in bytes, and hashed while they are read."""

    def __init__(self, file: BinaryIO, path: Place, version: Version) -> None:
        self.path = path
        self._file = file
        self._digest = hashlib.sha256()
        self.version = version
        start = file.read(3)
        if start.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise DataError(f"{path}: is UTF-16 text; save the table as UTF-8")
        self.position = 3 if start == b"\xef\xbb\xbf" else 0
        self.count = 0
        file.seek(self.position)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        data = self._file.readline()
        if not data:
            raise StopIteration
        self.position += len(data)
        self.count += 1
        self._digest.update(data)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.path}, line {self.count:,}: byte 0x{data[error.start]:02x} is not UTF-8; "
                "save the table as UTF-8"
            ) from None

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextlib.contextmanager
def lines_of(path: Place) -> Iterator[Lines]:
    """Open a text file as its lines. Raises DataError if it cannot be read, or is not UTF-8."""
    with stream(path) as (file, version):
        yield Lines(file, path, version)


def _next_row(reader: Iterator[list[str]], lines: Lines) -> list[str] | None:
    """Return the next row of a table, or None behind the last one; empty lines give empty rows."""
    line = lines.count + 1
    try:
        return next(reader, None)
    except csv.Error as error:
        raise DataError(
            f"{lines.path}, line {line:,}: this row cannot be read ({error}); a field that begins with a "
            'quote must end with one, and quotes inside it are doubled: "a ""red"" bicycle"'
        ) from None


def _find_delimiter(path: Place, wanted: Columns) -> str:
    """Return the delimiter that gives an image column and the most columns; the suffix decides a tie."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","

    def merit(delimiter: str) -> tuple[bool, int, bool]:
        with lines_of(path) as lines:
            try:
                columns = next(csv.reader(lines, delimiter=delimiter, strict=True), [])
            except csv.Error:
                columns = []
        try:
            choose_columns(columns, wanted, str(path))
        except DataError:
            return False, len(columns), delimiter == usual
        return True, len(columns), delimiter == usual

    return max(_DELIMITERS, key=merit)


def _parse_csv(text: str, where: str, columns: Sequence[str], delimiter: str) -> Row:
    row = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    return dict(zip(columns, _without_surplus(row, len(columns)), strict=True))


def _without_surplus(row: list[str], count: int) -> list[str]:
    """Return a row without empty cells beyond the columns, which spreadsheets leave at the ends of rows."""
    return row if any(map(str.strip, row[count:])) else row[:count]


def _parse_json(text: str, where: str) -> Row:
    return parse_record(text.encode("utf-8"), where)
