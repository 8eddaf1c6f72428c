"""How alike copies of a picture are to a model, and how alike different pictures: where duplicates begin.

    python benchmarks/near_duplicates.py [--model diptych-mini] [--data sample:train] [--pictures 400]

Every picture is copied as people copy them: saved again as JPEG, made smaller, cropped a little, brightened. A row
of the table is a threshold; it has the share of copies that a search would group with their original, and the share of
pictures of the data that it would group with another one.
"""

import argparse
import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from diptych import load
from diptych.data.images.decoding import WHITE, read_rgb
from diptych.data.sources.opening import open_source
from diptych.embed.encode import embed_images

THRESHOLDS = (0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99)


def saved_as_jpeg(picture: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file)


def cropped(picture: Image.Image, share: float) -> Image.Image:
    """Without that share of the width and height, half of it on each side."""
    width, height = picture.size
    x, y = round(width * share / 2), round(height * share / 2)
    return picture.crop((x, y, width - x, height - y))


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG, quality 80": lambda picture: saved_as_jpeg(picture, 80),
    "JPEG, quality 30": lambda picture: saved_as_jpeg(picture, 30),
    "half as wide": lambda picture: picture.resize((picture.width // 2, picture.height // 2)),
    "cropped by 4 %": lambda picture: cropped(picture, 0.04),
    "cropped by 10 %": lambda picture: cropped(picture, 0.1),
    "10 % brighter": lambda picture: ImageEnhance.Brightness(picture).enhance(1.1),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="diptych-mini")
    parser.add_argument("--data", default="sample:train")
    parser.add_argument("--pictures", type=int, default=400, help="that are copied")
    arguments = parser.parse_args()
    model, preprocess = load(arguments.model)
    source = open_source(arguments.data)
    pictures = [Image.fromarray(read_rgb(source[row].image, WHITE)) for row in range(len(source))]
    vectors = embed_images(model, preprocess, pictures)
    chosen = np.linspace(0, len(source) - 1, min(arguments.pictures, len(source))).astype(int)
    alike = {
        name: (
            vectors[chosen] * embed_images(model, preprocess, [copy(pictures[row]) for row in chosen])
        ).sum(1)
        for name, copy in COPIES.items()
    }
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    nearest = cosines.max(axis=1)
    print(f"{arguments.model}, {arguments.data}: {len(source):,} pictures, {len(chosen)} of them copied\n")
    print("| threshold |", *(f"{name} |" for name in COPIES), "another picture |")
    print("|---" * (len(COPIES) + 2) + "|")
    for threshold in THRESHOLDS:
        shares = [*(np.mean(found >= threshold) for found in alike.values()), np.mean(nearest >= threshold)]
        print(f"| {threshold} |", *(f"{100 * share:.1f} % |" for share in shares))


if __name__ == "__main__":
    main()
