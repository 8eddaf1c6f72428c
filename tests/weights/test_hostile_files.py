"""Files made to do harm: each is refused with a `CheckpointError`, and nothing in it happens.

A hook on Python's audit events watches while a file is loaded: no program, no network, no file written, no
compiled code, no unpickling by Python itself.
"""

import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from diptych.errors import CheckpointError
from tests.weights.small_clip import load_stated, openai_state, save, small_clip

_FORBIDDEN = ("os.", "subprocess.", "socket.", "exec", "compile", "pickle.", "ctypes.", "shutil.", "marshal.")
_HARMLESS = ("os.listdir", "os.scandir")


class Canary:
    """Sings when something happens that loading weights never needs."""

    def __init__(self) -> None:
        self.watching = False
        self.heard: list[str] = []
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.watching:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if writes or (event.startswith(_FORBIDDEN) and event not in _HARMLESS):
            self.heard.append(f"{event} {arguments!r:.80}")

    @contextmanager
    def watch(self) -> Iterator[None]:
        self.heard = []
        self.watching = True
        try:
            yield
        finally:
            self.watching = False
        assert not self.heard


# An audit hook stays for the life of the process, so there is one.
CANARY = Canary()


def _refused(path: Path, message: str = ".") -> None:
    with CANARY.watch(), pytest.raises(CheckpointError, match=message):
        load_stated(path)


@pytest.fixture(scope="module", autouse=True)
def _everything_is_imported(tmp_path_factory: pytest.TempPathFactory) -> None:
    """So that imports, which read and compile files, are not heard later."""
    load_stated(save(openai_state(small_clip()), tmp_path_factory.mktemp("warm") / "model.pt"))


def _archive(
    path: Path,
    pickled: bytes,
    storages: Mapping[str, bytes] = {},
    extra: Mapping[str, bytes] = {},
) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/version", b"3\n")
        for key, raw in storages.items():
            file.writestr(f"archive/data/{key}", raw)
        for name, raw in extra.items():
            file.writestr(f"archive/{name}", raw)
    return path


