"""Files that claim to be images: cut, damaged, too large, bombs, other formats, metadata that make no sense."""

import random
import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from tests.messy.messy_pictures import (
    DAMAGED,
    EMPTY,
    FORMAT_NOT_READ,
    NOT_AN_IMAGE,
    READ,
    TOO_LARGE,
    TRUNCATED,
    UNKNOWN_RANGE,
    Fate,
    Picture,
    chunk,
    drawing,
    encoded,
    exif,
    ifd,
    png,
    seeds,
    uniform_jpeg,
)

_TAILS = {"jpg": 2, "progressive.jpg": 2, "png": 24, "palette.png": 24, "gif": 2, "avif": 0}
"""Bytes at the end of a format that the picture may do without."""


def cut_files(each: int) -> Iterator[Picture]:
    """Every format cut at its first bytes, at `each` places inside, and just before its end.

    What is left of a picture is never taken for a picture: a cut file is an error, unless all its pixels are there.
    """
    for form, whole in seeds().items():
        suffix = form.rpartition(".")[2]
        inside = [len(whole) * place // (each + 1) for place in range(1, each + 1)]
        places = sorted(
            {0, 1, 2, 3, 4, 8, 11, 12, 16, 20, 25, 30, 33, *inside, len(whole) - 2, len(whole) - 1}
        )
        for place in places:
            fate: Fate = (TRUNCATED,)
            if place == 0:
                fate = (EMPTY,)
            elif place < 16:
                fate = (NOT_AN_IMAGE, TRUNCATED)
            elif place >= len(whole) - _TAILS.get(form, 0):
                fate = (READ, TRUNCATED)
            yield Picture("cut", f"{form} at {place:05}", suffix, whole[:place], fate)


def flipped_files(each: int) -> Iterator[Picture]:
    """Every format with a few bits that are wrong: an image or a reason, whatever the bits are."""
    anything = (READ, TRUNCATED, DAMAGED, NOT_AN_IMAGE, FORMAT_NOT_READ, TOO_LARGE, UNKNOWN_RANGE)
    for form, whole in seeds().items():
        for number in range(each):
            draw = random.Random(f"{form} {number}")
            data = bytearray(whole)
            # A third of the flips hit the header, where they do the most.
            reach = len(data) if number % 3 else min(64, len(data))
            for _ in range(draw.randint(1, 6)):
                data[draw.randrange(reach)] ^= 1 << draw.randrange(8)
            yield Picture(
                "bits flipped", f"{form} {number:03}", form.rpartition(".")[2], bytes(data), anything
            )


def wrong_suffixes() -> Iterator[Picture]:
    """Images under the suffix of another format: the bytes decide."""
    for form, suffix in (
        ("jpg", "png"),
        ("png", "jpg"),
        ("webp", "jpg"),
        ("avif", "jpg"),
        ("gif", "jpeg"),
        ("bmp", "webp"),
        ("tif", "avif"),
        ("lossless.webp", "gif"),
        ("palette.png", "tif"),
    ):
        yield Picture("wrong suffix", f"really {form}", suffix, seeds()[form] + b"\0", (READ,))


def not_images() -> Iterator[Picture]:
    """What downloads and synchronisation leave behind: something else under an image's name."""
    draw = random.Random(7)
    contents: dict[str, bytes] = {
        "random bytes": draw.randbytes(3000),
        "one byte": b"\xff",
        "zeros": bytes(4096),
        "text": b"this is not an image\n",
        "a page of an error": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "JSON": b'{"error": "rate limited"}',
        "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "UTF-16": "text".encode("utf-16"),
        "zip": b"PK\x03\x04" + bytes(30),
        "program": b"\x7fELF" + bytes(60),
        "AppleDouble": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(60),
    }
    for name, data in contents.items():
        for suffix in ("jpg", "png", "heic", "tif"):
            yield Picture("not an image", name, suffix, data, (NOT_AN_IMAGE,))
    others: dict[str, bytes] = {
        "ICO": encoded(drawing(1, 16, 16), "ICO"),
        "PPM": encoded(drawing(1), "PPM"),
        "TGA": encoded(drawing(1), "TGA"),
        "JPEG 2000": encoded(drawing(1), "JPEG2000"),
        "DDS": encoded(drawing(1), "DDS"),
        "ICNS": b"icns" + bytes(60),
        "PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "PSD": b"8BPS\0\x01" + bytes(60),
        "JPEG XL": b"\xff\x0a" + bytes(60),
        "MP4": b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(60),
        "QuickTime": b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(60),
        "WAV": b"RIFF\x24\0\0\0WAVEfmt " + bytes(60),
        "FUJIFILM raw": b"FUJIFILMCCD-RAW 0201" + bytes(60),
        "JPEG without a frame": b"\xff\xd8\xff\xd9",
    }
    for name, data in others.items():
        fate: Fate = (NOT_AN_IMAGE, FORMAT_NOT_READ)
        if name == "JPEG without a frame":
            fate = (TRUNCATED, DAMAGED)
        for suffix in ("jpg", "png"):
            yield Picture("another format", name, suffix, data, fate)


def other_suffixes() -> Iterator[tuple[str, bytes]]:
    """Names of files that are no images by their suffix, and what is in them."""
    for suffix in (
        *("ico", "psd", "svg", "pdf", "eps", "ppm", "tga", "jp2", "jxl", "xcf", "exr", "icns", "ai"),
        *("dng", "cr2", "cr3", "nef", "arw", "raf", "orf", "rw2", "pef", "srw", "DNG", "x3f"),
        *("mov", "MOV", "mp4", "MP4", "avi", "mkv", "webm", "m4v", "3gp", "mts"),
        *(
            "mp3",
            "wav",
            "docx",
            "xlsx",
            "zip",
            "7z",
            "db",
            "ini",
            "xmp",
            "aae",
            "part",
            "crdownload",
            "tmp",
            "bak",
        ),
        *(
            "py",
            "md",
            "html",
            "csv",
            "parquet",
            "npy",
            "safetensors",
            "log",
            "jpg_",
            "jpg~",
            "jpg.part",
            "jpg.txt~",
        ),
    ):
        yield f"file.{suffix}", f"the bytes of a {suffix}".encode()


# ---- sizes


def large_pictures(*, most: bool) -> Iterator[Picture]:
    """Images at the limit of 50 megapixels and above it: small on a disk, but decoding them takes real time."""
    above: Fate = (READ, TOO_LARGE)
    yield Picture("large", "one above the limit", "png", _large_png(10_000, 5_001), (TOO_LARGE,))
    yield Picture("large", "200 MP of a phone", "jpg", uniform_jpeg(16_320, 12_240, colour=True), above)
    yield Picture("large", "one side too long", "png", _large_png(1_000_001, 1), (TOO_LARGE,))
    if not most:
        return
    yield Picture("large", "at the limit", "png", _large_png(10_000, 5_000), (READ,))
    yield Picture("large", "at the limit", "jpg", uniform_jpeg(10_000, 5_000), (READ,))
    yield Picture("large", "one row above the limit", "jpg", uniform_jpeg(10_000, 5_001, colour=True), above)
    yield Picture("large", "108 MP of a phone", "jpg", uniform_jpeg(12_000, 9_000, colour=True), above)
    yield Picture("large", "panorama", "jpg", uniform_jpeg(40_000, 2_500, colour=True), above)
    yield Picture(
        "large",
        "the most that JPEG can say",
        "jpg",
        uniform_jpeg(65_500, 65_500)[:4000],
        (TOO_LARGE, TRUNCATED, DAMAGED),
    )
    yield Picture("large", "one side as long as allowed", "png", _large_png(1_000_000, 1), (READ,))


def _large_png(width: int, height: int) -> bytes:
    return png(width, height, 1, 0, (b"\0" + bytes(-(-width // 8))) * height)


def bombs() -> Iterator[Picture]:
    """Small files that would take gigabytes: by what the header says, or by what the data become."""
    little = struct.pack("<ii", 60_000, 60_000)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 16, 6, 0, 0, 0))
    huge = zlib.compress(bytes(400_000_000), 9)
    text = chunk(b"zTXt", b"parameters\0\0" + huge)
    international = chunk(b"iTXt", b"parameters\0\x01\0\0\0" + huge)
    profile = chunk(b"iCCP", b"sRGB\0\0" + huge)
    one_row = b"\0" + bytes(range(48)) * 3
    refused: Fate = (TOO_LARGE,)
    yield Picture("bomb", "header", "png", b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b""), refused)
    yield Picture("bomb", "sides of 60,000", "bmp", _patched(seeds()["bmp"], 18, little), refused)
    yield Picture(
        "bomb",
        "sides of 60,000",
        "gif",
        _patched(seeds()["gif"], 6, struct.pack("<HH", 60_000, 60_000)),
        refused,
    )
    yield Picture(
        "bomb", "data behind the last row", "png", png(48, 1, 8, 2, one_row + bytes(5_000_000)), (READ,)
    )
    endless = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 32, 8, 0, 0, 0, 0))
    yield Picture(
        "bomb", "rows without end", "png", endless + chunk(b"IDAT", huge) + chunk(b"IEND", b""), (READ,)
    )
    yield Picture("bomb", "text", "png", png(48, 1, 8, 2, one_row, text), (READ, DAMAGED))
    yield Picture(
        "bomb", "international text", "png", png(48, 1, 8, 2, one_row, international), (READ, DAMAGED)
    )
    yield Picture("bomb", "profile", "png", png(48, 1, 8, 2, one_row, profile), (READ, DAMAGED))
    frames = encoded(
        drawing(3), "GIF", save_all=True, append_images=[drawing(n, 48, 32) for n in range(4, 120)]
    )
    yield Picture("bomb", "many frames", "gif", frames, (READ,))
    segments = b"\xff\xd8" + b"\xff\xe1\xff\xff" * 1 + bytes(65_533)
    yield Picture("bomb", "segments alone", "jpg", segments * 3, (TRUNCATED, DAMAGED))
    progressive = seeds()["progressive.jpg"]
    scan = progressive.index(b"\xff\xda")
    yield Picture(
        "bomb",
        "scans without end",
        "jpg",
        progressive[:scan] + progressive[scan:-2] * 200,
        (READ, TRUNCATED, DAMAGED),
    )
    chain = b"".join(struct.pack("<HHHIII", 1, 256, 4, 1, 1, 8 + 18 * ((n + 1) % 500)) for n in range(500))
    yield Picture(
        "bomb",
        "directories in a circle",
        "tif",
        b"II*\0" + struct.pack("<I", 8) + chain,
        (TRUNCATED, DAMAGED),
    )


