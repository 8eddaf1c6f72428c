"""Images a second from JPEG bytes to normalised 224 x 224 pixels, on one thread, beside open_clip's pipeline.

    python benchmarks/preprocess.py [--repetitions 9] [--images 12] [--quick]

The reference is what open_clip and the original package do: Pillow decodes, torchvision resizes, crops and
normalises. The pipelines take turns within every repetition, so that a busy moment of the machine hits all of
them; the ratio is the median over repetitions. The difference is the largest over all pixels, in grey levels.
--quick only sees that it runs: one small image.
"""

import argparse
import io
import statistics
from collections.abc import Callable
from functools import partial
from unittest import mock

import numpy as np
import torch
from peers import import_open_clip
from PIL import Image, ImageDraw
from timing import alternate, describe_machine, median_ratio

from diptych.data.images import decoding
from diptych.data.images.transforms import CLIP_STD, Preprocess

SIZES: tuple[tuple[int, int], ...] = ((640, 480), (2000, 1500))
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
    transform = import_open_clip().image_transform(224, is_train=False)
    return lambda data: transform(Image.open(io.BytesIO(data)))


def with_pillow_alone(data: bytes) -> torch.Tensor:
    with mock.patch.object(decoding, "simplejpeg", None):
        return Preprocess(224)(data)


def run(pipeline: Pipeline, files: list[bytes]) -> None:
    for data in files:
        pipeline(data)


def largest_difference(one: Pipeline, other: Pipeline, files: list[bytes]) -> float:
    levels = 255 * torch.tensor(CLIP_STD).view(3, 1, 1)
    return max(((one(data) - other(data)) * levels).abs().max().item() for data in files)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repetitions", type=int, default=9)
    parser.add_argument("--images", type=int, default=12, help="different images of each size")
    parser.add_argument("--quick", action="store_true", help="only see that it runs")
    arguments = parser.parse_args()
    sizes = SIZES
    if arguments.quick:
        sizes, arguments.repetitions, arguments.images = ((96, 64),), 1, 1
    torch.set_num_threads(1)
    print(describe_machine("torch", "pillow", "simplejpeg", "torchvision", "open_clip_torch"))
    pipelines: dict[str, Pipeline] = {
        REFERENCE: reference_pipeline(),
        "diptych": Preprocess(224),
        "diptych without simplejpeg": with_pillow_alone,
    }
    print(
        "\n| JPEG | pipeline | images/s | times the reference | largest difference |\n|---|---|---|---|---|"
    )
    for width, height in sizes:
        files = [photograph(width, height, seed) for seed in range(arguments.images)]
        cases = {name: partial(run, pipeline, files) for name, pipeline in pipelines.items()}
        seconds = alternate(cases, arguments.repetitions)
        for name, pipeline in pipelines.items():
            rate = len(files) / statistics.median(seconds[name])
            ratio = median_ratio(seconds[REFERENCE], seconds[name])
            difference = largest_difference(pipeline, pipelines[REFERENCE], files)
            print(f"| {width} x {height} | {name} | {rate:.0f} | {ratio:.2f} | {difference:.1f} |")


if __name__ == "__main__":
    main()
