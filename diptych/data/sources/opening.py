"""Open a dataset of any known form as a list of examples."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from diptych.data.example import IMAGE_SUFFIXES, Example
from diptych.data.files.patterns import Location, expand, matching
from diptych.data.files.places import Place, place_of
from diptych.data.scenes.scene_source import open_scenes
from diptych.data.sources.annotations import open_annotations
from diptych.data.sources.columns import Columns
from diptych.data.sources.flickr import open_delimited
from diptych.data.sources.folder import STATISTICS, FolderSource, list_folder
from diptych.data.sources.sample import sample_shard
from diptych.data.sources.shards import ShardSource
from diptych.data.sources.table import open_jsonl
from diptych.errors import DataError, SettingsError

_DELIMITED = (".csv", ".tsv", ".txt", ".token")

_KINDS = (
    "expected a folder of images, a table (.csv, .tsv, .jsonl, .parquet, or text of Flickr8k or Flickr30k), "
    "annotations of COCO or of Karpathy's splits (.json), tar shards "
    "(shard.tar, 'shards/*.tar', 'shards/{000..003}.tar'), a folder saved by datasets, an address such as "
    "s3://bucket/*.tar, sample:train or another part of the sample, scenes:train or another part of the scenes"
)


class Source(Protocol):
    """A list of examples. Reading is safe from several threads, and a source can be sent to another process.

    Attributes:
        name: the location that was opened, for messages.
        fingerprint: a text that differs between lists of examples; a run resumes only on an equal one. Each source
            documents what it covers: for a folder, the names in it and not the contents.
    """

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, position: int, /) -> Example:
        """Return one example. Raises DataError if its files cannot be read, IndexError beyond the ends."""
        ...

    def describe(self) -> str:
        """Summarise what was found, and what was left out and why, in a few lines.

        A source that leaves something out also has an attribute `left_out` (`left_out.left_out_of` reads it).
        """
        ...


def open_source(
    location: Location | Sequence[Location],
    *,
    image_column: str | None = None,
    caption_column: str | None = None,
    label_column: str | None = None,
    delimiter: str | None = None,
    image_root: Location | None = None,
) -> Source:
    """Open a dataset of any known form as a list of examples. Nothing is decoded yet.

    Args:
        location: a folder with captions beside the images, or with one folder per class; a CSV, TSV, JSONL or Parquet
            table; the caption files of Flickr8k and Flickr30k; COCO's annotations, or Karpathy's splits with the
            wanted part, `dataset_flickr30k.json?split=test`; tar shards or Parquet tables (one, a folder or a list of
            them, or a pattern with `*` or `{000..003}`); the output of img2dataset; a folder that `datasets` saved to
            disk; the bundled `sample:train`, `sample:test` and `sample:photographs`; or a part of the procedural
            scenes, such as `scenes:train?count=5000`. Tables and shards may lie behind an address that fsspec reads
            (`s3://bucket/data/*.tar`).
        image_column: the column of a table with the paths of the images, or with the images; by default the one with
            a usual name.
        caption_column: the column with the captions; likewise.
        label_column: the column with the names of the classes; likewise.
        delimiter: the character between the columns of a text table; found if not given.
        image_root: the folder that the image paths of a table or of annotations are relative to. The default is the
            folder of the table, or, if the images are not there, one beside it with a usual name (`images`,
            `val2017`).

    Returns:
        A list of examples: `len(source)`, and `source[i]` with `image` (a path, or the bytes of a file), `captions`,
        `tags`, `label` and `metadata`. `source.describe()` says what was found, and what was left out and why.

    Raises:
        DataError: there is nothing to read, or it cannot be read.
        SettingsError: options of a table were given for something else.

    Example:
        >>> import diptych
        >>> source = diptych.open_source("sample:test")
        >>> len(source), source[291].captions
        (500, ('bicycle',))
    """
    columns = Columns(image_column, caption_column, label_column)
    options = _TableOptions(columns, delimiter, None if image_root is None else place_of(image_root))
    one = isinstance(location, str | os.PathLike)
    places = [
        os.fspath(item) for item in ([location] if isinstance(location, str | os.PathLike) else location)
    ]
    name = ", ".join(places)
    if one and name.startswith("sample:"):
        _refuse_table_options(name, options)
        return ShardSource([sample_shard(name.removeprefix("sample:"))], name=name, beside=False)
    if one and name.startswith("scenes:"):
        _refuse_table_options(name, options)
        return open_scenes(name.removeprefix("scenes:"))
    if one and (part := _PART.fullmatch(name)):
        return _open_annotations(place_of(part["file"]), part["split"], options)
    paths = [path for place in places for path in expand(place, _KINDS)]
    if one and paths == [place_of(name)] and is_table(name) and paths[0].is_file():
        return _open_table(paths[0], options)
    if one and len(paths) == 1 and paths[0].is_dir():
        return _open_folder(paths[0], options)
    if paths and all(path.suffix.lower() == ".parquet" for path in paths):
        return _open_parquet(paths, name, options)
    _refuse_table_options(name, options)
    return _open_shards(paths, name)


class _TableOptions(NamedTuple):
    """The options of a user for a table."""

    columns: Columns
    delimiter: str | None
    image_root: Place | None


# `dataset_flickr30k.json?split=test` selects a split of the annotations.
_PART = re.compile(r"(?P<file>.+\.json)\?split=(?P<split>.*)", re.IGNORECASE | re.DOTALL)


def is_table(name: Location) -> bool:
    """Return whether a file is a table, by its suffix."""
    suffix = os.path.splitext(name)[1].lower()
    return (
        suffix in (*_DELIMITED, ".jsonl", ".ndjson", ".parquet", ".json")
        or _PART.fullmatch(os.fspath(name)) is not None
    )


def has_delimiter(name: Location) -> bool:
    """Return whether a file is a text table with a character between its columns, by its suffix."""
    return os.path.splitext(name)[1].lower() in _DELIMITED


def table_options_for(name: Location) -> tuple[str, ...]:
    """Return the options of `open_source` that a table takes, by its suffix; none for anything else."""
    if not is_table(name):
        return ()
    if has_delimiter(name):
        return ("image_column", "caption_column", "label_column", "delimiter", "image_root")
    suffix = os.path.splitext(name)[1].lower()
    # The rest are annotations, with a split or without.
    if suffix in (".jsonl", ".ndjson", ".parquet"):
        return ("image_column", "caption_column", "label_column", "image_root")
    return ("image_root",)


def is_saved_dataset(folder: Path) -> bool:
    """Return whether `save_to_disk` of the `datasets` library wrote a folder, or the splits in it."""
    # Both files are checked, because beside an image `state.png` there may be a `state.json`.
    return (folder / "dataset_dict.json").is_file() or all(
        (folder / name).is_file() for name in ("state.json", "dataset_info.json")
    )


def _open_table(path: Place, options: _TableOptions) -> Source:
    if has_delimiter(path.name):
        return open_delimited(path, *options)
    if path.suffix.lower() == ".parquet":
        return _open_parquet([path], str(path), options)
    if path.suffix.lower() == ".json":
        return _open_annotations(path, None, options)
    _refuse_delimiter(str(path), options)
    return open_jsonl(path, options.columns, options.image_root)


def _open_annotations(path: Place, split: str | None, options: _TableOptions) -> Source:
    if options.columns != Columns() or options.delimiter is not None:
        raise SettingsError(
            f"{path}: annotations have no columns and no delimiter; leave out those options (image_root is allowed)"
        )
    return open_annotations(path, split, options.image_root)


def _open_parquet(paths: Sequence[Place], name: str, options: _TableOptions) -> Source:
    _refuse_delimiter(name, options)
    # Imported here, because pyarrow is an extra, and slow to import.
    from diptych.data.sources.parquet import open_parquet  # noqa: PLC0415

    return open_parquet(paths, options.columns, name, options.image_root)


def _open_folder(folder: Place, options: _TableOptions) -> Source:
    if isinstance(folder, Path) and is_saved_dataset(folder):
        _refuse_delimiter(str(folder), options)
        from diptych.data.sources.saved_dataset import open_saved_dataset  # noqa: PLC0415

        return open_saved_dataset(folder, options.columns, options.image_root)
    if isinstance(folder, Path):
        listing = list_folder(folder)
        if len(listing.images):
            _refuse_table_options(str(folder), options)
            return FolderSource(folder, listing)
    shards, tables = matching(folder / "*.tar"), matching(folder / "*.parquet")
    finished = _finished(folder, shards or tables)
    if shards:
        _refuse_table_options(str(folder), options)
        return ShardSource(finished, name=str(folder), unfinished=len(shards) - len(finished))
    if tables:
        return _open_parquet(finished, str(folder), options)
    if isinstance(folder, Path):
        return FolderSource(folder, listing)
    raise DataError(
        f"{folder}: no .tar or .parquet in this folder; behind an address, Diptych reads images only from those"
    )


def _finished(folder: Place, files: Sequence[Place]) -> list[Place]:
    """Drop the files that img2dataset did not finish: beside a finished file lie its statistics."""
    done = {path.name.removesuffix(STATISTICS) for path in matching(folder / f"*{STATISTICS}")}
    return [path for path in files if not done or path.stem in done]


def _refuse_delimiter(name: str, options: _TableOptions) -> None:
    if options.delimiter is not None:
        raise SettingsError(
            f"{name}: only text tables, such as .csv and .tsv, have a delimiter; leave it out"
        )


def _refuse_table_options(name: str, options: _TableOptions) -> None:
    if options != _TableOptions(Columns(), None, None):
        raise SettingsError(
            f"{name}: is not a table, so it has no columns, no delimiter and no image root; leave out those options"
        )


def _open_shards(paths: Sequence[Place], name: str) -> Source:
    if not paths:
        raise DataError(f"the list of shards is empty; {_KINDS}")
    for path in paths:
        suffix = path.suffix.lower().removeprefix(".")
        if suffix in IMAGE_SUFFIXES:
            raise DataError(f"{path}: is a single image; {_KINDS}")
        if is_table(path.name):
            raise DataError(f"{path}: is a table, which is opened alone, by its full name; {_KINDS}")
        if suffix != "tar" and not path.name.lower().endswith(
            (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
        ):
            raise DataError(f"{path}: its name does not show what it is; {_KINDS}")
    return ShardSource(paths, name=name)
