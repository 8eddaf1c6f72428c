"""An index that is open for questions: exact search over vectors on the disk."""

from pathlib import Path
from typing import Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

from diptych.atomic import sha256_of
from diptych.errors import SearchIndexError
from diptych.search.storage import Item, Manifest, open_vectors, read_manifest

# Rows that are brought to float32 at a time: 64 MB at 512 dimensions.
_CHUNK = 32_768

# Bytes that are searched for line ends at a time.
_BLOCK = 1 << 24

# A refresh may swap generations between reading the manifest and opening its files.
_ATTEMPTS = 5


class ModelIdentity(Protocol):
    """Which model an encoder has."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...


class Result(TypedDict):
    """One picture found. `score` is its cosine with the query, -1..1."""

    id: str
    uri: str
    score: float
    caption: str | None


class Index:
    """One generation of an index. It stays as it was opened while refreshes go on; open it again for news."""

    def __init__(self, folder: str | Path) -> None:
        """Open the index in `folder`.

        Raises:
            SearchIndexError: there is none, or it is damaged or of a later format.
        """
        self.folder = Path(folder)
        for attempt in range(_ATTEMPTS):
            self.manifest = self._manifest()
            try:
                self._vectors = open_vectors(self.folder, self.manifest)
                self._lines = _Lines(self.folder / self.manifest.items_name, self.manifest.count)
                return
            except FileNotFoundError as error:
                if attempt == _ATTEMPTS - 1:
                    raise self._missing(error) from None

    def __len__(self) -> int:
        return self.manifest.count

    def __getitem__(self, row: int) -> Item:
        return Item.from_line(self._lines[row])

    def _manifest(self) -> Manifest:
        manifest = read_manifest(self.folder)
        if manifest is None:
            raise SearchIndexError(
                f"{self.folder}: no index here; build one: diptych index SOURCE --index {self.folder}"
            )
        return manifest

    def _missing(self, error: FileNotFoundError) -> SearchIndexError:
        return SearchIndexError(f"{error.filename}: missing; build the index again in another folder")

    def require(self, model: ModelIdentity) -> None:
        """Nothing, for the model that filled the index; SearchIndexError, with what to run, for another."""
        if model.fingerprint != self.manifest.fingerprint:
            raise SearchIndexError(
                f"{self.folder}: was filled by the model {self.manifest.model!r} "
                f"({self.manifest.fingerprint[:12]}), not by {model.name!r} ({model.fingerprint[:12]}); use --model "
                f"{self.manifest.model}, or embed everything again: "
                f"diptych index SOURCE --index {self.folder} --model {model.name} --rebuild"
            )

    def search(
        self, query: NDArray[np.float32], *, count: int = 10, min_score: float | None = None
    ) -> list[Result]:
        """The `count` most similar pictures, best first, none below `min_score`.

        query: (dim,), unit length. Exact: every row is compared in float32. Of equal scores the
        first row comes first.
        """
        if query.shape != (self.manifest.dim,):
            raise ValueError(f"query of shape {query.shape}; expected ({self.manifest.dim},)")
        if count < 1:
            raise ValueError(f"count {count}: expected at least 1")
        rows, scores = np.empty(0, np.int64), np.empty(0, np.float32)
        for start in range(0, len(self), _CHUNK):
            chunk = self._vectors[start : start + _CHUNK].astype(np.float32) @ query
            scores = np.concatenate([scores, chunk])
            rows = np.concatenate([rows, np.arange(start, start + len(chunk))])
            if len(scores) > count:
                # Not argpartition: it would choose among equals at the edge as it likes.
                edge = np.partition(scores, -count)[-count]
                best = np.flatnonzero(scores >= edge)
                rows, scores = rows[best], scores[best]
        results = []
        for place in np.argsort(-scores, kind="stable")[:count]:
            score = float(scores[place])
            if min_score is not None and score < min_score:
                break
            item = self[int(rows[place])]
            results.append(Result(id=item.id, uri=item.uri, score=score, caption=item.caption))
        return results

    def verify(self) -> None:
        """Read everything and compare it with the recorded hashes.

        Raises:
            SearchIndexError: a file is not what was written; the message names it.
        """
        for name, expected in self.manifest.sha256.items():
            try:
                found = sha256_of(self.folder / name)
            except FileNotFoundError as error:
                raise self._missing(error) from None
            if found != expected:
                raise SearchIndexError(
                    f"{self.folder / name}: damaged: SHA-256 {found[:12]}..., expected {expected[:12]}...; "
                    "restore it from a copy, or build the index again in another folder"
                )


class _Lines:
    """The lines of a file by number, without holding the file in memory."""

    def __init__(self, file: Path, count: int) -> None:
        data = np.memmap(file, np.uint8, "r") if file.stat().st_size else np.empty(0, np.uint8)
        ends = [
            np.flatnonzero(data[at : at + _BLOCK] == ord("\n")) + at for at in range(0, len(data), _BLOCK)
        ]
        self._data = data
        self._ends = np.concatenate([np.array([-1]), *ends])
        if len(self._ends) - 1 != count or self._ends[-1] != len(data) - 1:
            raise SearchIndexError(
                f"{file}: {len(self._ends) - 1} lines; expected {count}; build the index again in another folder"
            )

    def __getitem__(self, row: int) -> bytes:
        return self._data[self._ends[row] + 1 : self._ends[row + 1]].tobytes()
