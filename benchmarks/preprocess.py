"""Images a second from JPEG bytes to normalised 224 x 224 pixels, on one thread, beside open_clip's pipeline.

    python benchmarks/preprocess.py [--repetitions 9] [--images 12]

The reference is what open_clip and the original package do: Pillow decodes, torchvision resizes, crops and
normalises. The pipelines take turns within every repetition, so that a busy moment of the machine hits all of
them; the ratio is the median over repetitions. The difference is the largest over all pixels, in grey levels.
"""

import argparse
import io
import os
import platform
import statistics
import sys
import time
import types
from collections.abc import Callable
from importlib.metadata import version
from unittest import mock

import numpy as np
import torch
from PIL import Image, ImageDraw

from diptych.data import images
from diptych.data.transforms import CLIP_STD, Preprocess

SIZES = ((640, 480), (2000, 1500))
REFERENCE = "open_clip (Pillow + torchvision)"
Pipeline = Callable[[bytes], torch.Tensor]


def photograph(width: int, height: int, seed: int) -> bytes:
    """A JPEG with the spectrum of natural images (amplitude about 1 / frequency) and a dozen hard edges."""
    draw = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / width) ** 1.3
    layers = [
        np.fft.irfft2(amplitude * np.exp(2j * np.pi * draw.random(amplitude.shape)), s=(height, width))
        for _ in range(4)  # one shared by the three colours
    ]
    grey, *colours = (layer / layer.std() for layer in layers)
    levels = 128 + 50 * np.stack([0.8 * grey + 0.4 * colour for colour in colours], axis=-1)
    image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, wide, high = (
            int(draw.integers(9, limit)) for limit in (width, height, width // 4, height // 4)
        )
        fill = (int(draw.integers(256)), int(draw.integers(256)), int(draw.integers(256)))
        pen.ellipse([x, y, x + wide, y + high], fill=fill)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def reference_pipeline() -> Pipeline:
    """open_clip's inference transform."""
    # Where torchvision's compiled operators do not fit torch, this module fails; nothing here needs it.
    sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("_meta_registrations"))
    import open_clip  # type: ignore[import-untyped]  # noqa: PLC0415

    transform = open_clip.image_transform(224, is_train=False)
    return lambda data: transform(Image.open(io.BytesIO(data)))


def with_pillow_alone(data: bytes) -> torch.Tensor:
    with mock.patch.object(images, "simplejpeg", None):
        return Preprocess(224)(data)


def measure(pipelines: dict[str, Pipeline], files: list[bytes], repetitions: int) -> dict[str, list[float]]:
    """Seconds for all files, for each pipeline and repetition."""
    seconds: dict[str, list[float]] = {name: [] for name in pipelines}
    for repetition in range(-1, repetitions):  # the first only warms up
        for name, pipeline in pipelines.items():
            start = time.perf_counter()
            for data in files:
                pipeline(data)
            if repetition >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def largest_difference(one: Pipeline, other: Pipeline, files: list[bytes]) -> float:
    levels = 255 * torch.tensor(CLIP_STD).view(3, 1, 1)
    return max(((one(data) - other(data)) * levels).abs().max().item() for data in files)


def main() -> None:
    parser = argparse.ArgumentParser(description="Preprocessing speed beside open_clip, one thread.")
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--images", type=int, default=12, help="different images of each size")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    packages = ("torch", "pillow", "simplejpeg", "torchvision", "open_clip_torch")
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}, load",
        end=" ",
    )
    print(f"{os.getloadavg()[0]:.1f}; Python {platform.python_version()},", end=" ")
    print(", ".join(f"{name} {version(name)}" for name in packages))
    pipelines: dict[str, Pipeline] = {
        REFERENCE: reference_pipeline(),
        "diptych": Preprocess(224),
        "diptych without simplejpeg": with_pillow_alone,
    }
    print(
        "\n| JPEG | pipeline | images/s | times the reference | largest difference |\n|---|---|---|---|---|"
    )
    for width, height in SIZES:
        files = [photograph(width, height, seed) for seed in range(arguments.images)]
        seconds = measure(pipelines, files, arguments.repetitions)
        for name, pipeline in pipelines.items():
            rate = len(files) / statistics.median(seconds[name])
            ratio = statistics.median(a / b for a, b in zip(seconds[REFERENCE], seconds[name], strict=True))
            difference = largest_difference(pipeline, pipelines[REFERENCE], files)
            print(f"| {width} x {height} | {name} | {rate:.0f} | {ratio:.2f} | {difference:.1f} |")


if __name__ == "__main__":
    main()
