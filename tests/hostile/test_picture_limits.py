"""Pictures whose parts are few bytes and cost much: each is refused at once, in one line."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pocketvl_runtime.errors import InputError, library_text
from pocketvl_runtime.image import open_image
from tests.runtime.bundles import picture

PARTS = 2_000_000
SECONDS = 5.0
"""Far above what the refusal takes (0.6 s at most), far below what Pillow would take (20 s and more)."""


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def jpeg(head: bytes, size: tuple[int, int] = (16, 16)) -> bytes:
    data = encoded(Image.new("RGB", size), "JPEG")
    return data[:2] + head + data[2:]


def segment(marker: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def jpeg_of_scans(count: int, size: tuple[int, int]) -> bytes:
    data = encoded(Image.new("RGB", size), "JPEG", progressive=True)
    last = data[data.rfind(b"\xff\xc4", 0, data.rfind(b"\xff\xda")) : -2]
    return data[:-2] + last * count + data[-2:]


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(before: bytes, after: bytes = b"") -> bytes:
    data = encoded(picture((16, 16)), "PNG")
    return data[:33] + before + data[33:-12] + after + data[-12:]


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"", compression: int = 8) -> bytes:
    tags = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 1, 8), (259, 3, 1, compression), (262, 3, 1, 1)]
    tags += [(277, 3, 1, 1), *entries]
    stored = b"".join(struct.pack("<HHII", *entry) for entry in sorted(tags))
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + stored + bytes(4) + data


def big_tiff(tags: int) -> bytes:
    entries = struct.pack("<HHQQ", 305, 2, 1, 0) * tags
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, tags) + entries + bytes(8)


def gif(blocks: bytes) -> bytes:
    data = encoded(picture((16, 16)), "GIF")
    place = 13 + 3 * (2 << (data[10] & 7)) if data[10] & 128 else 13
    return data[:place] + b"!\xfe" + blocks + b"\0" + data[place:]


def webp(chunk: bytes) -> bytes:
    data = encoded(picture((16, 16)), "WEBP")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02" + bytes(9) + chunk * PARTS + data[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def bmp_of_runs(count: int) -> bytes:
    head = struct.pack("<IiiHHIIiiII", 40, 1000, count // 1000, 1, 8, 1, 0, 0, 0, 256, 0)
    return (
        b"BM"
        + struct.pack("<IHHI", 0, 0, 0, 54 + 1024)
        + head
        + bytes(1024)
        + (b"\1\0" * 1000 + b"\0\0") * (count // 1000)
    )


BOMB = zlib.compress(bytes(2**20 - 10))
EXIF = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + bytes(65_000))
PHOTOSHOP = segment(0xED, b"Photoshop 3.0\0" + (b"8BIM" + bytes(8)) * 5_400)

HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "JPEG: EXIF data in segments": (lambda: jpeg(EXIF * 1_000), "over 16000000 bytes of metadata"),
    "JPEG: Photoshop's segments": (lambda: jpeg(PHOTOSHOP * 1_000), "over 16000000 bytes of metadata"),
    "JPEG: empty segments": (lambda: jpeg(segment(0xE5, b"") * PARTS), "more than 500 segments"),
    "JPEG: bare markers": (lambda: jpeg(b"\xff\xd8" * PARTS), "more than 500 segments"),
    "JPEG: ends before the scan": (lambda: jpeg(b"\xff\xd9" * PARTS), "more than 500 segments"),
    "JPEG: fill bytes": (lambda: jpeg(b"\xff" * 65 * PARTS), "bytes that are none of a segment"),
    "JPEG: restart markers": (lambda: jpeg(b"\xff\xd0" * PARTS), "bytes that are none of a segment"),
    "JPEG: no markers": (
        lambda: jpeg(segment(0xE5, b"") + bytes(65 * PARTS)),
        "bytes that are none of a segment",
    ),
    "JPEG: scans": (lambda: jpeg_of_scans(400, (4_000, 4_000)), "scans of 16000000 pixels"),
    "JPEG: small scans": (lambda: jpeg_of_scans(PARTS // 10, (16, 16)), "more than 500 segments"),
    "PNG: chunks": (lambda: png(chunk(b"tEXt", b"a\0b") * PARTS), "1001 chunks"),
    "PNG: private chunks": (lambda: png(chunk(b"abCd", b"") * PARTS), "1001 chunks"),
    "PNG: chunks of pixels": (lambda: png(chunk(b"IDAT", b"") * PARTS), "more than 150000 chunks"),
    "PNG: profiles": (lambda: png(chunk(b"iCCP", b"a\0\0" + BOMB) * 20_000), "1001 chunks"),
    "PNG: texts behind the pixels": (
        lambda: png(b"", chunk(b"zTXt", b"\0\0" + BOMB) * 20_000),
        "1001 chunks",
    ),
    "PNG: one large chunk": (lambda: png(chunk(b"eXIf", bytes(100_000_000))), "100000013 bytes of metadata"),
    "PPM: a comment": (
        lambda: b"P6\n#" + b"a" * 10 * PARTS + b"\n1 1\n255\n\0\0\0",
        "more than 500000 small",
    ),
    "PPM: text": (lambda: b"P2 8000 4000 255\n" + b"1 " * 16 * PARTS, "a text PPM of more than 16000000"),
    "PBM: text": (lambda: b"P1 8000 4000\n" + b"1 " * 16 * PARTS, "a text PPM of more than 16000000"),
    "GIF: blocks of a comment": (lambda: gif(b"\1a" * 10 * PARTS), "more than 500000 small pieces"),
    "BMP: runs": (lambda: bmp_of_runs(10 * PARTS), "more than 500000 small pieces"),
    "WebP: chunks": (lambda: webp(b"abcd" + bytes(4)), "20000 chunks or more"),
    "WebP: frames": (lambda: webp(b"ANMF\x18\0\0\0" + bytes(24)), "20000 chunks or more"),
    "TIFF: strips": (
        lambda: tiff([(273, 4, PARTS, 200), (279, 4, PARTS, 200)], bytes(8 * PARTS), 1),
        "tag 273 holds 2000000 values",
    ),
    "TIFF: tags of the same bytes": (
        lambda: tiff([(tag, 7, 60_000_000, 8) for tag in range(40_000, 42_000)], bytes(65_000_000)),
        "tag 40001 holds 60000000 values",
    ),
    "TIFF: tags": (lambda: tiff([(tag, 3, 1, 0) for tag in range(40_000, 50_000)]), "10006 tags"),
    "BigTIFF: tags": (lambda: big_tiff(PARTS), "2000000 tags"),
    "TIFF: a tile": (
        lambda: tiff([(322, 4, 1, 2**15), (323, 4, 1, 2**15), (324, 4, 1, 8), (325, 4, 1, 9)]),
        "tiles of 32768 x 32768",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("from_file", [True, False])
def test_what_would_take_minutes_is_refused_at_once(name: str, from_file: bool, tmp_path: Path) -> None:
    make, why = HOSTILE[name]
    data = make()
    given: Path | bytes = data
    assert len(data) < 256_000_000
    if from_file:
        given = tmp_path / "hostile"
        given.write_bytes(data)
    start = time.process_time()
    with pytest.raises(InputError, match="is built so that reading it would take minutes or") as caught:
        open_image(given)
    assert time.process_time() - start < SECONDS
    assert why in str(caught.value)
    assert "save it anew as a plain PNG or JPEG" in str(caught.value)


def test_what_editors_write_is_far_below_the_limits() -> None:
    """What is refused has its size or number alone against it: a tenth of each is taken."""
    xmp = segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + bytes(60_000))
    profile = segment(0xE2, b"ICC_PROFILE\0\1\1" + bytes(60_000))
    text = chunk(b"tEXt", b"Comment\0" + b"a" * 1000)
    for data in (
        jpeg(xmp * 20 + profile * 5 + b"\xff" * 100),
        jpeg_of_scans(12, (4_000, 4_000)),
        png(text * 90 + chunk(b"iCCP", b"a\0\0" + BOMB), text * 10),
        gif(b"\x10" + b"a" * 16 * 1),
        b"P6\n#" + b"a" * 10_000 + b"\n1 1\n255\n\0\0\0",
        b"P2 1000 1000 255\n" + b"1 " * 1_000_000,
        bmp_of_runs(48_000),
        encoded(picture((500, 400)), "TIFF", tiffinfo={40_000 + k: "text" for k in range(300)}),
        encoded(picture((500, 400)), "TIFF", compression="tiff_lzw", strip_size=500),
        encoded(
            picture((50, 40)), "GIF", save_all=True, append_images=[picture((50, 40), k) for k in range(50)]
        ),
        encoded(
            picture((50, 40)), "PNG", save_all=True, append_images=[picture((50, 40), k) for k in range(50)]
        ),
    ):
        open_image(data)


@pytest.mark.parametrize("fmt", ["WEBP", "GIF", "TIFF", "PNG"])
def test_of_many_frames_the_first_is_read(fmt: str) -> None:
    frames = [picture((8, 8), seed) for seed in range(400)]
    data = encoded(
        frames[0],
        fmt,
        save_all=True,
        append_images=frames[1:],
        **({"lossless": True} if fmt == "WEBP" else {}),
    )
    start = time.process_time()
    opened = np.asarray(open_image(data), int)
    assert time.process_time() - start < SECONDS
    assert np.abs(opened - np.asarray(frames[0])).mean() < 40


def test_directories_of_a_tiff_in_a_circle_end() -> None:
    stored = bytearray(encoded(picture((16, 16)), "TIFF"))
    entries = struct.unpack_from("<H", stored, 8)[0]
    assert stored[10 + 12 * entries : 14 + 12 * entries] == bytes(4)
    stored[10 + 12 * entries : 14 + 12 * entries] = struct.pack("<I", 8)
    assert open_image(bytes(stored)).size == (16, 16)


@pytest.mark.parametrize("header", [b"MM*\0", b"II\0*", b"MM\0+"])
def test_odd_tiff_headers_are_refused(header: bytes) -> None:
    with pytest.raises(InputError, match="is a TIFF of a kind that is not read; save it as PNG"):
        open_image(header + bytes(100))


def test_decoders_leave_stderr_to_the_command(tmp_path: Path) -> None:
    """libtiff prints what it finds wrong on file descriptor 2, past Python."""
    stored = bytearray(encoded(picture((64, 64)), "TIFF", compression="tiff_lzw"))
    start = stored.index(np.asarray(picture((64, 64))).tobytes()[:1], 8)
    stored[start + 20 : len(stored) - 300 : 7] = bytes(len(range(start + 20, len(stored) - 300, 7)))
    (tmp_path / "bad.tif").write_bytes(stored)
    load = "Image.open(path).load()"
    ours = "open_image(path)"
    said = {}
    for call in (load, ours):
        code = (
            "import sys; from PIL import Image; from pocketvl_runtime.image import open_image\n"
            f"path = sys.argv[1]\ntry: {call}\nexcept Exception: pass\n"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "bad.tif")]
        said[call] = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    assert "tempfile.tif" in said[load] or said[load], "this file makes libtiff print nothing"
    assert said[ours] == ""


def test_what_a_library_says_is_one_short_line() -> None:
    assert library_text("a\nb\t c") == "a b c"
    assert library_text("x" * 150) == "x" * 150
    assert len(library_text("x" * 151)) == 150
    with pytest.raises(InputError) as caught:
        open_image(b"P6 " + b"9" * 100_000 + b" 1 255\n")
    assert len(str(caught.value)) < 300
    assert os.linesep not in str(caught.value)
