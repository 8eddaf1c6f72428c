"""Scenes that many jobs read, drawn once: drawing one takes as long as a third of a small model's step on it."""

import fcntl
import re
from pathlib import Path

from diptych.data.packing import pack_source
from diptych.data.sources import open_source


def packed(name: str, folder: Path) -> str:
    """The place of the same scenes as shards inside `folder`; the first job that asks packs them, others wait for it.

    name: as `open_source` takes it; scenes with sounds are left as they are, for shards have none.
    """
    if "sound=1" in name:
        return name
    place = folder / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    with place.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        pack_source(open_source(name), place, workers=1)
    return str(place)
