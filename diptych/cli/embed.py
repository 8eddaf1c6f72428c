"""`diptych embed`: a dataset as vectors."""

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
    from diptych.embed.embedding_files import EmbeddingSummary
    from diptych.embed.embedding_job import EmbeddingResult
    from diptych.embed.embedding_pieces import Shard
    from diptych.models.image_model import ImageModel


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
    from diptych.data.sources.opening import open_source
    from diptych.embed.embedding_files import about, check_name
    from diptych.embed.embedding_job import embed_to_file, rows_here, rows_on_ray
    from diptych.embed.embedding_pieces import Shard
    from diptych.pretrained import fingerprint

    check_name(out)
    shard = None if num_shards is None or shard_index is None else Shard(shard_index, num_shards)
    rows = open_source(source, **vars(columns))
    name, network, preprocess = load_model(model, device, precision, activation)
    if engine == "ray":
        embed_rows = rows_on_ray(partial(_load, name, device, precision), rows, batch_size, workers)
    else:
        embed_rows = rows_here(network, preprocess, rows, batch_size)
    with progress("embedding", len(rows if shard is None else shard.positions(len(rows)))) as advance:
        done = embed_to_file(
            rows,
            out,
            embed_rows,
            about=about(name, fingerprint(network, preprocess), rows),
            dim=network.architecture.embed_dim,
            shard=shard,
            progress=advance,
        )
    _report(done, out, name, shard, as_json)


def _report(done: "EmbeddingResult", out: Path, model: str, shard: "Shard | None", as_json: bool) -> None:
    say_left_out(done.left_out)
    if as_json:
        result = _result(done.file, model, done.written) | {"left_out": done.left_out.to_json()}
        if shard is not None:
            joined = None if done.joined is None else _result(out, model, done.joined)
            result |= {"missing": done.missing, "joined": joined}
        emit(result)
        return
    print(f"{done.file}: {done.written.count:,} vectors of {done.written.dim} dimensions")
    if done.joined is not None and shard is not None:
        whole = done.joined
        print(f"{out}: {whole.count:,} vectors of {whole.dim} dimensions, joined from {shard.count:,} pieces")
    elif shard is not None:
        print(f"{out}: {shard.count - len(done.missing):,} of {shard.count:,} pieces are there")


def _check(engine: str, workers: int | None, num_shards: int | None, shard_index: int | None) -> None:
    if (num_shards is None) != (shard_index is None):
        raise UsageError("--num-shards and --shard-index go together; give both, or neither")
    if workers is not None and engine != "ray":
        raise UsageError("--workers is for --engine ray; leave it out")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers {workers}: expected at least 1")


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
