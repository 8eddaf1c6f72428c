"""Build an index from a source and the name of a model: `diptych.build_index`."""

import os
from collections.abc import Mapping
from pathlib import Path

import torch

from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import Progress
from diptych.errors import DataError
from diptych.pretrained import Precision, full_name, load
from diptych.search.building.build import Summary, refresh
from diptych.search.building.separate import check_separate
from diptych.search.building.vanished import without_source
from diptych.search.encoder import Encoder
from diptych.weights.naming import DEFAULT_MODEL


def build_index(
    source: Source | str | os.PathLike[str],
    place: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = DEFAULT_MODEL,
    device: str | torch.device | None = None,
    precision: Precision = "float32",
    rebuild: bool = False,
    force: bool = False,
    thumbnails: bool = True,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Summary:
    """Build a search index over the images of a source, or bring an existing one up to date.

    Only what is new or has changed is embedded. A kill at any moment loses nothing that `progress` has counted; the
    same call goes on there. Images of other sources in the index stay.

    Args:
        source: the data, or what `open_source` takes for it.
        place: a folder of its own for the index, `s3://bucket/prefix` or `postgresql://...#name`.
        model: a name of `available_models()`, or the path of a file, a folder or a run. The index remembers it.
        device: where the model computes: "auto", "cpu", "cuda", "cuda:1" or "mps", as for `load`.
        precision: of the matrix products: "float32", "float16" or "bfloat16".
        rebuild: embed everything again, with another model if need be; images of other sources are dropped.
        force: remove what is gone from the source even if that is most of it. Without this such a call removes nothing:
            the disk may not be mounted.
        thumbnails: keep a small JPEG of each image, for pages of results.
        batch_size: images that the model embeds at once.
        progress: gets the number of images settled since the last call.

    Returns:
        The numbers of images `added`, `updated`, `moved`, `unchanged`, `removed` and `repeated`, those `skipped` with
        the reasons, and the `total` in the index.

    Raises:
        SearchIndexError: the index belongs to another model, is damaged or is being written to; or `place` is the
            source, or a folder of other things.
        DataError: not one image of the source can be read, or most have vanished and `force` is off.
        CheckpointError: the model cannot be loaded.
        MissingExtraError: the package of the store is not installed.

    Example:
        >>> import diptych
        >>> diptych.build_index("images", "images.index").total
        3
    """
    folder = Path(place) if isinstance(place, os.PathLike) else place
    rows = open_rows(source, str(folder), force=force) if isinstance(source, str | os.PathLike) else source
    name = full_name(model)
    network, preprocess = load(name, device, precision=precision)
    encoder = Encoder(network, preprocess, name, batch_size=batch_size)
    return refresh(
        folder, rows, encoder, rebuild=rebuild, force=force, thumbnails=thumbnails, progress=progress
    )


def open_rows(
    source: str | os.PathLike[str],
    place: str,
    *,
    force: bool,
    columns: Mapping[str, str | None] | None = None,
) -> Source:
    """Open a source for the index at `place`. A source that is gone is empty, so that the index loses its images.

    columns: options of `open_source` for a table. force, and errors: see `build_index`.
    """
    name = os.fspath(source)
    check_separate(place, name)
    try:
        return open_source(name, **(columns or {}))
    except DataError as error:
        return without_source(place, name, error, force=force)
