"""The rows that wait for the next commit of a refresh, and how they are written."""

import dataclasses
from dataclasses import dataclass, field

import numpy as np

from diptych.embed.source_rows import EmbeddedBatch
from diptych.errors import SearchIndexError
from diptych.search.building.catalogue import Catalogue
from diptych.search.building.writer import Writer
from diptych.search.stores.image_rows import Batch, Item


@dataclass(frozen=True)
class KnownVector:
    """The present `item` of an image whose vector is already in the index, under the id `origin`."""

    item: Item
    origin: str


@dataclass(frozen=True)
class PendingRows:
    """Rows that wait for a commit: images with a known vector, and embedded batches with their items."""

    known: list[KnownVector] = field(default_factory=list)
    embedded: list[tuple[list[Item], EmbeddedBatch]] = field(default_factory=list)

    @property
    def embedded_count(self) -> int:
        """Return the number of embedded images."""
        return sum(len(items) for items, _ in self.embedded)

    def mark_changes(self, catalogue: Catalogue) -> int:
        """Mark the rows whose vectors are about to change, so that no other image takes their old ones.

        Returns the number of embedded images that replace a row.
        """
        for one in self.known:
            row = catalogue.find(one.item.id)
            if row is not None and one.origin != one.item.id:
                catalogue.changed[row] = True
        rows = [
            row
            for items, _ in self.embedded
            for item in items
            if (row := catalogue.find(item.id)) is not None
        ]
        catalogue.changed[rows] = True
        return len(rows)

    def write(self, writer: Writer, catalogue: Catalogue) -> int:
        """Write all rows; return how many were embedded.

        Known vectors come first, because embedded images may replace the rows that have them.

        Raises:
            SearchIndexError: another writer removed a known vector meanwhile.
        """
        self._write_known(writer)
        if self.embedded:
            self._write_embedded(writer, catalogue)
        return self.embedded_count

    def _write_embedded(self, writer: Writer, catalogue: Catalogue) -> None:
        items: list[Item] = []
        thumbnails: list[bytes | None] = []
        for batch_items, batch in self.embedded:
            previews = batch.previews or (None,) * len(batch_items)
            for item, look in zip(batch_items, previews, strict=True):
                width, height = (0, 0) if look is None else (look.width, look.height)
                items.append(dataclasses.replace(item, width=width, height=height))
                thumbnails.append(None if look is None else look.thumbnail)
        vectors = np.concatenate([batch.vectors for _, batch in self.embedded]).astype(np.float16)
        replaced = [item.id for item in items if catalogue.find(item.id) is not None]
        writer.upsert(Batch(items, vectors), thumbnails, replaced=replaced)

    def _write_known(self, writer: Writer) -> None:
        store = writer.store
        if not self.known or store is None:
            return
        found = store.get([one.origin for one in self.known])
        places = {item.id: place for place, item in enumerate(found.items)}
        missing = next((one for one in self.known if one.origin not in places), None)
        if missing is not None:
            raise SearchIndexError(
                f"{missing.item.uri}: another writer removed its vector meanwhile; run the same command again"
            )
        items, thumbnails = [], []
        for one in self.known:
            old = found.items[places[one.origin]]
            items.append(dataclasses.replace(one.item, sha256=old.sha256, width=old.width, height=old.height))
            thumbnails.append(writer.thumbnail(old))
        vectors = found.vectors[[places[one.origin] for one in self.known]]
        writer.upsert(Batch(items, vectors), thumbnails, replaced=[item.id for item in items])
