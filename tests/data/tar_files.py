"""Tar archives for the tests, written by the standard library, which is independent of our reader."""

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def png(shade: int = 0) -> bytes:
    """A small image whose bytes differ from shade to shade."""
    file = io.BytesIO()
    Image.fromarray(np.full((3, 4, 3), shade % 256, dtype=np.uint8)).save(file, "png")
    return file.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return path


def unpack(archive: Path, folder: Path) -> None:
    """Extract an archive of ours into `folder`."""
    with tarfile.open(archive) as opened:
        # Python before 3.11.4 may have no filters, and 3.12 warns where none is chosen.
        opened.extraction_filter = getattr(tarfile, "data_filter", None)
        opened.extractall(folder)


def pairs(keys: Iterable[str], **fields: Any) -> list[tuple[str, bytes]]:
    """An image and a record for each key; the caption repeats the key."""
    members = []
    for number, key in enumerate(keys):
        members.append((f"{key}.png", png(number)))
        members.append((f"{key}.json", json.dumps({"captions": [f"a {key}"], **fields}).encode()))
    return members
