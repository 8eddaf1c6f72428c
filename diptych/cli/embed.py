"""`diptych embed`: a dataset as vectors."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from diptych.cli.options import (
    DEFAULT_MODEL,
    BatchSize,
    CaptionColumn,
    Device,
    ImageColumn,
    Json,
    LabelColumn,
    Model,
    Precision,
    SourcePlace,
)
from diptych.cli.output import emit, progress, say_skipped


def embed(
    source: SourcePlace,
    /,
    *,
    out: Annotated[
        Path, Parameter(name=["--out", "-o"], help="A .parquet file, or an .npy file (with a .jsonl).")
    ],
    model: Model = DEFAULT_MODEL,
    image_column: ImageColumn = None,
    caption_column: CaptionColumn = None,
    label_column: LabelColumn = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Write the embeddings of a dataset to Parquet or npy."""
    from diptych.cli.machine import load_model  # noqa: PLC0415
    from diptych.data.sources import open_source  # noqa: PLC0415
    from diptych.embed import count_reasons, embed_source, write_embeddings  # noqa: PLC0415

    rows = open_source(
        source, image_column=image_column, caption_column=caption_column, label_column=label_column
    )
    name, network, preprocess = load_model(model, device, precision)
    with progress("embedding", len(rows)) as advance:
        batches = embed_source(network, preprocess, rows, batch_size=batch_size)
        written = write_embeddings(out, batches, about={"model": name}, progress=advance)
    skipped = count_reasons(written.skipped)
    say_skipped(skipped)
    if as_json:
        emit({"out": str(out), "model": name, "count": written.count, "dim": written.dim, "skipped": skipped})
    else:
        print(f"{out}: {written.count:,} vectors of {written.dim} dimensions")
