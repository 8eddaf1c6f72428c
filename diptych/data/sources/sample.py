"""Locate the sample that ships with the package: real, openly licensed images with captions.

`train` has 2,298 pairs: 300 emoji concepts, each drawn by four to five designers, and 900 Open Clip Art drawings.
`test` has 500: the same concepts by a designer who is absent from training, and 200 other drawings. `photographs` has
13 free photographs, which are only shown and searched. Every row names its author, source and licence; NOTICE has the
credits.
"""

from pathlib import Path

from diptych.errors import DataError

PARTS = ("train", "test", "photographs")


def sample_shard(part: str) -> Path:
    """Return the tar shard of one part of the sample. Raises DataError for an unknown part."""
    if part not in PARTS:
        expected = ", ".join(f"sample:{name}" for name in PARTS)
        raise DataError(f"sample:{part}: unknown part of the sample; expected one of {expected}")
    return Path(__file__).parents[1] / "sample" / f"{part}.tar"
