"""A messy folder, and the truth about it: what must become of each file.

`write_pile` writes everything, a folder a kind; `write_classes` the image files alone, spread over class folders.
"""

import contextlib
import ctypes
import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tests.messy.messy_captions import caption_files
from tests.messy.messy_damage import (
    bombs,
    cut_files,
    empty_files,
    flipped_files,
    large_pictures,
    not_images,
    odd_metadata,
    other_suffixes,
    plain,
    solid,
    wrong_suffixes,
)
from tests.messy.messy_pictures import READ, Fate, Picture, heic_pictures, whole_pictures

CAPTION = "caption file"  # used with the image beside it, and so neither read nor left out as an image
MISSING = "missing image"
NO_PERMISSION = "unreadable file"
NO_CAPTION_FILE = "unreadable caption file"

# Reasons of the walk over a folder; what follows a colon is the suffix.
HIDDEN = "hidden"
ORPHAN = "caption file without an image"
CIRCLE = "link in a circle"
UNLISTED = "folder that cannot be listed"
SPECIAL = "pipe, socket or device"
INDEX = "folder of a search index"
MODEL = "folder of a model"

_VIDEOS = (".mov", ".mp4", ".m4v", ".avi", ".mkv", ".webm", ".3gp", ".mts")


@dataclass
class Truth:
    """What must become of each file, by its path relative to the folder.

    A folder that is passed over as a whole stands there as one. top: the folder. forbidden: what was made unreadable,
    to be undone.
    """

    top: bytes = b""
    fates: dict[bytes, Fate] = field(default_factory=dict)
    kinds: dict[bytes, str] = field(default_factory=dict)
    forbidden: list[bytes] = field(default_factory=list)

    def add(self, path: bytes, kind: str, fate: Fate) -> None:
        assert path not in self.fates, path
        self.fates[path] = fate
        self.kinds[path] = kind

    @property
    def images(self) -> set[bytes]:
        """The files that count as images: those that are read, and those that cannot be."""
        walked = (HIDDEN, ORPHAN, CIRCLE, UNLISTED, SPECIAL, INDEX, MODEL, CAPTION)
        return {
            path
            for path, fate in self.fates.items()
            if not any(reason in walked or ":" in reason for reason in fate)
        }

    @property
    def left_out(self) -> Counter[str]:
        """How many files the walk over the folder leaves out, by reason."""
        images = self.images
        return Counter(
            fate[0] for path, fate in self.fates.items() if path not in images and fate != (CAPTION,)
        )


NIGHTLY = 2000  # files from which on everything is written, and nothing is thinned out


