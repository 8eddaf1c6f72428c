"""Whether an index is what was written: every byte of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import SearchIndexError
from diptych.search.building.writer import is_thumbnail
from diptych.search.manifest import read_manifest, tables_of
from diptych.search.stores.connect import connected
from diptych.search.stores.protocol import Database


@dataclass(frozen=True, slots=True)
class Verified:
    """What was read, and found as it was written."""

    files: int  # of tables, compared with their hashes; in a bucket and in PostgreSQL, which have their own, none
    pictures: int
    thumbnails: int


def verify(place: str | Path | Database, options: Mapping[str, str] | None = None) -> Verified:
    """Read all of an index and compare it with the hashes that were recorded when it was written.

    Writers are kept away meanwhile, where the place can do that.

    Raises:
        SearchIndexError: something is not what was written, or missing; the message names it.
    """
    with connected(place, options) as database:
        if (manifest := read_manifest(database)) is None:
            raise SearchIndexError(f"{database.place}: no index here; check the address")
        tables = [table.name for table in tables_of(manifest)]
        with database.writing():
            files = database.verify(tables)
            counts = [_pictures(database, name) for name in tables]
    pictures, thumbnails = map(sum, zip(*counts, strict=True))
    return Verified(files, pictures, thumbnails)


def _pictures(database: Database, table: str) -> tuple[int, int]:
    """How many pictures a table has, and how many of them a thumbnail, each of which is compared."""
    pictures = thumbnails = 0
    for rows in database.open(table).scroll(("uri", "thumbnail")):
        pictures += len(rows["uri"])
        for uri, thumbnail in zip(rows["uri"], rows["thumbnail"], strict=True):
            if thumbnail and not is_thumbnail(thumbnail, database.thumbnail(thumbnail)):
                raise SearchIndexError(
                    f"{database.place}: the thumbnail {thumbnail} of {uri} is damaged or missing; restore it from a "
                    f"copy, or embed everything again: diptych index SOURCE --index {database.place} --rebuild"
                )
            thumbnails += bool(thumbnail)
    return pictures, thumbnails
