"""Embed a source into a file, whole or one piece of it, here or on the workers of a Ray cluster."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from diptych.data.images.transforms import Preprocess
from diptych.data.left_out import LeftOut, all_left_out, left_out_of
from diptych.data.sources.opening import Source
from diptych.embed.embedding_files import About, EmbeddingSummary, Part, part_of, write_embeddings
from diptych.embed.embedding_pieces import Shard, join_shards, missing_shards, write_shard
from diptych.embed.encode import Progress
from diptych.embed.on_ray import Load, embed_on_ray
from diptych.embed.source_rows import embed_source
from diptych.models.image_model import ImageModel

EmbedRows = Callable[[range], Iterable[Part]]  # embeds the rows of a source at these positions


@dataclass(frozen=True)
class EmbeddingResult:
    """What `embed_to_file` wrote.

    file: the whole, or the piece that was asked for, of which `written` has the size. missing: the pieces that do not
    exist yet. joined: the whole, where this call had the last piece. left_out: the rows without an embedding.
    """

    file: Path
    written: EmbeddingSummary
    left_out: LeftOut
    missing: list[int]
    joined: EmbeddingSummary | None = None


def rows_here(model: ImageModel, preprocess: Preprocess, source: Source, batch_size: int) -> EmbedRows:
    """Return what embeds rows of a source in this process, with the SHA-256 of each image."""

    def embed(positions: range) -> Iterable[Part]:
        batches = embed_source(
            model, preprocess, source, positions=positions, batch_size=batch_size, hashes=True
        )
        return map(part_of, batches)

    return embed


def rows_on_ray(load: Load, source: Source, batch_size: int, workers: int | None) -> EmbedRows:
    """Return what embeds rows of a source on Ray; see `embed_on_ray`."""

    def embed(positions: range) -> Iterable[Part]:
        return embed_on_ray(load, source, positions=positions, batch_size=batch_size, workers=workers)

    return embed


def embed_to_file(
    source: Source,
    out: Path,
    embed: EmbedRows,
    *,
    about: About,
    dim: int,
    shard: Shard | None = None,
    progress: Progress | None = None,
) -> EmbeddingResult:
    """Write the embeddings of a source to `out`, or one piece of them beside it; the last piece writes the whole too.

    dim: of the vectors. about: see `write_embeddings`.

    Raises:
        SettingsError: the name of `out` has another ending, or an existing piece was made with another model or data.
        DataError: no image could be read.
    """
    if shard is None:
        written = write_embeddings(out, embed(range(len(source))), about=about, progress=progress)
        return EmbeddingResult(out, written, all_left_out([left_out_of(source), written.skipped]), [])
    rows = partial(embed, shard.positions(len(source)))
    written = write_shard(out, shard, rows, dim=dim, about=about, progress=progress)
    missing = missing_shards(out, shard.count)
    whole = None if missing else join_shards(out, shard.count)
    return EmbeddingResult(shard.file(out), written, written.skipped, missing, whole)
