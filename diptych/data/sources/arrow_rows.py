"""Turn rows of Arrow tables into examples: of Parquet, and of datasets saved by the `datasets` library."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diptych.data.example import Example
from diptych.data.files.places import Place, image_at
from diptych.data.sources.columns import (
    Columns,
    choose_columns,
    example_from_row,
    image_path,
    remarks_on_cells,
)
from diptych.data.sources.image_root import find_image_root
from diptych.data.sources.row_keys import Integers, NamedPaths, content_key, path_key
from diptych.errors import DataError

Row = Mapping[str, Any]

_PATHS_OR_IMAGES = ("string", "large_string", "binary", "large_binary")


@dataclass(frozen=True)
class ArrowRows:
    """The rule that turns the rows of a table into examples.

    names: the columns of the table.
    chosen: the columns of the image, the caption and the label.
    label_names: the names of numbered labels, if the `datasets` library left them in the schema.
    folder: the folder that paths in the image column are relative to.
    earlier: how many earlier rows name the same path as each row; see `NamedPaths`.
    remarks: what a user should know about how the table is read, one sentence each.
    """

    names: Sequence[str]
    chosen: Columns
    label_names: Sequence[str]
    folder: Place
    earlier: Integers
    remarks: tuple[str, ...] = ()

    def example(self, position: int, row: Mapping[str, Any], where: str) -> Example:
        """Return the example of a row. Raises DataError, with `where`, for a missing image."""
        row = dict(row)
        cell = row[self.chosen.image or ""]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes):
            image: Path | bytes = cell
            key = content_key(cell)
        else:
            image = image_at(image_path(cell, self.folder, where), where, self.folder)
            key = path_key(str(cell), self.earlier, position)
        label = row.get(self.chosen.label or "")
        numbered = isinstance(label, int | float) and not isinstance(label, bool)
        if numbered and label in range(len(self.label_names)):
            row[self.chosen.label or ""] = self.label_names[int(label or 0)]
        return example_from_row(key, image, row, self.chosen, where)


def arrow_rows(
    schema: Any,
    wanted: Columns,
    table: Place,
    *,
    beside: Place,
    image_root: Place | None,
    first_rows: Callable[[Sequence[str]], Sequence[Row]],
    cells_of: Callable[[str], Iterable[Any]],
) -> ArrowRows:
    """Decide how the rows of a table with this pyarrow schema become examples.

    table: its name in messages. beside: the folder that it lies in. image_root: the folder that paths in the image
    column are relative to; found if not given. first_rows: returns some rows, with the given columns alone. cells_of:
    returns the cells of a column.

    Raises:
        DataError: as in `choose_columns`; or the image column holds neither paths nor encoded images.
    """
    names = list(schema.names)
    chosen = choose_columns(names, wanted, str(table))
    kind = schema.field(chosen.image).type
    # Types are compared by name, so that this file does not need pyarrow.
    fields = (
        {kind.field(number).name for number in range(kind.num_fields)} if hasattr(kind, "field") else set()
    )
    if not (fields & {"bytes", "path"} or str(kind) in _PATHS_OR_IMAGES):
        raise DataError(
            f"{table}: the image column {chosen.image!r} has the type {kind}; expected "
            "paths, encoded images, or a struct of `bytes` and `path`; "
            "choose another with image_column (--image-column)"
        )
    # In a struct of both, the bytes give the key; a rare row without bytes has the plain path as its key.
    images_inside = "bytes" in fields or "binary" in str(kind)
    paths = chosen.image if str(kind) in ("string", "large_string") else None
    looked_at = [name for name in (paths, chosen.caption, chosen.label) if name is not None]
    rows = first_rows(looked_at) if looked_at else []
    cells = [row.get(paths or "") for row in rows]
    named = [
        (f"{table}, row {number:,}", cell.strip())
        for number, cell in enumerate(cells, 1)
        if isinstance(cell, str) and cell.strip()
    ]
    root = find_image_root(str(table), beside, image_root, named)
    remarks = (f"{table}: {remark}" for remark in remarks_on_cells(rows, chosen))
    return ArrowRows(
        names,
        chosen,
        _label_names(schema, chosen.label),
        root.folder,
        NamedPaths().earlier() if images_inside else _earlier(cells_of(chosen.image or "")),
        (*root.remarks, *remarks),
    )


def _earlier(cells: Iterable[Any]) -> Integers:
    named = NamedPaths()
    for cell in cells:
        path = cell.get("path") if isinstance(cell, dict) else cell
        named.add(path if isinstance(path, str) else "")
    return named.earlier()


def _label_names(schema: Any, label: str | None) -> list[str]:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