def test_the_canary_hears_what_pythons_own_unpickler_does(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {tmp_path / 'executed'}",)

    data = pickle.dumps(Evil())
    with pytest.raises(AssertionError), CANARY.watch():
        pickle.loads(data)
    assert (tmp_path / "executed").exists()
    assert any(event.startswith("os.system") for event in CANARY.heard)


def _call(module: str, name: str, argument: str) -> bytes:
    return f"c{module}\n{name}\n".encode() + _text(argument) + b"\x85R"


def _text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


HEAD = b"\x80\x02"
COMMAND = "touch executed"

PICKLES: dict[str, bytes] = {
    "os.system": HEAD + _call("os", "system", COMMAND) + b".",
    "posix.system": HEAD + _call("posix", "system", COMMAND) + b".",
    "nt.system": HEAD + _call("nt", "system", COMMAND) + b".",
    "builtins.eval": HEAD + _call("builtins", "eval", "print(1)") + b".",
    "builtins.exec": HEAD + _call("builtins", "exec", "import os") + b".",
    "builtins.getattr": HEAD + b"cbuiltins\ngetattr\n" + _text("os") + _text("system") + b"\x86R.",
    "builtins.open": HEAD + b"cbuiltins\nopen\n" + _text("executed") + _text("w") + b"\x86R.",
    "__builtin__.eval": HEAD + _call("__builtin__", "eval", "1") + b".",
    "subprocess.Popen": HEAD + _call("subprocess", "Popen", COMMAND) + b".",
    "subprocess.Popen as a class": HEAD + b"csubprocess\nPopen\n" + _text(COMMAND) + b"\x85\x81.",
    "importlib": HEAD + _call("importlib", "import_module", "antigravity") + b".",
    "runpy": HEAD + _call("runpy", "run_path", "x.py") + b".",
    "webbrowser": HEAD + _call("webbrowser", "open", "http://127.0.0.1") + b".",
    "socket": HEAD + b"csocket\nsocket\n)R.",
    "ctypes": HEAD + _call("ctypes", "CDLL", "x.so") + b".",
    "code object": HEAD + _call("marshal", "loads", "c") + b".",
    "torch.load": HEAD + _call("torch", "load", "x.pt") + b".",
    "torch.jit.load": HEAD + _call("torch.jit", "load", "x.pt") + b".",
    "torch.storage._load_from_bytes": HEAD + _call("torch.storage", "_load_from_bytes", "x") + b".",
    "torch.hub": HEAD + _call("torch.hub", "load", "x") + b".",
    "torch.ops": HEAD + _call("torch", "ops.load_library", "x.so") + b".",
    "numpy": HEAD + b"cnumpy.core.multiarray\n_reconstruct\n)R.",
    "namespace": HEAD + b"cargparse\nNamespace\n)\x81}b.",
    "dotted name": HEAD + _call("torch._utils", "_rebuild_tensor_v2.__globals__", "x") + b".",
    "dotted storage": HEAD + _call("torch", "FloatStorage.__reduce__", "x") + b".",
    "STACK_GLOBAL": b"\x80\x04" + _text("os") + _text("system") + b"\x93" + _text(COMMAND) + b"\x85R.",
    "STACK_GLOBAL of numbers": b"\x80\x04K\x01K\x02\x93)R.",
    "INST": HEAD + b"(" + _text(COMMAND) + b"ios\nsystem\n.",
    "OBJ": HEAD + b"(cos\nsystem\n" + _text(COMMAND) + b"o.",
    "NEWOBJ_EX": b"\x80\x04csubprocess\nPopen\n" + _text(COMMAND) + b"\x85}\x92.",
    "EXT1": HEAD + b"\x82\x01)R.",
    "EXT2": HEAD + b"\x83\x01\x00)R.",
    "EXT4": HEAD + b"\x84\x01\x00\x00\x00)R.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "a script's class is called": HEAD + _call("__torch__.os", "system", COMMAND) + b".",
    "a script's class with arguments": HEAD + b"c__torch__.a\nB\n" + _text(COMMAND) + b"\x85\x81.",
    "a storage is called": HEAD + _call("torch", "FloatStorage", "x") + b".",
    "a text is called": HEAD + _text("x") + b")R.",
    "a function is made an object": HEAD + b"ctorch._utils\n_rebuild_tensor_v2\n)\x81.",
    "state of a text": HEAD + _text("x") + b"}b.",
    "state of a function": HEAD + b"ctorch._utils\n_rebuild_tensor_v2\n}b.",
    "items of a list": HEAD + b"]" + _text("a") + _text("b") + b"s.",
    "appended to a dictionary": HEAD + b"}" + _text("a") + b"a.",
    "a tuple as a key": HEAD + b"})" + b"\x85" * 50 + b"K\x01s.",
    "a key of a key": HEAD + b"}" + b")q\x00h\x00\x86" + b"q\x00h\x00h\x00\x86" * 60 + b"K\x01s.",
    "persistent text": HEAD + _text("storage") + b"Q.",
    "old persistent identity": b"Pstorage\n.",
    "empty": b"",
    "only a head": HEAD,
    "no stop": HEAD + b"}",
    "nothing on the stack": HEAD + b".",
    "pop from nothing": HEAD + b"0.",
    "no mark": HEAD + b"t.",
    "set items without a mark": HEAD + b"}u.",
    "tuple of nothing": HEAD + b"\x87.",
    "memo never set": HEAD + b"h\x07.",
    "a huge memo slot": HEAD + b"}r\xff\xff\xff\x7f0j\xfe\xff\xff\x7f.",
    "a text of four gigabytes": HEAD + b"X\xff\xff\xff\xffabc.",
    "bytes of exabytes": b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a frame that lies": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
    "not UTF-8": HEAD + b"X\x02\x00\x00\x00\xff\xfe.",
    "a line without an end": HEAD + b"cos",
    "a dictionary made with contents": HEAD + b"ccollections\nOrderedDict\n]\x85R.",
    "a list of a number": HEAD + b"ctorch.jit._pickle\nbuild_intlist\nK\x01\x85R.",
    "nothing to take the first of": HEAD + b"ctorch._utils\n_rebuild_parameter\n)R.",
}


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("script", [False, True], ids=["state dict", "TorchScript"])
def test_a_pickle_that_is_more_than_data_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    members = {"constants.pkl": HEAD + b")."} if script else {}
    _refused(_archive(tmp_path / "model.pt", PICKLES[name], extra=members))
    assert os.listdir(tmp_path) == ["model.pt"]


def test_a_tangle_of_references_is_refused_in_no_time(tmp_path: Path) -> None:
    # Each dictionary holds the one before twice: 2^200 paths in two kilobytes.
    tangle = (
        HEAD
        + b"}q\x00"
        + b"".join(b"}(" + _text("a") + b"h\x00" + _text("b") + b"h\x00uq\x00" for _ in range(200))
    )
    _refused(_archive(tmp_path / "model.pt", tangle + b".", extra={"constants.pkl": b""}), "deeper or wider")


def test_a_loop_of_references_is_refused(tmp_path: Path) -> None:
    loop = HEAD + b"}q\x00" + _text("a") + b"h\x00s."
    _refused(_archive(tmp_path / "model.pt", loop, extra={"constants.pkl": b""}), "deeper or wider")


def _tensor(
    size: bytes,
    stride: bytes,
    *,
    offset: bytes = b"K\x00",
    count: bytes = b"K\x04",
    kind: str = "Float",
    key: str = "0",
) -> bytes:
    """{'visual.proj': a tensor}, described as given; the storage has 16 bytes."""
    identity = (
        b"("
        + _text("storage")
        + f"ctorch\n{kind}Storage\n".encode()
        + _text(key)
        + _text("cpu")
        + count
        + b"tQ"
    )
    rebuilt = b"ctorch._utils\n_rebuild_tensor_v2\n(" + identity + offset + size + stride + b"\x89}tR"
    return HEAD + b"}" + _text("visual.proj") + rebuilt + b"s."


def _long(value: int) -> bytes:
    raw = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


TENSORS: dict[str, tuple[bytes, str]] = {
    "past the end": (_tensor(b"K\x05\x85", b"K\x01\x85"), "reaches past"),
    "offset past the end": (_tensor(b"K\x04\x85", b"K\x01\x85", offset=b"K\x01"), "reaches past"),
    "negative offset": (_tensor(b"K\x04\x85", b"K\x01\x85", offset=_long(-1)), "not counts"),
    "negative size": (_tensor(_long(-4) + b"\x85", b"K\x01\x85"), "not counts"),
    "negative stride": (_tensor(b"K\x04\x85", _long(-1) + b"\x85"), "not counts"),
    "stride zero": (_tensor(_long(1 << 20) + _long(1 << 20) + b"\x86", b"K\x00K\x00\x86"), "overlaps itself"),
    "overlapping rows": (_tensor(b"K\x02K\x03\x86", b"K\x01K\x01\x86"), "overlaps itself"),
    "gaps": (_tensor(b"K\x02\x85", b"K\x04\x85"), "reaches past"),
    "a size of 2^62": (_tensor(_long(1 << 62) + b"\x85", b"K\x01\x85"), "reaches past"),
    "sizes whose product wraps": (
        _tensor(_long(1 << 33) + _long(1 << 33) + b"\x86", _long(1 << 33) + b"K\x01\x86"),
        "past",
    ),
    "sizes and strides of different number": (_tensor(b"K\x04\x85", b"K\x01K\x01\x86"), "not counts"),
    "a truth as a size": (_tensor(b"\x88\x85", b"K\x01\x85"), "not counts"),
    "a list of sizes": (_tensor(b"]", b"K\x01\x85"), "not described"),
    "a storage that is shorter": (
        _tensor(b"K\x04\x85", b"K\x01\x85", count=b"K\x05"),
        "expected 5 numbers",
    ),
    "a storage of 2^62 numbers": (
        _tensor(b"K\x04\x85", b"K\x01\x85", count=_long(1 << 62)),
        "expected 4611686018427387904 numbers",
    ),
    "a storage of another type": (
        _tensor(b"K\x04\x85", b"K\x01\x85", kind="Double"),
        "expected 4 numbers of 8",
    ),
    "a quantized storage": (_tensor(b"K\x04\x85", b"K\x01\x85", kind="QInt8"), "QInt8Storage"),
    "a storage elsewhere": (_tensor(b"K\x04\x85", b"K\x01\x85", key="../data.pkl"), "is missing"),
    "a storage at the root": (_tensor(b"K\x04\x85", b"K\x01\x85", key="/etc/passwd"), "is missing"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_tensor_that_lies_about_its_sizes_is_refused(tmp_path: Path, name: str) -> None:
    pickled, message = TENSORS[name]
    _refused(_archive(tmp_path / "model.pt", pickled, {"0": bytes(16)}), message)


def test_one_storage_under_many_names_cannot_fill_the_memory(tmp_path: Path) -> None:
    state = openai_state(small_clip())
    big = torch.zeros(100_000)
    _refused(save({**state, **{f"copy.{i}": big for i in range(1000)}}, tmp_path / "model.pt"), "add up to")


def _rewritten(path: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[str, bytes, int]]) -> Path:
    target = path.with_name("changed.pt")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            name, raw, compression = change(info, old.read(info))
            new.writestr(name, raw, compression)
    return target


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return save(openai_state(small_clip()), tmp_path / "model.pt")


def test_compressed_members_are_refused(good: Path) -> None:
    _refused(_rewritten(good, lambda info, raw: (info.filename, raw, zipfile.ZIP_DEFLATED)), "is compressed")


def test_two_members_of_one_name_are_refused(good: Path) -> None:
    with zipfile.ZipFile(good, "a") as file, pytest.warns(UserWarning, match="Duplicate name"):
        file.writestr("model/data.pkl", b"")
    _refused(good, "two members named")


def test_two_pickles_are_refused(good: Path) -> None:
    with zipfile.ZipFile(good, "a") as file:
        file.writestr("other/data.pkl", b"")
    _refused(good, "found 2")


def test_a_zip_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as file:
        file.writestr("readme.txt", "hello")
    _refused(tmp_path / "model.pt", "not one of PyTorch's")


def test_the_other_byte_order_is_refused(good: Path) -> None:
    changed = _rewritten(
        good, lambda info, raw: (info.filename, b"big" if info.filename.endswith("byteorder") else raw, 0)
    )
    _refused(changed, "other byte order")


def test_an_encrypted_member_is_refused(good: Path) -> None:
    raw = bytearray(good.read_bytes())
    central = raw.index(b"PK\x01\x02")
    raw[central + 8] |= 1
    good.write_bytes(raw)
    _refused(good, "encrypted")


def test_a_pickle_larger_than_any_model_needs_is_refused(tmp_path: Path) -> None:
    _refused(_archive(tmp_path / "model.pt", HEAD + b"}" * (17 << 20)), "expected at most")


def test_members_that_share_their_bytes_are_refused(good: Path) -> None:
    """Central entries that point at one another's data make a small file look large."""
    raw = good.read_bytes()
    with zipfile.ZipFile(good) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
        others = [info for info in file.infolist() if info.filename.startswith("model/data/")]
        for info in others:
            info.file_size = info.compress_size = largest.file_size
            info.header_offset, info.CRC = largest.header_offset, largest.CRC
        directory = io.BytesIO()
        with zipfile.ZipFile(directory, "w") as writer:
            writer.filelist = file.infolist()
            writer.start_dir = 0
            writer._didModify = True  # type: ignore[attr-defined]
    good.write_bytes(_with_directory(raw, directory.getvalue()))
    _refused(good, "add up to")


def _with_directory(raw: bytes, directory: bytes) -> bytes:
    start = raw.index(b"PK\x01\x02")
    end = bytearray(directory)
    at = end.rindex(b"PK\x05\x06")
    end[at + 16 : at + 20] = struct.pack("<I", start)
    return raw[:start] + bytes(end)


def test_a_file_cut_anywhere_is_refused(good: Path) -> None:
    whole = good.read_bytes()
    for end in range(0, len(whole), len(whole) // 50):
        good.write_bytes(whole[:end])
        _refused(good)


def test_a_flipped_bit_in_a_storage_is_refused(good: Path) -> None:
    raw = bytearray(good.read_bytes())
    with zipfile.ZipFile(good) as file:
        largest = max(file.infolist(), key=lambda info: info.file_size)
    raw[largest.header_offset + largest.file_size // 2] ^= 1
    good.write_bytes(raw)
    _refused(good, "damaged")


@pytest.mark.parametrize("count", [1000, pytest.param(20_000, marks=pytest.mark.nightly)])
def test_a_changed_pickle_gives_a_model_or_a_clear_error(good: Path, count: int) -> None:
    choose = random.Random(0)
    with zipfile.ZipFile(good) as file:
        members = {info.filename: file.read(info) for info in file.infolist()}
    pickled = members["model/data.pkl"]
    refused = 0
    for _ in range(count):
        changed = bytearray(pickled)
        for _ in range(choose.randint(1, 4)):
            position = choose.randrange(len(changed))
            changed[position : position + choose.randint(0, 2)] = choose.randbytes(choose.randint(0, 2))
        with zipfile.ZipFile(good, "w") as file:
            for name, raw in members.items():
                file.writestr(name, bytes(changed) if name == "model/data.pkl" else raw)
        with CANARY.watch():
            try:
                load_stated(good)
            except CheckpointError:
                refused += 1
    assert refused > count // 2


STARTS = {
    "an old pickle": (pickle.dumps({"a": 1}, 2), "before PyTorch 1.6"),
    "a web page": (b"<!DOCTYPE html><html>", "web page"),
    "nothing": (b"", "0 bytes"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "expected a zip archive"),
    "a tar archive": (b"model" + bytes(252) + b"ustar", "expected a zip archive"),
    "a JPEG": (b"\xff\xd8\xff\xe0", "expected a zip archive"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    content, message = STARTS[name]
    (tmp_path / "model.pt").write_bytes(content)
    _refused(tmp_path / "model.pt", message)


def _safetensors(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)
    return path


def _row(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


HEADERS: dict[str, tuple[Any, bytes]] = {
    "a shape larger than its bytes": ({"visual.proj": _row([1 << 20, 1 << 20], 0, 16)}, bytes(16)),
    "a shape that wraps": ({"visual.proj": _row([1 << 33, 1 << 33], 0, 16)}, bytes(16)),
    "past the end": ({"visual.proj": _row([400], 0, 1600)}, bytes(16)),
    "overlap": ({"a": _row([4], 0, 16), "b": _row([4], 8, 24)}, bytes(24)),
    "a hole": ({"a": _row([4], 0, 16), "b": _row([4], 32, 48)}, bytes(48)),
    "bytes after the end": ({"a": _row([4], 0, 16)}, bytes(64)),
    "backwards": ({"a": _row([4], 16, 0)}, bytes(16)),
    "a negative size": ({"a": _row([-4], 0, 16)}, bytes(16)),
    "an unknown type": ({"a": _row([16], 0, 16, "F8_E4M3")}, bytes(16)),
    "no type": ({"a": {"shape": [4], "data_offsets": [0, 16]}}, bytes(16)),
    "names twice": (b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},' * 2, bytes(16)),
    "not JSON": (b"{" + b"\xff" * 30, b""),
    "deep JSON": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b""),
    "no tensors": ({}, b""),
    "another model": ({"weight": _row([4], 0, 16)}, bytes(16)),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_safetensors_header_that_lies_is_refused(tmp_path: Path, name: str) -> None:
    header, data = HEADERS[name]
    _refused(_safetensors(tmp_path / "model.safetensors", header, data))


def test_a_safetensors_header_without_end_is_refused(tmp_path: Path) -> None:
    _refused(_safetensors(tmp_path / "model.safetensors", b"{}" * 20, length=1 << 60))


def test_more_tensors_than_any_model_has_are_refused(tmp_path: Path) -> None:
    header = {f"t{i}": _row([0], 0, 0) for i in range(100_001)}
    _refused(_safetensors(tmp_path / "model.safetensors", header), "expected at most 100000")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_not_a_number_in_a_state_dict_is_refused(tmp_path: Path, value: float) -> None:
    state = openai_state(small_clip())
    state["visual.proj"][3, 5] = value
    save_file(state, tmp_path / "model.safetensors")
    _refused(tmp_path / "model.safetensors", "NaN or infinity")
