"""How fast `diptych index` goes, beside what its decoding and its model take by themselves.

    python benchmarks/index_rate.py [--models diptych-mini ViT-B/32] [--pictures 512] [--repetitions 3] [--threads 2]
        [--source FOLDER] [--unchanged 50000] [--folder DIR] [--out docs/results/index_rate.md]

Decoding is reading a file, decoding it and bringing it to the model's pixels, in as many threads as there are
processors; encoding is the model alone, in batches of 64, in as many threads. Each has the whole machine to itself, so
that 1 / (decode + encode) is the rate of an index that costs nothing else. The rate of `diptych index` is that of a
refresh of an empty folder up to the moment when it has ended, thumbnails, hashes and all; repetitions take turns.
ViT-B/32 has random weights, which changes no time. Precision is what `--precision auto` picks.

The pictures: the bundled drawings (64 pixels a side), and photographs of three sizes, cut and scaled from the two that
come with scikit-learn; or, with --source, the pictures of a folder alone. The parts are processor time of one thread,
each by itself. The last line is a refresh of a folder where nothing has changed; the benchmark fails if the model
is called there. --quick only sees that it runs.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import sklearn.datasets
import torch
from PIL import Image
from timing import alternate, describe_machine

from diptych.cli.threads import wait_without_spinning
from diptych.data.images.decoding import read_rgb
from diptych.data.images.thumbnails import preview
from diptych.data.images.transforms import Preprocess
from diptych.data.sources.opening import Source, open_source
from diptych.embed.encode import encode_pixels
from diptych.embed.source_rows import EmbeddedBatch, uri_of
from diptych.hardware import pick_precision
from diptych.models.architectures import PUBLISHED, Architecture
from diptych.models.building import build_model
from diptych.models.image_model import ImageModel
from diptych.pretrained import load
from diptych.search.building.build import refresh
from diptych.search.encoder import Encoder
from diptych.weights.half_precision import to_half

BATCH = 64
SIDES = (640, 1600, 4000)  # pixels of the longer side of a photograph
QUALITY = 90
TARGET = 0.85


def photographs(folder: Path, side: int, count: int) -> Source:
    """JPEG files, no two alike: parts of two photographs, three in four of a side or more, scaled up to `side`."""
    dice = np.random.default_rng(side)
    whole = [
        Image.fromarray(sklearn.datasets.load_sample_image(name)) for name in ("china.jpg", "flower.jpg")
    ]
    folder.mkdir()
    for number in range(count):
        picture = whole[number % 2]
        share = dice.uniform(0.75, 1)
        width, height = (round(share * length) for length in picture.size)
        left, top = (
            int(dice.integers(0, length - part + 1))
            for length, part in zip(picture.size, (width, height), strict=True)
        )
        part = picture.crop((left, top, left + width, top + height))
        size = (side, round(side * height / width))
        part.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=QUALITY)
    return open_source(folder)


def load_model(name: str) -> tuple[ImageModel, Preprocess]:
    if name not in PUBLISHED:
        return load(name, "cpu", precision=pick_precision("auto", "cpu"))
    return untrained(PUBLISHED[name])


def untrained(architecture: Architecture) -> tuple[ImageModel, Preprocess]:
    """Random weights, in the precision that `diptych` picks."""
    torch.manual_seed(0)
    precision = pick_precision("auto", "cpu")
    model = build_model(architecture).eval()
    if precision != "float32":
        to_half(model, getattr(torch, precision))
    return model, Preprocess(architecture.image.resolution)


def decode_all(source: Source, preprocess: Preprocess, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda position: preprocess(source[position].image), range(len(source))):
            pass


def encode_all(model: ImageModel, preprocess: Preprocess, count: int) -> None:
    pixels = [torch.zeros(3, preprocess.resolution, preprocess.resolution)] * BATCH
    for start in range(0, count, BATCH):
        encode_pixels(model, pixels[: min(BATCH, count - start)])


def index_all(source: Source, encoder: Encoder, folder: Path, thumbnails: bool = True) -> None:
    done = refresh(Path(tempfile.mkdtemp(dir=folder)) / "index", source, encoder, thumbnails=thumbnails)
    assert done.added == len(source), done


def rates(kind: str, source: Source, name: str, options: argparse.Namespace, folder: Path) -> str:
    """A row of the first table."""
    model, preprocess = load_model(name)
    encoder = Encoder(model, preprocess, name, batch_size=BATCH)
    cases: dict[str, Callable[[], object]] = {
        "decode": lambda: decode_all(source, preprocess, options.threads),
        "encode": lambda: encode_all(model, preprocess, len(source)),
        "index": lambda: index_all(source, encoder, folder),
        "bare": lambda: index_all(source, encoder, folder, thumbnails=False),
    }
    seconds = alternate(cases, options.repetitions)
    decode, encode, index, bare = (
        1000 * statistics.median(times) / len(source) for times in seconds.values()
    )
    shares = [
        (d + e) / i for d, e, i in zip(seconds["decode"], seconds["encode"], seconds["index"], strict=True)
    ]
    share = statistics.median(shares)
    spread = f"{share:.0%} ({min(shares):.0%} to {max(shares):.0%})"
    return (
        f"| {name} | {kind} | {decode:.2f} | {encode:.2f} | {1000 / (decode + encode):.0f} | {1000 / index:.0f} "
        f"| {spread} | {(decode + encode) / bare:.0%} | {'met' if share >= TARGET else 'missed'} |"
    )


def parts(kind: str, source: Source) -> str:
    """A row of the second table: milliseconds of one thread for a picture."""
    data = [_bytes(source, position) for position in range(0, len(source), max(1, len(source) // 24))]
    pixels = [read_rgb(one) for one in data]
    mini, large = Preprocess(64), Preprocess(224)
    cells = [
        _cpu(lambda: [read_rgb(one) for one in data]),
        _cpu(lambda: [mini.pixels(one) for one in pixels]),
        _cpu(lambda: [large.pixels(one) for one in pixels]),
        _cpu(lambda: [preview(one) for one in pixels]),
        _cpu(lambda: [hashlib.sha256(one).digest() for one in data]),
    ]
    size = statistics.mean(map(len, data)) / 1000
    return f"| {kind} | {size:.0f} | " + " | ".join(f"{1000 * cell / len(data):.2f}" for cell in cells) + " |"


def _bytes(source: Source, position: int) -> bytes:
    image = source[position].image
    return image if isinstance(image, bytes) else image.read_bytes()


def _cpu(run: Callable[[], object]) -> float:
    times = []
    for _ in range(5):
        start = time.thread_time()
        run()
        times.append(time.thread_time() - start)
    return min(times)


class Constant:
    """An encoder without a model; once it is `used_up`, being asked for anything is an error."""

    name, fingerprint, dim = "constant", "c" * 64, 512
    used_up = False

    def rows(self, source: Source, positions: Iterable[int], *, previews: bool) -> Iterator[EmbeddedBatch]:
        rows = iter(positions)
        while batch := tuple(islice(rows, BATCH)):
            assert not self.used_up, "an unchanged picture was embedded"
            examples = tuple(source[position] for position in batch)
            vectors = np.full((len(batch), self.dim), self.dim**-0.5, np.float32)
            yield EmbeddedBatch(batch, examples, tuple(uri_of(source, one) for one in examples), vectors, ())


def unchanged(count: int, folder: Path) -> str:
    """Lines about a refresh of `count` small files, none of which is new."""
    photos = folder / "photos"
    picture = _bytes(open_source("sample:test"), 0)
    for number in range(count):
        place = photos / f"{number // 1000:03}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:06}.webp").write_bytes(picture + b"%d" % number)
    encoder = Constant()
    start = time.perf_counter()
    refresh(folder / "index", open_source(photos), encoder, thumbnails=False)
    first = time.perf_counter() - start
    encoder.used_up = True
    again = []
    for _ in range(3):
        start = time.perf_counter()
        done = refresh(folder / "index", open_source(photos), encoder, thumbnails=False)
        again.append(time.perf_counter() - start)
        assert done.unchanged == count, done
    return (
        f"A refresh of {count:,} files of which none has changed: {statistics.median(again):.2f} s, listing the "
        f"folder included; no picture was embedded. Hashing and writing them at first, without a model: {first:.1f} s."
    )


def sources(options: argparse.Namespace, folder: Path) -> Iterator[tuple[str, Source]]:
    if options.source is not None:
        yield str(options.source), open_source(options.source)
        return
    yield "drawings, 64 px", open_source("sample:train")
    for side in options.sides:
        count = max(BATCH, options.pictures * min(640, side) // side)
        yield f"photographs, {side:,} px", photographs(folder / str(side), side, count)


def report(options: argparse.Namespace, folder: Path) -> Iterator[str]:
    precision = pick_precision("auto", "cpu")
    yield "# The rate of an index"
    yield ""
    yield f"`benchmarks/index_rate.py`: {describe_machine('torch', 'lancedb', 'pillow', 'simplejpeg')}, {precision}."
    yield "Milliseconds and pictures a second with the whole machine; the share is the median of its repetitions."
    yield ""
    yield (
        "| model | pictures | decode ms | encode ms | 1 / (decode + encode) | indexed a second | share "
        f"| without thumbnails | target {TARGET:.0%} |"
    )
    yield "|---|---|---:|---:|---:|---:|---:|---:|---|"
    kinds: Sequence[tuple[str, Source]] = list(sources(options, folder))
    for name in options.models:
        for kind, source in kinds:
            # A large model needs fewer of them to show what it takes.
            few = kind.startswith("drawings") and name != "diptych-mini"
            yield rates(kind, open_source("sample:test") if few else source, name, options, folder)
    yield ""
    yield "One picture, milliseconds of one thread:"
    yield ""
    yield "| pictures | kB | decode | to 64 px | to 224 px | thumbnail | SHA-256 |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for kind, source in kinds:
        yield parts(kind, source)
    yield ""
    yield unchanged(options.unchanged, folder / "unchanged")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["diptych-mini", "ViT-B/32"])
    parser.add_argument(
        "--pictures", type=int, default=1024, help="photographs of 640 pixels; fewer larger ones"
    )
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIDES))
    parser.add_argument("--source", help="a folder or another source, in place of the bundled pictures")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--unchanged", type=int, default=50_000)
    parser.add_argument(
        "--folder", type=Path, help="where pictures and indexes are written; a temporary folder"
    )
    parser.add_argument("--out", type=Path, help="a Markdown file for the tables")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.models, options.sides, options.pictures = ["diptych-mini"], [640], BATCH
        options.repetitions, options.unchanged = 1, 200
    torch.set_num_threads(options.threads)
    folder, lines = Path(tempfile.mkdtemp(dir=options.folder)), []
    try:
        for line in report(options, folder):
            print(line, flush=True)
            lines.append(line)
    finally:
        shutil.rmtree(folder)
    if options.out is not None:
        options.out.write_text("\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    if "OMP_WAIT_POLICY" not in os.environ:
        # As the command does; what has imported torch is too late for it.
        wait_without_spinning()
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
