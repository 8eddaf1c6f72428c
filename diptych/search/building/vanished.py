"""What is no longer in a source: deleted pictures, or a disk that is not mounted just now, which looks the same."""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from diptych.data.sources.opening import Source
from diptych.data.sources.stray_bytes import original
from diptych.errors import DataError, SearchIndexError
from diptych.search.building.catalogue import Catalogue
from diptych.search.building.origin import NoExamples, Origin, is_file_of
from diptych.search.manifest import read_manifest
from diptych.search.stores.connect import connected
from diptych.search.stores.filters import OneOf, Together, condition
from diptych.search.stores.protocol import VectorStore

# A refresh does not remove this many pictures and more than half of what the index has of a source, unless it is told
# to: whoever deletes fewer loses little if a disk was not mounted, and the next refresh brings them back.
MOST_LOST = 10
_NAMED = 5  # of the lost ones, in messages
_CHUNK = 4096  # ids that are looked up in one call


class LostPicturesError(SearchIndexError):
    """Most pictures of a source are no longer there, and were kept in the index.

    source: as the index names it. count, total: pictures that would go, and that the index has of the source.
    first: the uris of the first of those that would go.
    """

    def __init__(self, place: str, source: str, lost: Sequence[str], total: int) -> None:
        self.source, self.count, self.total, self.first = source, len(lost), total, tuple(lost[:_NAMED])
        names = ", ".join(self.first) + (", ..." if len(lost) > _NAMED else "")
        super().__init__(
            f"{source}: {len(lost):,} of the {total:,} pictures that the index {place} has of it are no longer there: "
            f"{names}; they stay in the index; mount or restore the source, or, if they shall go, add --force (in "
            "Python: force=True)"
        )


def gone_rows(catalogue: Catalogue, origin: Origin) -> list[int]:
    """The rows whose picture the source no longer has; of the sources that overlap with it, those whose file is gone.

    `catalogue.seen` marks the rows that the source has.
    """
    gone = catalogue.of_source(origin.name) & ~catalogue.seen
    store = catalogue.store
    if store is None:
        return []
    for name, folder in origin.overlapping():
        inside = Together(
            "all", (condition("source", "=", name), condition("uri", "starts", f"{folder}{os.sep}"))
        )
        for found in store.scroll(("id", "uri"), filter_=inside):
            for id_, uri in zip(found["id"], found["uri"], strict=True):
                row = catalogue.find(id_)
                if row is not None and not catalogue.seen[row]:
                    gone[row] = not os.path.lexists(original(uri))
    return [int(row) for row in np.flatnonzero(gone)]


def check_lost(place: str, catalogue: Catalogue, rows: Sequence[int]) -> None:
    """Refuse to remove the rows of pictures that are most of a source, and that are nowhere.

    A file that is still in its folder, and that the source passes over, was not lost.

    Raises:
        LostPicturesError: they are 10 or more, and more than half of what the index has of a source.
    """
    counts = Counter(int(catalogue.rows["source"][row]) for row in rows)
    for number, count in counts.items():
        source = catalogue.sources[number]
        total = int((catalogue.rows["source"] == number).sum())
        if count < MOST_LOST or 2 * count <= total or catalogue.store is None:
            continue
        ids = [catalogue.id_of(row) for row in rows if catalogue.rows["source"][row] == number]
        uris = _uris(catalogue.store, ids)
        lost = [uri for uri in uris if not (is_file_of(uri, source) and os.path.lexists(uri))]
        if len(lost) >= MOST_LOST and 2 * len(lost) > total:
            raise LostPicturesError(place, source, lost, total)


def check_replaced(place: str, store: VectorStore, source: str) -> None:
    """The same for a table that is about to be replaced by one that has only what the source has now.

    Raises:
        LostPicturesError: as `check_lost`.
    """
    uris = _uris_of(store, source)
    lost = [uri for uri in uris if is_file_of(uri, source) and not os.path.lexists(uri)]
    if len(lost) >= MOST_LOST and 2 * len(lost) > len(uris):
        raise LostPicturesError(place, source, lost, len(uris))


def without_source(place: str, name: str, error: DataError, *, force: bool) -> Source:
    """Return a source without pictures in place of one that cannot be opened, so that a refresh removes what the index
    at `place` has of it.

    name: of the source. error: what came in the way of opening it.

    Raises:
        LostPicturesError: the index has pictures of it, and `force` is off.
        DataError: the same `error`; the index has none, or there is no index.
    """
    gone = NoExamples(name)
    with connected(place) as database:
        manifest = read_manifest(database)
        if manifest is None:
            raise error
        store = database.open(manifest.current.name)
        source = Origin(gone, Catalogue(store).sources).name
        uris = _uris_of(store, source)
    if not uris:
        raise error
    if not force:
        raise LostPicturesError(place, source, uris, len(uris)) from error
    return gone


def _uris_of(store: VectorStore, source: str) -> list[str]:
    found = store.scroll(("uri",), filter_=condition("source", "=", source))
    return sorted(original(uri) for rows in found for uri in rows["uri"])


def _uris(store: VectorStore, ids: Sequence[str]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(ids), _CHUNK):
        chosen = OneOf("id", tuple(ids[start : start + _CHUNK]))
        for rows in store.scroll(("uri",), filter_=chosen):
            found += map(original, rows["uri"])
    return sorted(found)
