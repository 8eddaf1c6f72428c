"""`diptych embed`: a dataset as vectors."""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Device,
    Json,
    Model,
    Precision,
    SourcePlace,
    TableOptions,
)
from diptych.cli.output import emit, progress, say_left_out
from diptych.cli.threads import wait_without_spinning
from diptych.errors import UsageError
from diptych.weights.naming import DEFAULT_MODEL

if TYPE_CHECKING:
    from diptych.data.images.transforms import Preprocess
    from diptych.data.sources.opening import Source
    from diptych.embed.embedding_files import About, EmbeddingSummary, Part
    from diptych.embed.embedding_pieces import Shard
    from diptych.models.image_model import ImageModel

Embed = Callable[[range], "Iterable[Part]"]


def embed(
    source: SourcePlace,
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="A .parquet file, or an .npy file (with a .jsonl).")
    ],
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    engine: Annotated[
        Literal["local", "ray"], Parameter(help="ray: on the workers of a Ray cluster, or of this machine.")
    ] = "local",
    workers: Annotated[
        int | None, Parameter(help="Of Ray; one a GPU, or one for every two cores, when not given.")
    ] = None,
    num_shards: Annotated[
        int | None,
        Parameter(help="Embed one piece of so many; whoever finds all of them done joins them into --out."),
    ] = None,
    shard_index: Annotated[int | None, Parameter(help="Which piece: 0 is the first.")] = None,
    as_json: Json = False,
) -> None:
    """Write the embeddings of a dataset to Parquet or npy."""
    _check(engine, workers, num_shards, shard_index)
    wait_without_spinning()

    from diptych.cli.machine import load_model
    from diptych.data.left_out import all_left_out, left_out_of
    from diptych.data.sources.opening import open_source
    from diptych.embed.embedding_files import about, check_name, write_embeddings
    from diptych.embed.embedding_pieces import Shard
    from diptych.pretrained import fingerprint

    check_name(out)
    shard = None if num_shards is None or shard_index is None else Shard(shard_index, num_shards)
    rows = open_source(source, **vars(columns))
    name, network, preprocess = load_model(model, device, precision, activation)
    said = about(name, fingerprint(network, preprocess), rows)
    if engine == "ray":
        load = partial(_load, name, device, precision)
        embed_rows = partial(_on_ray, load, rows, batch_size, workers)
    else:
        embed_rows = partial(_here, network, preprocess, rows, batch_size)
    if shard is not None:
        dim = network.architecture.embed_dim
        _one_shard(out, shard, shard.positions(len(rows)), embed_rows, dim=dim, said=said, as_json=as_json)
        return
    with progress("embedding", len(rows)) as advance:
        written = write_embeddings(out, embed_rows(range(len(rows))), about=said, progress=advance)
    left_out = all_left_out([left_out_of(rows), written.skipped])
    say_left_out(left_out)
    if as_json:
        emit(_result(out, name, written) | {"left_out": left_out.to_json()})
    else:
        print(f"{out}: {written.count:,} vectors of {written.dim} dimensions")


def _one_shard(
    out: Path,
    shard: "Shard",
    positions: range,
    embed_rows: Embed,
    *,
    dim: int,
    said: "About",
    as_json: bool,
) -> None:
    """Write one piece, and where it was the last, the whole."""
    from diptych.embed.embedding_pieces import join_shards, missing_shards, write_shard

    with progress("embedding", len(positions)) as advance:
        written = write_shard(
            out, shard, lambda: embed_rows(positions), dim=dim, about=said, progress=advance
        )
    say_left_out(written.skipped)
    missing = missing_shards(out, shard.count)
    whole = None if missing else join_shards(out, shard.count)
    piece = shard.file(out)
    if as_json:
        joined = None if whole is None else _result(out, said["model"], whole)
        emit(_result(piece, said["model"], written) | {"missing": missing, "joined": joined})
        return
    print(f"{piece}: {written.count:,} vectors of {written.dim} dimensions")
    if whole is None:
        print(f"{out}: {shard.count - len(missing):,} of {shard.count:,} pieces are there")
    else:
        print(f"{out}: {whole.count:,} vectors of {whole.dim} dimensions, joined from {shard.count:,} pieces")


def _check(engine: str, workers: int | None, num_shards: int | None, shard_index: int | None) -> None:
    if (num_shards is None) != (shard_index is None):
        raise UsageError("--num-shards and --shard-index go together; give both, or neither")
    if workers is not None and engine != "ray":
        raise UsageError("--workers is for --engine ray; leave it out")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected at least 1")


def _here(
    network: "ImageModel", preprocess: "Preprocess", rows: "Source", batch_size: int, positions: range
) -> "Iterable[Part]":
    from diptych.embed.embedding_files import part_of
    from diptych.embed.source_rows import embed_source

    batches = embed_source(network, preprocess, rows, positions=positions, batch_size=batch_size, hashes=True)
    return map(part_of, batches)


def _on_ray(
    load: "Callable[[], tuple[ImageModel, Preprocess]]",
    rows: "Source",
    batch_size: int,
    workers: int | None,
    positions: range,
) -> "Iterable[Part]":
    from diptych.embed.on_ray import embed_on_ray

    return embed_on_ray(load, rows, positions=positions, batch_size=batch_size, workers=workers)


def _load(model: str, device: str, precision: str) -> "tuple[ImageModel, Preprocess]":
    """Load the model in a worker, on the device that `auto` means there."""
    from diptych.cli.machine import load_model

    _, network, preprocess = load_model(model, device, precision)
    return network, preprocess


def _result(file: Path, model: str, written: "EmbeddingSummary") -> dict[str, object]:
    return {
        "out": str(file),
        "model": model,
        "count": written.count,
        "dim": written.dim,
        "skipped": dict(written.skipped),
        "left_out": written.skipped.to_json(),
    }
