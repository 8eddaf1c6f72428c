"""Merge the captions of tables with one row per caption: every row of an image gets all of its captions."""

import dataclasses
import os
from pathlib import Path

import numpy as np

from diptych.data.example import Example
from diptych.data.sources.folder import FolderSource
from diptych.data.sources.opening import Source
from diptych.data.sources.row_keys import content_key
from diptych.embed.source_rows import SkippedRow, read_row
from diptych.search.stores.image_rows import item_id


def with_all_captions(source: Source) -> Source:
    """Return the source with all captions and tags of an image in each of its rows.

    Rows of one image name the same file, or have the hash of the same bytes as their key. All rows are read once; eight
    bytes per row are held in memory.
    """
    if isinstance(source, FolderSource) or not len(source):
        return source
    heads = np.zeros(len(source), np.uint64)
    for position in range(len(source)):
        example = read_row(source, position)
        if isinstance(example, SkippedRow):
            continue
        if position == 0 and isinstance(example.image, bytes) and not _is_known_by_content(example):
            return source  # its images lie in shards, where every key is unique
        heads[position] = int(_id(example)[:16], 16)
    order = np.argsort(heads, kind="stable")
    same = heads[order][1:] == heads[order][:-1]
    repeated = np.zeros(len(source), np.bool_)
    repeated[order[1:][same]] = repeated[order[:-1][same]] = True
    repeated &= heads != 0
    return _CaptionMerge(source, repeated) if repeated.any() else source


class _CaptionMerge:
    def __init__(self, source: Source, repeated: np.ndarray) -> None:
        self._source = source
        self.name, self.fingerprint = source.name, source.fingerprint
        self._words: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
        for position in np.flatnonzero(repeated).tolist():
            example = read_row(source, position)
            if isinstance(example, SkippedRow):
                continue
            captions, tags = self._words.setdefault(_id(example), ({}, {}))
            captions |= dict.fromkeys(example.captions)
            tags |= dict.fromkeys(example.tags)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, position: int) -> Example:
        example = self._source[position]
        words = self._words.get(_id(example))
        if words is None:
            return example
        return dataclasses.replace(example, captions=tuple(words[0]), tags=tuple(words[1]))

    def describe(self) -> str:
        return self._source.describe()


def _is_known_by_content(example: Example) -> bool:
    # In a source of several tables, the name of the table precedes the key.
    return isinstance(example.image, bytes) and example.key.endswith(content_key(example.image))


def _id(example: Example) -> str:
    return item_id(os.path.abspath(example.image) if isinstance(example.image, Path) else f"#{example.key}")
