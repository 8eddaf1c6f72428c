"""Find images that are no longer in a source: deleted, or on a disk that is not mounted, which looks the same."""

import os
from collections import Counter
from collections.abc import Sequence

import numpy as np

from diptych.data.sources.opening import Source
from diptych.data.sources.stray_bytes import original
from diptych.errors import DataError, SearchIndexError
from diptych.search.building.catalogue import Catalogue
from diptych.search.building.origin import MissingSource, Origin, is_file_of
from diptych.search.manifest import read_manifest
from diptych.search.stores.connect import connected_database
from diptych.search.stores.filter_fields import condition
from diptych.search.stores.filters import Combination, Membership
from diptych.search.stores.protocol import VectorStore

# Without `force` a refresh never removes this many images and more than half of a source's images in the index. Fewer
# are a small loss if a disk was not mounted: the next refresh brings them back.
MOST_LOST = 10
_NAMED = 5  # lost images in messages
_CHUNK = 4096  # ids that are looked up in one call


class LostImagesError(SearchIndexError):
    """Most images of a source have vanished, and were kept in the index.

    source: as the index names it. count, total: the images that would be removed, and all images of the source in the
    index. first: the uris of the first images that would be removed.
    """

    def __init__(self, place: str, source: str, lost: Sequence[str], total: int) -> None:
        self.source, self.count, self.total, self.first = source, len(lost), total, tuple(lost[:_NAMED])
        names = ", ".join(self.first) + (", ..." if len(lost) > _NAMED else "")
        super().__init__(
            f"{source}: {len(lost):,} of its {total:,} images in the index {place} no longer exist: {names}; they stay "
            "in the index; mount or restore the source, or, to remove them, add --force (in Python: force=True)"
        )


def gone_rows(catalogue: Catalogue, origin: Origin) -> list[int]:
    """Return the rows whose image the source no longer has, and in overlapping sources those whose file is gone.

    `catalogue.seen` marks the rows that the source has.
    """
    gone = catalogue.of_source(origin.name) & ~catalogue.seen
    store = catalogue.store
    if store is None:
        return []
    for name, folder in origin.overlapping():
        inside = Combination(
            "all", (condition("source", "=", name), condition("uri", "starts", f"{folder}{os.sep}"))
        )
        for found in store.scroll(("id", "uri"), filter_=inside):
            for id_, uri in zip(found["id"], found["uri"], strict=True):
                row = catalogue.find(id_)
                if row is not None and not catalogue.seen[row]:
                    gone[row] = not os.path.lexists(original(uri))
    return [int(row) for row in np.flatnonzero(gone)]


def check_lost(place: str, catalogue: Catalogue, rows: Sequence[int]) -> None:
    """Refuse to remove rows if they are most of a source and their images have vanished.

    A file that still exists in its folder, but that the source skips, has not vanished.

    Raises:
        LostImagesError: they are 10 or more, and more than half of a source's images in the index.
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
            raise LostImagesError(place, source, lost, total)


def check_replaced(place: str, store: VectorStore, source: str) -> None:
    """Check the same for a table that is about to be replaced by one with only the present images of the source.

    Raises:
        LostImagesError: as `check_lost`.
    """
    uris = _uris_of(store, source)
    lost = [uri for uri in uris if is_file_of(uri, source) and not os.path.lexists(uri)]
    if len(lost) >= MOST_LOST and 2 * len(lost) > len(uris):
        raise LostImagesError(place, source, lost, len(uris))


def without_source(place: str, name: str, error: DataError, *, force: bool) -> Source:
    """Return an empty source in place of one that cannot be opened, so that a refresh removes its images.

    place: of the index. name: of the source. error: raised when the source was opened.

    Raises:
        LostImagesError: the index has images of it, and `force` is off.
        DataError: `error` itself, if the index has no such images, or if there is no index.
    """
    gone = MissingSource(name)
    with connected_database(place) as database:
        manifest = read_manifest(database)
        if manifest is None:
            raise error
        store = database.open(manifest.current.name)
        source = Origin(gone, Catalogue(store).sources).name
        uris = _uris_of(store, source)
    if not uris:
        raise error
    if not force:
        raise LostImagesError(place, source, uris, len(uris)) from error
    return gone


def _uris_of(store: VectorStore, source: str) -> list[str]:
    found = store.scroll(("uri",), filter_=condition("source", "=", source))
    return sorted(original(uri) for rows in found for uri in rows["uri"])


def _uris(store: VectorStore, ids: Sequence[str]) -> list[str]:
    found: list[str] = []
    for start in range(0, len(ids), _CHUNK):
        chosen = Membership("id", tuple(ids[start : start + _CHUNK]))
        for rows in store.scroll(("uri",), filter_=chosen):
            found += map(original, rows["uri"])
    return sorted(found)
