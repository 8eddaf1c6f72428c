"""`diptych index`: build an index, or bring it up to date."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from diptych.cli.options import (
    NO_TABLE_OPTIONS,
    Activation,
    BatchSize,
    Device,
    IndexPlace,
    Json,
    Model,
    Precision,
    SourcePlace,
    TableOptions,
)
from diptych.cli.output import emit, progress, say_left_out
from diptych.cli.threads import wait_without_spinning
from diptych.weights.naming import DEFAULT_MODEL

if TYPE_CHECKING:
    from diptych.data.sources.opening import Source
    from diptych.search.building.build import Summary


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How an index is built or refreshed."""

    rebuild: Annotated[
        bool, Parameter(negative="", help="Embed everything again, with another model if need be.")
    ] = False
    thumbnails: Annotated[
        bool, Parameter(help="Keep a small copy of each image in the index, for pages of results.")
    ] = True
    force: Annotated[
        bool,
        Parameter(
            negative="",
            help="Remove what is gone from the source, even if that is most of it. Without this such a refresh removes "
            "nothing: the disk may not be mounted.",
        ),
    ] = False
    embeddings: Annotated[
        Path | None,
        Parameter(
            help="A .parquet file that diptych embed wrote: its vectors are taken, and no model is loaded."
        ),
    ] = None


DEFAULT_BUILD = BuildOptions()


def index(
    source: SourcePlace,
    /,
    *,
    folder: IndexPlace,
    model: Model = DEFAULT_MODEL,
    activation: Activation = None,
    build: BuildOptions = DEFAULT_BUILD,
    columns: TableOptions = NO_TABLE_OPTIONS,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """Build a search index over images, or bring it up to date: only what is new or changed is embedded."""
    wait_without_spinning()

    from diptych.search.building.build import refresh
    from diptych.search.building.build_index import open_rows
    from diptych.search.building.recorded import RecordedEmbeddings
    from diptych.search.encoder import Encoder

    with _losses_as_json(folder, as_json):
        rows = open_rows(source, folder, force=build.force, columns=vars(columns))
    encoder: Encoder | RecordedEmbeddings
    if build.embeddings is not None:
        encoder = RecordedEmbeddings(build.embeddings, batch_size=batch_size)
    else:
        from diptych.cli.machine import load_model

        name, network, preprocess = load_model(model, device, precision, activation)
        encoder = Encoder(network, preprocess, name, batch_size=batch_size)
    with _losses_as_json(folder, as_json), progress("indexing", len(rows)) as advance:
        done = refresh(
            folder,
            rows,
            encoder,
            rebuild=build.rebuild,
            force=build.force,
            thumbnails=build.thumbnails,
            progress=advance,
        )
    _report(folder, encoder.name, rows, done, as_json)


def _report(folder: str, model: str, rows: "Source", done: "Summary", as_json: bool) -> None:
    from diptych.data.left_out import all_left_out, left_out_of
    from diptych.embed.source_rows import count_reasons

    counts = {
        "added": done.added,
        "updated": done.updated,
        "moved": done.moved,
        "unchanged": done.unchanged,
        "removed": done.removed,
        "repeated": done.repeated,
    }
    skipped = count_reasons(done.skipped)
    left_out = all_left_out([left_out_of(rows), skipped])
    say_left_out(left_out)
    if as_json:
        result = {"index": folder, "model": model, **counts, "skipped": dict(skipped)}
        emit(result | {"left_out": left_out.to_json(), "total": done.total})
        return
    changes = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    print(f"{folder}: {done.total:,} images ({changes})")


@contextlib.contextmanager
def _losses_as_json(folder: str, as_json: bool) -> Iterator[None]:
    """Print what a refresh refuses to remove, if JSON was asked for; the error goes on."""
    from diptych.search.building.vanished import LostImagesError

    try:
        yield
    except LostImagesError as error:
        if as_json:
            lost = {"source": error.source, "count": error.count, "total": error.total, "first": error.first}
            emit({"index": folder, "refused": lost})
        raise