def pictures(count: int) -> Iterator[Picture]:
    """Image files for a folder of about `count` files: all variants once, and of all that is broken as many as fit."""
    each = max(2, (count - 600) // 25)
    yield from whole_pictures()
    yield from heic_pictures((READ,))
    yield from wrong_suffixes()
    yield from large_pictures(most=count >= NIGHTLY)
    broken = (empty_files(), not_images(), odd_metadata(), cut_files(each), flipped_files(each))
    for several in broken:
        yield from islice(several, 0, None, 1 if count >= NIGHTLY else 3)
    if count >= NIGHTLY:
        yield from bombs()


def write_pile(folder: Path, count: int) -> Truth:
    """Write about `count` files of every kind below `folder`, which must not exist yet."""
    truth = Truth(os.fsencode(folder))
    os.mkdir(truth.top)
    made = list(pictures(count))
    for number, picture in enumerate(made):
        path = _write(truth, picture.kind, f"{picture.name}.{picture.suffix}", picture.data, picture.fate)
        if number % 3 == 0:
            words = os.path.splitext(path)[0] + b".txt"
            if words not in truth.fates:
                _write_bytes(truth, words, f"picture {number} of kind {picture.kind}\n".encode())
                truth.add(words, "captions", (CAPTION,))
    for name, data in other_suffixes():
        _write(truth, "other files", name, data, (other_reason(name),))
    _names(truth)
    _captions(truth, large=count >= NIGHTLY)
    _hidden(truth)
    _links(truth)
    _special(truth)
    _permissions(truth)
    _nested(truth)
    _live_photos(truth)
    _own_folders(truth)
    return truth


def write_classes(folder: Path, count: int) -> Truth:
    """Write the image files below five class folders, some of whose names are awkward."""
    truth = Truth(os.fsencode(folder))
    os.mkdir(truth.top)
    classes = (b"red", b"green things", b"caf\xe9", "\N{BICYCLE}".encode(), b"{a,b} #1")
    for number, picture in enumerate(pictures(count)):
        name = f"{number:04} {picture.kind} {picture.name}.{picture.suffix}".encode()
        path = os.path.join(classes[number % len(classes)], name)
        _write_bytes(truth, path, picture.data)
        truth.add(path, picture.kind, picture.fate)
    return truth


def other_reason(name: str) -> str:
    """The reason to leave out a file by its suffix."""
    suffix = os.path.splitext(name)[1].lower()
    return f"video: {suffix}" if suffix in _VIDEOS else f"not an image: {suffix or 'no suffix'}"


def _write(truth: Truth, kind: str, name: str | bytes, data: bytes, fate: Fate) -> bytes:
    path = os.path.join(kind.encode(), os.fsencode(name))
    _write_bytes(truth, path, data)
    truth.add(path, kind, fate)
    return path


def _write_bytes(truth: Truth, path: bytes, data: bytes) -> None:
    place = os.path.join(truth.top, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    with open(place, "xb") as file:
        file.write(data)


AWKWARD_NAMES: Sequence[bytes] = (
    b"two words.jpg",
    b" leading space.jpg",
    b"new\nline.jpg",
    b"carriage\rreturn.jpg",
    b"tab\t.jpg",
    b"escape\x1b[31m.jpg",
    b"bell\x07.jpg",
    b"-leading dash.jpg",
    b"--help.jpg",
    b"-.jpg",
    b"~.jpg",
    b"quote'.jpg",
    b'double "quotes".jpg',
    b"back\\slash.jpg",
    b"back`tick`.jpg",
    b"hash#fragment.jpg",
    b"percent%20%00%.jpg",
    b"question?.jpg",
    b"star*.jpg",
    b"[ab].jpg",
    b"{a,b}.jpg",
    b"{000..099}.jpg",
    b"$HOME.jpg",
    b"a;b&c|d<e>.jpg",
    b"comma,semi;colon:.jpg",
    b"s3:..jpg",
    b"https:.jpg",
    b"sample:train.jpg",
    b"memory:x.jpg",
    b"con.jpg",
    b"nul.jpg",
    b"aux.png.jpg",
    b"a.b.c.d.jpg",
    b"a..jpg",
    b"x.tar.jpg",
    b"x.txt.jpg",
    b"x.json.jpg",
    b"<b>&amp;.jpg",
    b"'); DROP TABLE images;--.jpg",
    b"[red]rich markup[/red].jpg",
    b"%s%n{}{0}.jpg",
    b"caf\xe9.jpg",
    b"\xff\xfe.jpg",
    b"\xed\xa0\x80 surrogate.jpg",
    "caf\u00e9 composed.jpg".encode(),
    "cafe\u0301 composed.jpg".encode(),
    "\N{BICYCLE}\N{VARIATION SELECTOR-16}.jpg".encode(),
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe.jpg".encode(),
    "\N{HEBREW LETTER ALEF}\N{ARABIC LETTER BEH}.jpg".encode(),
    "\N{CJK UNIFIED IDEOGRAPH-56FE}.jpg".encode(),
    "\N{ZERO WIDTH SPACE}.jpg".encode(),
    "\N{NO-BREAK SPACE}.jpg".encode(),
    "\N{LINE SEPARATOR}.jpg".encode(),
    "\N{BYTE ORDER MARK}.jpg".encode(),
    "\uffff.jpg".encode(),
    "\N{FULLWIDTH SOLIDUS}.jpg".encode(),
    "I\N{COMBINING DOT ABOVE} turkish.jpg".encode(),
    b"n" * 251 + b".jpg",
    b"\xc3\xa9" * 125 + b".jpg",
    b"\xe9" * 251 + b".jpg",
)


def _names(truth: Truth) -> None:
    """Good images under every awkward name, and names that only look like an image's."""
    for number, name in enumerate(AWKWARD_NAMES):
        _write(truth, "names", name, plain(1000 + number), (READ,))
    for number, name in enumerate(
        (b"no suffix", b"dot at the end.jpg.", b"space at the end.jpg ", b"jpg", b"x.jpg\n")
    ):
        suffix = os.fsdecode(os.path.splitext(name)[1]).lower()
        _write(truth, "names", name, plain(1100 + number), (f"not an image: {suffix or 'no suffix'}",))
    folders = (
        *(
            b"folder.jpg",
            b"-x",
            b"caf\xe9",
            b"new\nline",
            b"{a,b}",
            b"*",
            b"s3:",
            b"https:",
            b" ",
            b"a#b",
            b"%2e%2e",
        ),
        *(
            b"sample:train",
            "\N{BICYCLE}".encode(),
            b"x.tar",
            b"x.csv",
            b"index.json",
            b"n" * 255,
            b"...",
            b"~",
        ),
    )
    for number, name in enumerate(folders):
        fate = (HIDDEN,) if name.startswith(b".") else (READ,)
        path = os.path.join(b"names of folders", name, b"1.jpg")
        _write_bytes(truth, path, plain(1200 + number))
        truth.add(os.path.dirname(path) if fate == (HIDDEN,) else path, "names", fate)


def _captions(truth: Truth, *, large: bool) -> None:
    for number, (name, suffix, data, fate) in enumerate(caption_files()):
        if not large and len(data) > 1_000_000 and "one line" not in name:
            continue
        stem = f"captions/{suffix[1:]} {name}".encode()
        _write_bytes(truth, stem + b".jpg", plain(1300 + number))
        truth.add(stem + b".jpg", "captions", fate)
        _write_bytes(truth, stem + suffix.encode(), data)
        truth.add(stem + suffix.encode(), "captions", (CAPTION,))
    for orphan in (b"orphan.txt", b"orphan.json", b"orphan.caption", b"ORPHAN2.TXT"):
        _write(truth, "captions", orphan, b"{}", (ORPHAN,))
    _write(truth, "captions", b"00000_stats.json", b"{}", ("not an image: .json",))
    stem = b"captions/both kinds"
    _write_bytes(truth, stem + b".jpg", plain(1400))
    _write_bytes(truth, stem + b".png", solid(140))
    _write_bytes(truth, stem + b".txt", b"a caption of two images")
    _write_bytes(truth, stem + b".json", b'{"label": "square"}')
    for end, role in ((b".jpg", READ), (b".png", READ), (b".txt", CAPTION), (b".json", CAPTION)):
        truth.add(stem + end, "captions", (role,))


def _hidden(truth: Truth) -> None:
    for name in (b".hidden.jpg", b".DS_Store", b"._x.jpg", b"...jpg", b"..jpg", b".jpg", b".x.txt"):
        _write(truth, "hidden", name, plain(1500), (HIDDEN,))
    for folder in (b".git", b".thumbnails"):
        _write_bytes(truth, os.path.join(b"hidden", folder, b"1.jpg"), plain(1501))
        truth.add(os.path.join(b"hidden", folder), "hidden", (HIDDEN,))
    _write_bytes(truth, b"hidden/__MACOSX/._1.jpg", plain(1502))
    truth.add(b"hidden/__MACOSX/._1.jpg", "hidden", (HIDDEN,))
    _write(truth, "hidden", b"Thumbs.db", b"\xd0\xcf\x11\xe0", ("not an image: .db",))
    _write(truth, "hidden", b"desktop.ini", b"[x]", ("not an image: .ini",))


def _links(truth: Truth) -> None:
    place = os.path.join(truth.top, b"links")
    os.mkdir(place)

    def link(target: bytes, name: bytes, fate: Fate) -> None:
        os.symlink(target, os.path.join(place, name))
        truth.add(b"links/" + name, "links", fate)

    _write(truth, "links", b"real.jpg", plain(1600), (READ,))
    link(b"real.jpg", b"to a file.jpg", (READ,))
    link(b"to a file.jpg", b"to a link.jpg", (READ,))
    link(os.path.join(place, b"real.jpg"), b"absolute.jpg", (READ,))
    os.link(os.path.join(place, b"real.jpg"), os.path.join(place, b"hard.jpg"))
    truth.add(b"links/hard.jpg", "links", (READ,))
    link(b"nowhere.jpg", b"dangling.jpg", (MISSING,))
    link(b"nowhere", b"dangling", ("not an image: no suffix",))
    link(b"itself.jpg", b"itself.jpg", (CIRCLE,))
    link(b"second.jpg", b"first.jpg", (CIRCLE,))
    link(b"first.jpg", b"second.jpg", (CIRCLE,))
    link(b"itself", b"itself", (CIRCLE,))
    link(b"..", b"parent", (CIRCLE,))
    link(b".", b"here", (CIRCLE,))
    link(place, b"here.jpg", (CIRCLE,))
    link(b"/dev/zero", b"zeros.jpg", (NO_PERMISSION,))
    link(b"/dev/null", b"null.png", (NO_PERMISSION,))
    outside = os.path.join(os.path.dirname(truth.top), b"outside")
    os.makedirs(outside, exist_ok=True)
    with open(os.path.join(outside, b"1.jpg"), "wb") as file:
        file.write(plain(1610))
    for name in (b"to a folder", b"to a folder again", b"to a folder.jpg"):
        os.symlink(outside, os.path.join(place, name))
        truth.add(b"links/" + name + b"/1.jpg", "links", (READ,))
    stem = b"links/caption is a link"
    for suffix, target in ((b"", b"real.txt"), (b" nowhere", b"nowhere.txt"), (b" endless", b"/dev/zero")):
        _write_bytes(truth, stem + suffix + b".jpg", plain(1620 + len(suffix)))
        os.symlink(target, os.path.join(truth.top, stem + suffix + b".txt"))
        truth.add(stem + suffix + b".txt", "links", (CAPTION,))
        truth.add(stem + suffix + b".jpg", "links", (READ,) if not suffix else (NO_CAPTION_FILE,))
    _write_bytes(truth, b"links/real.txt", b"a caption that is linked")
    truth.add(b"links/real.txt", "links", (CAPTION,))


def _special(truth: Truth) -> None:
    """What is no file and waits for ever when it is opened."""
    place = os.path.join(truth.top, b"special")
    os.mkdir(place)
    for name in (b"pipe.jpg", b"pipe.png", b"pipe without suffix"):
        os.mkfifo(os.path.join(place, name))
        truth.add(b"special/" + name, "special files", (SPECIAL,))
    before = os.getcwd()
    try:
        os.chdir(place)  # because the path of a socket may have 108 bytes at most
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(b"socket.jpg")
    finally:
        os.chdir(before)
    truth.add(b"special/socket.jpg", "special files", (SPECIAL,))
    for suffix in (b".txt", b".json"):
        stem = b"special/caption is a pipe " + suffix[1:]
        _write_bytes(truth, stem + b".jpg", plain(1700 + len(suffix)))
        os.mkfifo(os.path.join(truth.top, stem + suffix))
        truth.add(stem + b".jpg", "special files", (READ,))
        truth.add(stem + suffix, "special files", (SPECIAL,))


def _permissions(truth: Truth) -> None:
    """Files and folders that only a process without root's privileges finds closed."""
    place = b"permissions/"
    _write_bytes(truth, place + b"file.jpg", plain(1800))
    truth.add(place + b"file.jpg", "permissions", (NO_PERMISSION,))
    _write_bytes(truth, place + b"words.jpg", plain(1801))
    _write_bytes(truth, place + b"words.txt", b"nobody reads this")
    truth.add(place + b"words.jpg", "permissions", (NO_CAPTION_FILE,))
    truth.add(place + b"words.txt", "permissions", (CAPTION,))
    for name in (b"closed", b"not to be listed", b"lost+found"):
        _write_bytes(truth, place + name + b"/1.jpg", plain(1802))
        truth.add(place + name, "permissions", (UNLISTED,))
    _write_bytes(truth, place + b"only listed/1.jpg", plain(1803))
    truth.add(place + b"only listed/1.jpg", "permissions", (NO_PERMISSION,))
    modes = {b"file.jpg": 0, b"words.txt": 0, b"closed": 0, b"not to be listed": 0o311, b"lost+found": 0}
    for name, mode in {**modes, b"only listed": 0o644}.items():
        os.chmod(os.path.join(truth.top, place + name), mode)
        truth.forbidden.append(os.path.join(truth.top, place + name))


def _nested(truth: Truth) -> None:
    deep = b"/".join(b"%d" % level for level in range(50))
    for depth in (10, 50):
        path = b"nested/" + b"/".join(deep.split(b"/")[:depth]) + b"/1.jpg"
        _write_bytes(truth, path, plain(1900 + depth))
        truth.add(path, "nested", (READ,))
    os.makedirs(os.path.join(truth.top, b"nested/empty/empty/empty"))
    # A path that is longer than a system call takes: the folder at which that happens is left out as a whole.
    name = b"d" * 200
    start = os.open(os.path.join(truth.top, b"nested"), os.O_RDONLY)
    handle = start
    length = len(os.path.join(truth.top, b"nested"))
    relative = b"nested"
    closed = False
    for _ in range(24):
        os.mkdir(name, dir_fd=handle)
        below = os.open(name, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
        relative += b"/" + name
        length += 1 + len(name)
        if length >= 4096 and not closed:  # PATH_MAX counts the closing NUL
            truth.add(relative, "nested", (UNLISTED,))
            closed = True
    image = os.open(b"1.jpg", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=handle)
    os.write(image, plain(1950))
    os.close(image)
    os.close(handle)


def _live_photos(truth: Truth) -> None:
    _write(truth, "Live Photos", b"IMG_1.JPG", plain(2000), (READ,))
    _write(truth, "Live Photos", b"IMG_1.MOV", b"\0\0\0\x14ftypqt  ", ("video of a Live Photo: .mov",))
    _write(truth, "Live Photos", b"IMG_2.jpg", plain(2001), (READ,))
    _write(truth, "Live Photos", b"IMG_2.mp4", b"\0\0\0\x18ftypmp42", ("video of a Live Photo: .mp4",))
    _write(truth, "Live Photos", b"IMG_3.MOV", b"\0\0\0\x14ftypqt  ", ("video: .mov",))
    _write(truth, "Live Photos", b"IMG_1.AAE", b"<plist/>", ("not an image: .aae",))


def _own_folders(truth: Truth) -> None:
    """What Diptych writes, and what only looks like it; tars and tables among images."""
    index = {"format_version": 1, "current": "rows", "check": "0"}
    model = {"format_version": 1, "kind": "clip", "sha256": {}}
    for folder, name, fields, reason in (
        (b"index", b"index.json", index, INDEX),
        (b"run/model", b"diptych.json", model, MODEL),
    ):
        _write_bytes(truth, b"own/" + folder + b"/" + name, json.dumps(fields).encode())
        _write_bytes(truth, b"own/" + folder + b"/thumbnails/1.jpg", plain(2100))
        truth.add(b"own/" + folder, "own folders", (reason,))
    for number, (folder, name, data) in enumerate(
        (
            (b"a web page", b"index.json", b'{"pages": []}'),
            (b"a broken index", b"index.json", b'{"format_version": 1, "cur'),
            (b"a list", b"index.json", b"[]"),
            (b"another program", b"diptych.json", b'{"kind": "painting"}'),
            (b"a saved dataset", b"dataset_info.json", b"{}"),
        )
    ):
        path = b"own/" + folder + b"/"
        _write_bytes(truth, path + name, data)
        truth.add(path + name, "own folders", (ORPHAN,))
        _write_bytes(truth, path + b"1.jpg", plain(2110 + number))
        truth.add(path + b"1.jpg", "own folders", (READ,))
    for name in (
        b"shard.tar",
        b"00000.tar",
        b"pairs.csv",
        b"pairs.parquet",
        b"pack.tar.gz",
        b"metadata.jsonl",
    ):
        suffix = os.fsdecode(os.path.splitext(name)[1])
        _write(truth, "own folders", name, b"not what it says", (f"not an image: {suffix}",))


# ---- permissions


def without_privileges() -> None:
    """Give up root's right to read everything, for this process and those that it starts, at their next `exec`."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        return
    library = ctypes.CDLL(None, use_errno=True)
    drop_from_bounding_set, override, read_search = (
        24,
        1,
        2,
    )  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (override, read_search):
        if library.prctl(drop_from_bounding_set, capability, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "cannot give up a capability")


def permit(truth: Truth) -> None:
    """Undo what `write_pile` forbade, so that the folder can be removed."""
    for path in truth.forbidden:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(path, 0o755)
