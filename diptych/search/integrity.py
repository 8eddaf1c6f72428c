"""Verify every byte of an index."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diptych.errors import SearchIndexError
from diptych.search.building.writer import is_thumbnail
from diptych.search.manifest import read_manifest, tables_of
from diptych.search.stores.connect import connected_database
from diptych.search.stores.protocol import Database


@dataclass(frozen=True, slots=True)
class Verification:
    """The numbers of files, images and thumbnails that were read and are undamaged."""

    files: (
        int  # of tables, compared with their hashes; none in a bucket and in PostgreSQL, which have their own
    )
    images: int
    thumbnails: int


def verify(place: str | Path | Database, options: Mapping[str, str] | None = None) -> Verification:
    """Read all of an index, and compare it with the hashes that were recorded when it was written.

    Writers are locked out meanwhile, if the store can do that.

    Raises:
        SearchIndexError: something is damaged or missing; the message names it.
    """
    with connected_database(place, options) as database:
        if (manifest := read_manifest(database)) is None:
            raise SearchIndexError(f"{database.place}: no index here; check the address")
        tables = [table.name for table in tables_of(manifest)]
        with database.writing():
            files = database.verify(tables)
            counts = [_images(database, name) for name in tables]
    images, thumbnails = map(sum, zip(*counts, strict=True))
    return Verification(files, images, thumbnails)


def _images(database: Database, table: str) -> tuple[int, int]:
    """Count the images and the thumbnails of a table; each thumbnail is compared with its check sum."""
    images = thumbnails = 0
    for rows in database.open(table).scroll(("uri", "thumbnail")):
        images += len(rows["uri"])
        for uri, thumbnail in zip(rows["uri"], rows["thumbnail"], strict=True):
            if thumbnail and not is_thumbnail(thumbnail, database.thumbnail(thumbnail)):
                raise SearchIndexError(
                    f"{database.place}: the thumbnail {thumbnail} of {uri} is damaged or missing; restore it from a "
                    f"copy, or embed everything again: diptych index SOURCE --index {database.place} --rebuild"
                )
            thumbnails += bool(thumbnail)
    return images, thumbnails
