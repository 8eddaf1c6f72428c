"""Readers of the sets whose images lie in one file: IDX, Python batches, raw bytes, CSV, HDF5, and scikit-learn's."""

import csv
import gzip
import pickletools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from diptych.data.sources.opening import Source
from diptych.errors import CheckpointError, DataError, MissingExtraError
from diptych.evaluation.datasets.listed_images import ArrayImages, Pixels, read_lines
from diptych.evaluation.datasets.set_files import names_of
from diptych.weights.foreign.pickle_reader import InertObject, Name, PickleReader

_STL10_SHAPE = (-1, 3, 96, 96)  # colour, column, row
_FER_SIDE = 48
_FER_USAGES = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
_FER_FILES = ("fer2013.csv", "icml_face_data.csv")


def mnist(folder: Path, split: str) -> Source:
    """Read MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): four IDX files, packed with gzip or not.

    They lie in the folder itself, or in `raw/` as torchvision leaves them.
    """
    part = {"train": "train", "test": "t10k"}[split]
    base = folder / "raw" if (folder / "raw").is_dir() else folder
    labels = _idx(base, f"{part}-labels-idx1-ubyte", 1)
    return ArrayImages(f"{folder} ({split})", _idx(base, f"{part}-images-idx3-ubyte", 3), _numbers(labels))


def cifar10(folder: Path, split: str) -> Source:
    """Read CIFAR-10 (Krizhevsky 2009), the Python version: five batches to train with and one to test."""
    files = [f"data_batch_{number}" for number in range(1, 6)] if split == "train" else ["test_batch"]
    return _cifar(
        folder, split, files, "labels", _batch(folder / "batches.meta", "label_names")["label_names"]
    )


def cifar100(folder: Path, split: str) -> Source:
    """Read CIFAR-100 (Krizhevsky 2009), the Python version, with its 100 fine labels."""
    return _cifar(
        folder, split, [split], "fine_labels", _batch(folder / "meta", "fine_label_names")["fine_label_names"]
    )


def stl10(folder: Path, split: str) -> Source:
    """Read STL-10 (Coates et al. 2011), the binary version: images by column, labels from 1.

    The splits fold0 to fold9 are the ten lists of 1,000 training images each in `fold_indices.txt`.
    """
    part = "test" if split == "test" else "train"
    names = list(read_lines(folder / "class_names.txt"))
    raw = _bytes(folder / f"{part}_X.bin")
    if raw.size % (3 * 96 * 96):
        raise DataError(
            f"{folder / part}_X.bin: {raw.size:,} bytes, not a whole number of images; unpack it again"
        )
    pixels = raw.reshape(_STL10_SHAPE).transpose(0, 3, 2, 1)
    labels = [names[number - 1] for number in _bytes(folder / f"{part}_y.bin").tolist()]
    if split.startswith("fold"):
        lines = list(read_lines(folder / "fold_indices.txt"))
        chosen = [int(index) for index in lines[int(split.removeprefix("fold"))].split()]
        pixels, labels = pixels[chosen], [labels[index] for index in chosen]
    return ArrayImages(f"{folder} ({split})", pixels, labels)


def fer2013(folder: Path, split: str) -> Source:
    """Read facial expressions (Goodfellow et al. 2013): rows of a CSV file with the grey values of 48 x 48 pixels.

    `test` is both the public and the private test part.
    """
    file = next((folder / name for name in _FER_FILES if (folder / name).is_file()), folder / _FER_FILES[0])
    pixels, labels = [], []
    try:
        with file.open(newline="", encoding="utf-8") as opened:
            # The two published files differ in the order of the columns, and one has spaces before their names.
            for row in csv.DictReader(opened, skipinitialspace=True):
                if row["Usage"] in _FER_USAGES[split]:
                    pixels.append(np.array(row["pixels"].split(), np.uint8).reshape(_FER_SIDE, _FER_SIDE))
                    labels.append(str(int(row["emotion"])))
    except (OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}: row {len(labels) + 1} of the split {split!r} cannot be read ({error!r}); expected the columns "
            "emotion, Usage, and pixels with 2,304 numbers"
        ) from None
    return ArrayImages(f"{file} ({split})", np.array(pixels, np.uint8), labels)


def pcam(folder: Path, split: str) -> Source:
    """Read PatchCamelyon (Veeling et al. 2018): HDF5 files of 96 x 96 pixels and of labels, held in memory whole.

    The test split takes 0.9 GB of memory, the training split 7 GB.
    """
    try:
        import h5py  # type: ignore[import-not-found]  # noqa: PLC0415
    except ImportError:
        raise DataError(
            f"{folder}: PatchCamelyon's .h5 files are read through the package h5py, which is not installed; install "
            "it with: pip install h5py; or put the set there as tar shards, which need nothing else"
        ) from None
    part = {"val": "valid"}.get(split, split)
    arrays: list[npt.NDArray[Any]] = []
    for kind in ("x", "y"):
        path = folder / f"camelyonpatch_level_2_split_{part}_{kind}.h5"
        try:
            with h5py.File(path, "r") as file:
                arrays.append(np.asarray(file[kind][:]))
        except (OSError, KeyError) as error:
            raise DataError(
                f"{path}: cannot be read ({error}); unpack it again (the download is .h5.gz)"
            ) from None
    pixels, labels = arrays
    return ArrayImages(f"{folder} ({split})", pixels, _numbers(labels.reshape(len(labels), -1)[:, 0]))


def digits(folder: Path, split: str) -> Source:
    """Read the 1,797 digits of 8 x 8 pixels that come with scikit-learn; each seventh is `test`. `folder` is not read.

    They have no published split. Grey values of 0 to 16 are spread over 0 to 255.
    """
    try:
        from sklearn.datasets import load_digits  # noqa: PLC0415
    except ImportError:
        raise MissingExtraError("scikit-learn", "eval", "the set of digits") from None
    bundled = load_digits()
    test = np.arange(len(bundled.target)) % 7 == 6
    chosen = test if split == "test" else ~test
    pixels = np.round(bundled.images[chosen] * (255 / 16)).astype(np.uint8)
    return ArrayImages(f"digits ({split})", pixels, _numbers(bundled.target[chosen]))


def _idx(folder: Path, name: str, axes: int) -> Pixels:
    """Return an array of bytes in IDX form: two zeros, the type 8, the number of axes, each axis as a 32-bit number."""
    packed, plain = folder / f"{name}.gz", folder / name
    file = plain if plain.is_file() else packed
    try:
        data = gzip.decompress(file.read_bytes()) if file == packed else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({error}); fetch it again") from None
    head = 4 + 4 * axes
    shape = tuple(np.frombuffer(data[4:head], ">u4").tolist()) if len(data) >= head else ()
    if data[:4] != bytes((0, 0, 8, axes)) or len(data) - head != int(np.prod(shape, dtype=np.int64)):
        raise DataError(f"{file}: not an IDX file of bytes with {axes} axes, or cut short; fetch it again")
    return np.frombuffer(data, np.uint8, offset=head).reshape(shape)


def _cifar(folder: Path, split: str, files: list[str], key: str, names: list[str]) -> ArrayImages:
    known = names_of("cifar10" if key == "labels" else "cifar100").names
    if set(names) != set(known):
        raise DataError(f"{folder}: its classes are {names[:3]!r} and so on, not CIFAR's; unpack it again")
    pixels: list[Pixels] = []
    labels: list[str] = []
    for name in files:
        batch = _batch(folder / name, "data", key)
        pixels.append(batch["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        labels += [names[number] for number in batch[key]]
    return ArrayImages(f"{folder} ({split})", np.concatenate(pixels), labels)


def _batch(file: Path, *keys: str) -> dict[str, Any]:
    """Return values of the dictionary that one of CIFAR's files pickles: lists, and (n, 3072) bytes."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DataError(
            f"{file}: cannot be read ({error.strerror}); unpack the Python version again"
        ) from None
    try:
        content = PickleReader(_python3(data), str(file), _pickled_name, _no_persistent).read()
        values = {key: content[key] for key in keys}
        return {
            key: _array(value.state) if isinstance(value, _Array) else value for key, value in values.items()
        }
    except (CheckpointError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: not one of CIFAR's files, or damaged ({error}); unpack it again") from None


def _array(state: Any) -> Pixels:
    """Return the array that NumPy would make of the state that it pickled."""
    _, shape, kind, by_column, raw = state
    if kind.arguments[0] not in ("u1", "|u1") or by_column:
        raise ValueError(f"an array of {kind.arguments[0]!r}")
    return np.frombuffer(raw.encode("latin-1"), np.uint8).reshape(shape)


class _Array(InertObject):
    """An object in the place of NumPy's: its arguments and its state are kept, and nothing of it is called."""

    def __init__(self, arguments: tuple[Any, ...]) -> None:
        self.arguments = arguments


_NUMPY_NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): Name("_reconstruct", _Array),
    ("numpy._core.multiarray", "_reconstruct"): Name("_reconstruct", _Array),
    ("numpy", "ndarray"): Name("ndarray"),
    ("numpy", "dtype"): Name("dtype", _Array),
}


def _pickled_name(module: str, name: str) -> Name:
    if (module, name) not in _NUMPY_NAMES:
        raise CheckpointError(
            f"it refers to {module}.{name}, which no array needs; refused, and nothing was run"
        )
    return _NUMPY_NAMES[module, name]


def _no_persistent(identity: Any) -> Any:
    raise CheckpointError(f"it refers to an object outside the file ({identity!r})")


def _python3(data: bytes) -> bytes:
    """Rewrite a pickle's strings of Python 2 as text, a letter a byte: the reader knows what torch writes, which has
    no strings of bytes. `genops` takes a pickle apart and runs nothing of it."""
    operations = [(code.name, argument, place or 0) for code, argument, place in pickletools.genops(data)]
    ends = [*(place for _, _, place in operations[1:]), len(data)]
    parts = []
    for (name, argument, place), end in zip(operations, ends, strict=True):
        if name in ("SHORT_BINSTRING", "BINSTRING"):
            text = str(argument).encode()
            parts.append(b"X" + len(text).to_bytes(4, "little") + text)
        else:
            parts.append(data[place:end])
    return b"".join(parts)


def _bytes(file: Path) -> Pixels:
    """Return the bytes of a file, mapped rather than read."""
    try:
        return np.memmap(file, np.uint8, "r")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read ({error}); unpack the dataset again") from None


def _numbers(labels: npt.NDArray[Any]) -> list[str]:
    return [str(int(label)) for label in labels]
