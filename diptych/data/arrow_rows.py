"""Examples from the rows of Arrow tables: Parquet, and what the `datasets` library saves."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diptych.data.columns import Columns, choose_columns, example_from_row, image_path
from diptych.data.example import Example
from diptych.data.places import Place, image_at
from diptych.errors import DataError

_PATHS_OR_IMAGES = ("string", "large_string", "binary", "large_binary")


@dataclass(frozen=True)
class ArrowRows:
    """How the rows of a table become examples.

    names: the columns of the table.
    chosen: which of them hold what.
    label_names: the names behind numbered labels, where the `datasets` library left them in the schema.
    folder: what paths in the image column are relative to.
    """

    names: Sequence[str]
    chosen: Columns
    label_names: Sequence[str]
    folder: Place

    def example(self, position: int, row: Mapping[str, Any], where: str) -> Example:
        """The example of a row; DataError, with `where`, for an image that is not there."""
        row = dict(row)
        cell = row[self.chosen.image or ""]
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        key, image = str(position), cell
        if not isinstance(cell, bytes):
            place = image_path(cell, self.folder, where)
            key, image = f"{position}:{place.name}", image_at(place, where, self.folder)
        label = row.get(self.chosen.label or "")
        if self.label_names and isinstance(label, int) and 0 <= label < len(self.label_names):
            row[self.chosen.label or ""] = self.label_names[label]
        return example_from_row(key, image, row, self.chosen, where)


def arrow_rows(schema: Any, wanted: Columns, table: Place, folder: Place) -> ArrowRows:
    """How the rows of a table with this pyarrow schema become examples.

    table: for messages. folder: what paths in the image column are relative to.

    Raises:
        DataError: see `choose_columns`; or the image column holds neither paths nor encoded images.
    """
    names = list(schema.names)
    chosen = choose_columns(names, wanted, str(table))
    kind = schema.field(chosen.image).type
    # By name, so that this file needs no pyarrow.
    fields = (
        {kind.field(number).name for number in range(kind.num_fields)} if hasattr(kind, "field") else set()
    )
    if not (fields & {"bytes", "path"} or str(kind) in _PATHS_OR_IMAGES):
        raise DataError(
            f"{table}: the image column {chosen.image!r} has the type {kind}; expected "
            "paths, encoded images, or a struct of `bytes` and `path`; "
            "choose another with image_column (--image-column)"
        )
    return ArrowRows(names, chosen, _label_names(schema, chosen.label), folder)


def _label_names(schema: Any, label: str | None) -> list[str]:
    try:
        features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):
        return []
    return [str(name) for name in names] if isinstance(names, list) else []
