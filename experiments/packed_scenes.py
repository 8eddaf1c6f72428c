"""Scenes that many jobs read, drawn once: drawing one takes as long as a third of a small model's step on it."""

import re
from pathlib import Path

from diptych.data.packing import pack_source
from diptych.data.sources.opening import open_source
from diptych.locks import exclusive_lock


def packed(name: str, folder: Path) -> str:
    """The place of the same scenes as shards inside `folder`; the first job that asks packs them, others wait for it.

    name: as `open_source` takes it; scenes with sounds are left as they are, for shards have none.
    """
    source = open_source(name)
    if source[0].sound is not None:
        return name
    place = folder / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(place.with_suffix(".lock")):
        pack_source(source, place, workers=1)
    return str(place)
