"""Read and write the manifest of an index: its current table, and the model that filled it.

    index.json                  this
    images-000001.lance/        a table (of LanceDB, in a folder or a bucket; in PostgreSQL, tables of these names)
    images-000001.lance.sha256  the hashes of its files
    thumbnails/                 small copies of the images
    lock                        held by the one writer

An index that is rebuilt with another model grows in a second table, while the old table answers. Then one replacement
of the manifest makes it the current table, and the old table is deleted.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from diptych import config
from diptych.errors import SearchIndexError, SettingsError
from diptych.search.stores.filters import Filter, columns_of
from diptych.search.stores.image_rows import ADDED_COLUMNS
from diptych.search.stores.protocol import Database

FORMAT_VERSION = 3
# The previous format can be read, and the next writer upgrades it. Its tables lack columns.
_BEFORE = 2


class ModelIdentity(Protocol):
    """The name and the fingerprint of an encoder's model."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class Embedder(ModelIdentity, Protocol):
    """A model as an index records it."""

    @property
    def dim(self) -> int: ...


@dataclass(frozen=True)
class Table:
    """One table, and the model that filled it."""

    name: str
    model: str  # its name, for messages
    fingerprint: str  # of the model; vectors of different fingerprints are never mixed
    dim: int


@dataclass(frozen=True)
class Manifest:
    """The content of `index.json`."""

    format_version: int
    current: Table
    next: Table | None = None  # being filled, to replace `current`
    serial: int = 1  # of the newest table; never used again
    writing: bool = False  # a writer has begun and not finished: it may have left thumbnails without rows
    # By source and reason: the number of images that the last refresh left out.
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)


def read_manifest(database: Database) -> Manifest | None:
    """Read the manifest of an index; None if there is none.

    Raises:
        SearchIndexError: it is damaged, or of another format.
    """
    where = f"{database.place}: index.json"
    text = database.read_manifest()
    if text is None:
        return None
    try:
        values = json.loads(text)
    except ValueError as error:
        raise SearchIndexError(f"{where}: is damaged ({error}); {_REMEDY}") from None
    version = values.get("format_version") if isinstance(values, dict) else None
    if version == 1:
        raise SearchIndexError(
            f"{where}: has format version 1, which this Diptych no longer reads: remove the folder, or choose "
            "another, and build the index again: diptych index SOURCE --index FOLDER"
        )
    if version not in (_BEFORE, FORMAT_VERSION):
        raise SearchIndexError(
            f"{where}: has format version {version!r}; this Diptych reads {_BEFORE} and {FORMAT_VERSION}; "
            "use the Diptych that wrote it, or build the index again in another folder"
        )
    if values.pop("check", None) != _check(values):
        raise SearchIndexError(f"{where}: is damaged: it does not match its own check sum; {_REMEDY}")
    try:
        return config.build(Manifest, values, where)
    except SettingsError as error:
        raise SearchIndexError(f"{error}; {_REMEDY}") from None


def write_manifest(database: Database, manifest: Manifest) -> Manifest:
    """Replace the manifest in one step; return `manifest`."""
    values = config.plain(manifest)
    text = json.dumps(values | {"check": _check(values)}, indent=2) + "\n"
    database.write_manifest(text.encode())
    return manifest


def next_table(manifest: Manifest | None, model: str, fingerprint: str, dim: int) -> tuple[Table, int]:
    """Return a table with a name that was never used in this index, and its serial number."""
    serial = 1 if manifest is None else manifest.serial + 1
    return Table(f"images-{serial:06}", model, fingerprint, dim), serial


def require(place: str, table: Table, model: ModelIdentity) -> None:
    """Check that `model` filled the table. Raises SearchIndexError, with the command to run, if it did not."""
    if model.fingerprint != table.fingerprint:
        raise SearchIndexError(
            f"{place}: was filled by the model {table.model!r} "
            f"({table.fingerprint[:12]}), not by {model.name!r} ({model.fingerprint[:12]}); use that model "
            f"(--model {table.model}, in Python model={table.model!r}), or embed everything again: "
            f"diptych index SOURCE --index {place} --model {model.name} --rebuild"
        )


def check_columns(place: str, manifest: Manifest, filter_: Filter | None) -> None:
    """Check that the index has the columns of a filter.

    Raises:
        SettingsError: the index is of an older format, whose tables lack a column of the filter.
    """
    if manifest.format_version == FORMAT_VERSION or filter_ is None:
        return
    if absent := sorted(columns_of(filter_) & ADDED_COLUMNS):
        raise SettingsError(
            f"filter, sort: {place} was written by an older Diptych, without {absent[0].removesuffix('_folded')}; "
            f"upgrade it first: diptych index SOURCE --index {place}"
        )


def tables_of(manifest: Manifest) -> list[Table]:
    """Return every table that an index needs."""
    return [manifest.current, *([manifest.next] if manifest.next else [])]


def drop_leftovers(database: Database, manifest: Manifest | None) -> None:
    """Delete tables that a killed writer left."""
    needed = {table.name for table in tables_of(manifest)} if manifest is not None else set()
    for name in database.names():
        if name not in needed:
            database.drop(name)


_REMEDY = "restore it from a copy, or build the index again in another folder"


def _check(values: dict[str, Any]) -> str:
    plain = json.dumps({key: value for key, value in values.items() if key != "check"}, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