def _patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


# ---- metadata


def odd_metadata() -> Iterator[Picture]:
    """Whole pictures whose metadata make no sense: the picture is read all the same."""
    rational = struct.pack("<II", 2**32 - 1, 0)
    payloads: dict[str, bytes] = {
        "empty": b"",
        "one byte": b"I",
        "random": random.Random(1).randbytes(400),
        "no directory": b"II*\0" + struct.pack("<I", 2**32 - 1),
        "directory in a circle": ifd([(274, 3, 1, struct.pack("<HH", 1, 0))], following=8),
        "EXIF directory is itself": ifd([(0x8769, 4, 1, struct.pack("<I", 8))]),
        "GPS directory is itself": ifd([(0x8825, 4, 1, struct.pack("<I", 8))]),
        "GPS without degrees": ifd([(0x8825, 4, 1, struct.pack("<I", 26))])
        + struct.pack("<H", 1)
        + struct.pack("<HHI", 2, 5, 3)
        + struct.pack("<I", 44)
        + bytes(4)
        + rational * 3,
        "two billion entries": ifd([(0x010F, 2, 2**31 - 1, struct.pack("<I", 8))]),
        "orientation as text": ifd([(274, 2, 4, b"six\0")]),
        "orientation as a rational": ifd([(274, 5, 1, struct.pack("<I", 26))]) + rational,
        "orientation of 300 values": ifd([(274, 3, 300, struct.pack("<I", 26))])
        + struct.pack("<300H", *[6] * 300),
        "a type that does not exist": ifd([(274, 99, 1, bytes(4))]),
        "resolution by zero": ifd([(282, 5, 1, struct.pack("<I", 26))]) + rational,
        "other byte order": b"MM\0*" + struct.pack("<I", 8),
        "maker's notes of 60,000 bytes": ifd([(0x927C, 7, 60_000, struct.pack("<I", 26))]) + bytes(60_000),
    }
    for number, (name, payload) in enumerate(payloads.items()):
        data = encoded(drawing(700 + number), "JPEG", exif=b"Exif\0\0" + payload)
        yield Picture("odd metadata", f"EXIF {name}", "jpg", data, (READ,))
        webp = encoded(drawing(720 + number), "WEBP", exif=b"Exif\0\0" + payload) if payload else b""
        if webp:
            yield Picture("odd metadata", f"EXIF {name}", "webp", webp, (READ,))
        data = png(48, 1, 8, 2, b"\0" + bytes([number]) * 144, chunk(b"eXIf", payload))
        yield Picture("odd metadata", f"EXIF {name}", "png", data, (READ,))
    texts = {
        "year 0": "0000:00:00 00:00:00",
        "month 13": "2024:13:45 25:61:61",
        "spaces": "    :  :     :  :  ",
        "year 9999": "9999:12:31 23:59:59",
        "year 1": "0001:01:01 00:00:00",
        "not a date": "yesterday",
        "empty": "",
        "not ASCII": "2024\N{FULLWIDTH COLON}06\N{FULLWIDTH COLON}01",
        "very long": "2024:06:01 " * 1500,
    }
    for number, (name, text) in enumerate(texts.items()):
        said = exif(None, x0132=text, x010F=text, x0110="\N{CAMERA}\0\x01" + text)
        data = encoded(drawing(740 + number), "JPEG", exif=said)
        yield Picture("odd metadata", f"date {name}", "jpg", data, (READ,))
    places = {"not a number": (0, 0), "huge": (2**32 - 1, 1), "tiny": (1, 2**32 - 1), "ordinary": (52, 1)}
    for number, (name, (above, below)) in enumerate(places.items()):
        entry = struct.pack("<II", above, below) * 3
        gps = struct.pack("<H", 4)
        gps += struct.pack("<HHI", 1, 2, 2) + b"N\0\0\0" + struct.pack("<HHII", 2, 5, 3, 80)
        gps += struct.pack("<HHI", 3, 2, 2) + b"E\0\0\0" + struct.pack("<HHII", 4, 5, 3, 80) + bytes(4)
        block = ifd([(0x8825, 4, 1, struct.pack("<I", 26))]) + gps + entry
        data = encoded(drawing(760 + number), "JPEG", exif=b"Exif\0\0" + block)
        yield Picture("odd metadata", f"place {name}", "jpg", data, (READ,))
    profiles = {
        "random": random.Random(2).randbytes(500),
        "one byte": b"x",
        "large": bytes(300_000),
        "without tags": struct.pack(">I", 128) + bytes(124),
    }
    for number, (name, profile) in enumerate(profiles.items()):
        for kind, suffix in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp"), ("TIFF", "tif")):
            data = encoded(drawing(780 + number), kind, icc_profile=profile)
            yield Picture("odd metadata", f"profile {name}", suffix, data, (READ,))
    xmp = b"http://ns.adobe.com/xap/1.0/\0<x:xmpmeta" + b"<a>" * 15_000
    data = encoded(drawing(790), "JPEG")
    data = data[:2] + b"\xff\xe1" + struct.pack(">H", len(xmp) + 2) + xmp + data[2:]
    yield Picture("odd metadata", "XMP nested", "jpg", data, (READ,))
    entities = (
        b'<?xml version="1.0"?><!DOCTYPE z [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><z>&b;</z>'
    )
    yield Picture(
        "odd metadata", "XMP with entities", "webp", encoded(drawing(791), "WEBP", xmp=entities), (READ,)
    )


def empty_files() -> Iterator[Picture]:
    for suffix in ("jpg", "png", "webp", "gif", "bmp", "tif", "avif", "heic", "jfif", "mpo"):
        yield Picture("empty", "empty", suffix, b"", (EMPTY,))


def plain(number: int) -> bytes:
    """A small good JPEG, another one for each number."""
    return encoded(drawing(number), "JPEG", quality=90)


def solid(number: int) -> bytes:
    return encoded(Image.new("RGB", (20, 20), (number % 256, 90, 90)), "PNG")
