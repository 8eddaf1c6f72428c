"""Pictures of three colours in folders named after them, for the tests of approaches that learn from labels."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (40, 60, 220), "green": (40, 200, 60), "red": (220, 50, 40)}


def write_pictures(folder: Path, of_each: int = 8) -> Path:
    """A folder for each colour, with so many noisy pictures in it."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(of_each):
            pixels = np.clip(random.normal(colour, 25, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder
