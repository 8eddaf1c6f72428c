"""What is written here and not taken from a library: each beside the library, where a number can tell them apart.

    python benchmarks/own_code.py [--captions 20000] [--members 20000] [--repetitions 5] [--slots 26]

Needs transformers. `--slots` is the power of two of the memo slot that the hostile pickle names; Python's own reader
takes 16 bytes a slot for it.
"""

import argparse
import io
import pickle
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from timing import alternate, describe_machine, ratio_with_spread
from tokenize_captions import make_captions
from torch.distributed.checkpoint.state_dict_saver import save as save_sharded

from diptych.data.files.places import open_to_scan, place_of
from diptych.data.sources.tar import read_members
from diptych.errors import DiptychError
from diptych.tokenizer import Tokenizer
from diptych.tokenizer.vocabulary import read_merges
from diptych.weights.foreign.pickle_reader import PickleReader


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=20_000)
    parser.add_argument("--members", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--slots", type=int, default=26)
    asked = parser.parse_args()
    print(describe_machine("torch", "transformers", "tokenizers") + "\n")
    print("| what | library | Diptych | |\n|---|---:|---:|---|")
    for row in (
        *tokenizers(asked.captions, asked.repetitions),
        *archives(asked.members, asked.repetitions),
        *pickles(asked.slots),
        *checkpoints(),
    ):
        print(f"| {' | '.join(row)} |", flush=True)


def tokenizers(count: int, repetitions: int) -> Iterator[tuple[str, ...]]:
    """Ids of captions beside the tokenizer of transformers, which is that of the package tokenizers, in Rust."""
    theirs, ours = rust_tokenizer(), Tokenizer()
    for name, dirty in (("clean", 0.0), ("dirty", 1.0)):
        captions = make_captions(count, seed=1, dirty=dirty)

        def fast(captions: list[str] = captions) -> list[list[int]]:
            return theirs(captions, padding=False)["input_ids"]

        def own(captions: list[str] = captions) -> list[list[int]]:
            return [ours.encode(caption) for caption in captions]

        equal = sum(row[1:-1] == ids for row, ids in zip(fast(), own(), strict=True)) / count
        yield row(
            f"tokenize {count:,} {name} captions", alternate({"a": fast, "b": own}, repetitions),
            f"{equal:.1%} of captions have the same ids",
        )  # fmt: skip


def rust_tokenizer() -> Callable[..., dict[str, list[list[int]]]]:
    """CLIP's vocabulary in the tokenizer of transformers."""
    merges = read_merges().decode().splitlines()
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = [*map(chr, printable), *map(chr, range(256, 512 - len(printable)))]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(pair.replace(" ", "") for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    from transformers import CLIPTokenizer  # noqa: PLC0415 - takes seconds

    return CLIPTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(pair.split()) for pair in merges],  # type: ignore[misc] # it is annotated as strings
    )


def archives(count: int, repetitions: int) -> Iterator[tuple[str, ...]]:
    """The offsets of a shard's members beside `tarfile`, and what each says of an archive that is cut short."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "shard.tar"
        with tarfile.open(path, "w") as archive:
            for number in range(count):
                header = tarfile.TarInfo(f"{number:08d}.jpg")
                header.size = 3000
                archive.addfile(header, io.BytesIO(bytes(3000)))

        def library() -> int:
            with tarfile.open(path) as archive:
                return sum(1 for member in archive if member.offset_data)

        def own() -> int:
            return sum(1 for _ in read_members(open_to_scan(place_of(path))))

        assert library() == own() == count
        yield row(f"index a tar of {count:,} members", alternate({"a": library, "b": own}, repetitions), "")
        path.write_bytes(path.read_bytes()[: count // 2 * 3584])
        try:
            said = f"{own():,} members"
        except DiptychError:
            said = "an error"
        yield "index its first half, cut between members", f"{library():,} members", said, ""


def pickles(power: int) -> Iterator[tuple[str, ...]]:
    """Memory for a pickle of nine bytes that stores None under a large number."""
    taken = []
    for reader in ("library", "own"):
        command = [sys.executable, __file__, "--pickle", reader, str(power)]
        taken.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    yield "read a hostile pickle of 9 bytes", f"{taken[0]:,} MiB", f"{taken[1]:,} MiB", "with no name allowed"


def read_pickle(reader: str, power: int) -> None:
    """Print how many MiB one reading took."""

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> object:
            raise pickle.UnpicklingError(f"{module}.{name}")

    def refuse(*_: object) -> object:
        raise pickle.UnpicklingError

    data = b"\x80\x02Nr" + (2**power - 1).to_bytes(4, "little") + b"."
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if reader == "library":
        Restricted(io.BytesIO(data)).load()
    else:
        PickleReader(data, "", refuse, refuse).read()  # type: ignore[arg-type]
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)


def checkpoints() -> Iterator[tuple[str, ...]]:
    """Whether a sharded checkpoint can be read without a pickle."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # it says that there is one process
        save_sharded({"weight": torch.zeros(4)}, checkpoint_id=folder, no_dist=True)
        pickled = [file.name for file in Path(folder).iterdir() if file.read_bytes()[:1] == b"\x80"]
        yield (
            "pickles in a sharded checkpoint",
            ", ".join(pickled) or "none",
            "none",
            "torch.distributed.checkpoint",
        )


def row(name: str, seconds: dict[str, list[float]], note: str) -> tuple[str, ...]:
    """A row with medians, and how many times as long the library takes."""
    library, own = (statistics.median(seconds[key]) for key in ("a", "b"))
    ratio = f"the library takes {ratio_with_spread(seconds['a'], seconds['b'])} times as long"
    return name, f"{library:.2f} s", f"{own:.2f} s", f"{ratio}; {note}" if note else ratio


if __name__ == "__main__":
    if sys.argv[1:2] == ["--pickle"]:
        read_pickle(sys.argv[2], int(sys.argv[3]))
    else:
        main()
