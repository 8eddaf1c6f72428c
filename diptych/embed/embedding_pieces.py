"""Split one embedding job among independent processes: each writes a piece, and the last joins them.

Piece i of n has the rows of one stretch of the source, so that the pieces in order are the whole. A piece appears only
when it is whole, and records its model and its data. So a restarted process whose piece exists has nothing to do.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from diptych.data.left_out import LeftOut, all_left_out
from diptych.embed.embedding_files import (
    About,
    EmbeddingsFile,
    EmbeddingSummary,
    Part,
    noting,
    write_embeddings,
    write_parquet,
)
from diptych.embed.encode import Progress
from diptych.errors import DataError, SettingsError


@dataclass(frozen=True, slots=True)
class Shard:
    """Piece `index` of `count`; the first has the index 0."""

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise SettingsError(
                f"shard {self.index} of {self.count}: expected 0 to {self.count - 1}; the first shard is 0"
            )

    def positions(self, rows: int) -> range:
        """Return its stretch of a source of `rows` rows; the lengths of two stretches differ by at most 1."""
        return range(rows * self.index // self.count, rows * (self.index + 1) // self.count)

    def file(self, out: Path) -> Path:
        """Return the path of its piece of the file `out`: beside it, and always Parquet."""
        return out.with_name(f"{out.stem}-{self.index:05}-of-{self.count:05}.parquet")


def write_shard(
    out: Path,
    shard: Shard,
    embed: Callable[[], Iterable[Part]],
    *,
    dim: int,
    about: About,
    progress: Progress | None = None,
) -> EmbeddingSummary:
    """Write one piece of `out`; nothing is embedded if the piece exists.

    A piece may have no rows, if there are fewer images than pieces, or if none can be read.

    Raises:
        SettingsError: the existing piece was made with another model or other data.
    """
    target, about = shard.file(out), about | {"shard": [shard.index, shard.count]}
    if target.exists():
        found = EmbeddingsFile(target)
        if found.about != about:
            raise SettingsError(
                f"{target}: was made with {_describe(found.about)}, not with {_describe(about)}; remove it, or "
                "choose another --out"
            )
        return EmbeddingSummary(len(found), found.dim, found.skipped)
    skipped = LeftOut()
    count, dim = write_parquet(target, noting(embed(), skipped, progress), dim, about, skipped)
    return EmbeddingSummary(count, dim, skipped)


def missing_shards(out: Path, count: int) -> list[int]:
    """Return the indices of the pieces of `out` that do not exist yet."""
    return [index for index in range(count) if not Shard(index, count).file(out).exists()]


def join_shards(out: Path, count: int) -> EmbeddingSummary:
    """Join the pieces into `out`, which appears only when it is whole. The pieces stay.

    Two processes may do this at the same time: both write the same file.

    Raises:
        DataError: a piece is missing or damaged, or no piece has a row.
        SettingsError: two were made with different models or data.
    """
    pieces = [EmbeddingsFile(Shard(index, count).file(out)) for index in range(count)]
    whole = _without_shard(pieces[0].about)
    for piece in pieces:
        if _without_shard(piece.about) != whole or piece.dim != pieces[0].dim:
            raise SettingsError(
                f"{piece.path}: was made with {_describe(piece.about)}, but {pieces[0].path} with "
                f"{_describe(whole)}; remove the wrong one and embed it again"
            )
    skipped = all_left_out(piece.skipped for piece in pieces)
    if not sum(map(len, pieces)):
        raise DataError(f"{out}: none of its {count} pieces has an embedding; skipped: {dict(skipped)}")
    return write_embeddings(out, _rows(pieces), about=whole, left_out=skipped)


def _rows(pieces: list[EmbeddingsFile]) -> Iterator[Part]:
    for piece in pieces:
        yield from piece.parts()


def _without_shard(about: About) -> About:
    return {name: value for name, value in about.items() if name != "shard"}


def _describe(about: About) -> str:
    """Describe the model and the data, with the fingerprints that distinguish equal names."""
    model, source = (str(about.get(name, "?"))[:12] for name in ("fingerprint", "source_fingerprint"))
    return f"the model {about.get('model')!r} ({model}) and the data {about.get('source')!r} ({source})"
