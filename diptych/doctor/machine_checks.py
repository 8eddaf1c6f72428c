"""Check the machine: versions, device, threads, memory, disks, extras, and the bundled model."""

import importlib.util
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from diptych.data.sources.opening import open_source
from diptych.doctor.check import Check
from diptych.errors import DiptychError
from diptych.evaluation.zero_shot.class_labels import LabelSet
from diptych.evaluation.zero_shot.own_labels import classify
from diptych.hardware import has_native_bfloat16, pick_device, pick_precision
from diptych.pretrained import load
from diptych.weights.foreign.published import cache_folder
from diptych.weights.naming import DEFAULT_MODEL
from diptych.wording import size

LEAST_DISK = 2 << 30  # bytes: room for a large published model, or a few checkpoints
EXTRAS = {
    "pyarrow": "data: reads and writes Parquet",
    "simplejpeg": "data: decodes JPEG twice as fast",
    "pillow_heif": "heic: reads HEIC, the photographs of phones",
    "tensorboard": "train: curves in TensorBoard",
}


def check_machine() -> Iterator[Check]:
    """Check this machine, and yield each result as soon as it is there."""
    yield _versions()
    yield _device()
    yield _threads()
    yield _memory()
    yield _disk("disk here", Path.cwd())
    yield _cache()
    yield from _extras()
    yield _bundled_model()


def _versions() -> Check:
    found = f"Python {platform.python_version()}, torch {torch.__version__}, {platform.platform(terse=True)}"
    old = sys.version_info < (3, 11) or torch.__version__.split(".")[:2] < ["2", "11"]
    if old:
        return Check("versions", "fail", f"{found}; Python 3.11 and torch 2.11 or later are needed")
    return Check("versions", "ok", found)


def _device() -> Check:
    device = pick_device("auto")
    name = torch.cuda.get_device_name() if device == "cuda" else platform.processor() or platform.machine()
    computes = "computes in bfloat16" if has_native_bfloat16(device) else "no native bfloat16"
    return Check(
        "device", "ok", f"{device} ({name}), {computes}: --precision auto is {pick_precision('auto', device)}"
    )


def _threads() -> Check:
    used, cores = torch.get_num_threads(), os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    detail = f"torch uses {used} threads on {usable} processors"
    if used > usable:
        return Check(
            "threads", "warn", f"{detail}; set OMP_NUM_THREADS={usable}, more only get in each other's way"
        )
    return Check("threads", "ok", detail)


def _memory() -> Check:
    try:
        page, total = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        free = os.sysconf("SC_AVPHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return Check("memory", "ok", "this system does not say how much it has")
    return Check("memory", "ok", f"{size(page * total)}, of which {size(page * free)} are idle now")


def _disk(name: str, folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    detail = f"{size(free)} free at {folder}"
    return (
        Check(name, "ok", detail)
        if free >= LEAST_DISK
        else Check(name, "warn", f"{detail}; a run needs more")
    )


def _cache() -> Check:
    folder = cache_folder()
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    if not os.access(existing, os.W_OK):
        return Check("cache", "warn", f"{folder} cannot be written; set DIPTYCH_CACHE to a folder that can")
    return _disk("cache", existing)


def _extras() -> Iterator[Check]:
    for package, purpose in EXTRAS.items():
        extra, _, use = purpose.partition(": ")
        if importlib.util.find_spec(package) is not None:
            yield Check(f"extra {package}", "ok", f"installed: {use}")
        else:
            yield Check(f"extra {package}", "warn", f"not installed: {use}; pip install 'diptych[{extra}]'")


def _bundled_model() -> Check:
    started = time.perf_counter()
    try:
        model, preprocess = load(DEFAULT_MODEL)
        example = next(found for found in _sample_images() if found[1] == "bicycle")
        labels = LabelSet.of(("bicycle", "umbrella", "guitar"))
        (answer,) = classify(model, preprocess, [example[0]], labels)
    except DiptychError as error:
        return Check("bundled model", "fail", f"{error}; install the package again")
    best = answer["predictions"][0]["label"]
    took = f"{time.perf_counter() - started:.1f} s"
    if best != "bicycle":
        return Check(
            "bundled model", "fail", f"{DEFAULT_MODEL} calls a bicycle {best!r}; install the package again"
        )
    return Check(
        "bundled model", "ok", f"{DEFAULT_MODEL} loads and knows a bicycle when it sees one ({took})"
    )


def _sample_images() -> Iterator[tuple[bytes | Path, str]]:
    source = open_source("sample:test")
    for position in range(len(source)):
        example = source[position]
        yield example.image, example.captions[0]
