"""Made-up scenes, and bursts of frames of each: what a phone held by hand takes in a few seconds."""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance


def scene(random: np.random.Generator, side: int = 96) -> Image.Image:
    """A colourful picture that is like no other: soft patches."""
    coarse = random.integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def frame(picture: Image.Image, random: np.random.Generator) -> Image.Image:
    """Another frame: nine tenths of it at some place, another brightness, sometimes mirrored, as a poor JPEG."""
    side = picture.width
    part = round(0.9 * side)
    left, top = random.integers(0, side - part + 1, 2).tolist()
    cut = picture.crop((left, top, left + part, top + part))
    light = ImageEnhance.Brightness(cut).enhance(float(random.uniform(0.8, 1.1)))
    turned = light.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.2 else light
    file = io.BytesIO()
    turned.save(file, "JPEG", quality=60)
    return Image.open(io.BytesIO(file.getvalue())).convert("RGB")


def write_bursts(folder: Path, classes: int, scenes: int, frames: int, seed: int = 0) -> Path:
    """A folder for each class with so many scenes, each as a burst of frames: CLASS/SCENE_FRAME.png.

    Scenes say nothing about their class, so that whoever has not seen the scene can only guess.
    """
    random = np.random.default_rng(seed)
    for label in range(classes):
        (folder / f"class{label}").mkdir(parents=True)
        for number in range(scenes):
            picture = scene(random)
            for shot in range(frames):
                frame(picture, random).save(folder / f"class{label}" / f"{number:02}_{shot}.png")
    return folder
