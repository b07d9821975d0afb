"""Limits that keep a picture from taking minutes or gigabytes: file size, pixels, and how the file is built.

What Pillow or its libraries do for each chunk, segment or tag of a file costs far more than its bytes; so
they are counted before. The limits are many times what cameras and editors write.
"""

from __future__ import annotations

import os
import struct
from typing import BinaryIO

import numpy as np

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import MAX_PIXELS

MAX_FILE_BYTES = 256_000_000
"""Larger files are not read."""

MAX_PIXELS_VARIABLE = "POCKETVL_MAX_PIXELS"
"""The environment variable that sets `max_pixels`."""

_DEFAULT_MAX_PIXELS = 250_000_000
_MAX_READS = 500_000  # some 2 s of a header that is read byte by byte
_MAX_PLAIN_PPM_BYTES = 16_000_000

_MAX_JPEG_SEGMENTS = 500
_MAX_JPEG_HEADER_BYTES = 16_000_000
_MAX_JPEG_SCANNED_PIXELS = 3_000_000_000  # scans x pixels: a progressive JPEG has about 10 scans
_JPEG_DATA = [0x00, 0x01, *range(0xD0, 0xD8), 0xFF]  # after 0xFF: escaped data, restarts and fill bytes
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset([0xC8, 0xD8, 0xD9, *range(0xF0, 0xFE)])  # markers that no length follows
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_IS_JPEG_MARKER = ~np.isin(np.arange(256), _JPEG_DATA)
_BLOCK = 2**16

_PNG_PIXEL_CHUNKS = (b"IDAT", b"fdAT", b"fcTL")
_MAX_PNG_CHUNKS = 150_000
_MAX_PNG_METADATA = 1_000
_MAX_PNG_METADATA_BYTES = 64_000_000

_MAX_WEBP_CHUNKS = 20_000

_TIFF_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
}
_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT = 256, 257, 322, 323
_MAX_TIFF_TAGS = 4_096
_MAX_TIFF_NUMBERS = 2**18  # in one tag: one strip or tile each


def max_pixels() -> int:
    """The most pixels of a picture that is taken: 250 million, or what POCKETVL_MAX_PIXELS says.

    Above `MAX_PIXELS`, 89 million, only JPEGs are taken, which can be decoded at a smaller size.

    Raises:
        InputError: the variable holds no whole number above 0.
    """
    value = os.environ.get(MAX_PIXELS_VARIABLE, "").strip()
    if not value:
        return _DEFAULT_MAX_PIXELS
    if not (value.isascii() and value.isdecimal()) or len(value) > 18 or int(value) == 0:
        raise InputError(
            f"{MAX_PIXELS_VARIABLE} is {value[:40]!r}; set it to a number of pixels, as 250000000"
        )
    return int(value)


def check_structure(stream: BinaryIO, what: str) -> None:
    """Refuses a file of which no more than the number of its parts makes it costly; leaves `stream` at 0.

    Raises:
        InputError: too many or too large segments, scans, chunks or tags.
    """
    stream.seek(0)
    prefix = stream.read(16)
    if prefix.startswith(b"\xff\xd8\xff"):
        _check_jpeg(stream, what)
    elif prefix.startswith(b"\x89PNG\r\n\x1a\n"):
        _check_png(stream, what)
    elif prefix.startswith(b"RIFF"):
        _check_webp(stream, what)
    elif prefix.startswith((b"II", b"MM")):
        _check_tiff(stream, prefix, what)
    elif prefix.startswith((b"P1", b"P2", b"P3")) and _end(stream) > _MAX_PLAIN_PPM_BYTES:
        raise _refusal(what, f"a text PPM of more than {_MAX_PLAIN_PPM_BYTES} bytes")
    stream.seek(0)


class MeteredStream:
    """A file that is read at most `_MAX_READS` times: not byte by byte over millions of bytes."""

    def __init__(self, stream: BinaryIO, what: str) -> None:
        self._stream = stream
        self._what = what
        self._left = _MAX_READS

    def read(self, size: int = -1) -> bytes:
        """Like the file's own.

        Raises:
            InputError: it was read too often.
        """
        self._left -= 1
        if self._left < 0:
            raise _refusal(self._what, f"it is read in more than {_MAX_READS} small pieces")
        return self._stream.read(size)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def _refusal(what: str, why: str) -> InputError:
    return InputError(
        f"{what}: is built so that reading it would take minutes or gigabytes ({why}); "
        "save it anew as a plain PNG or JPEG"
    )


def _end(stream: BinaryIO) -> int:
    return stream.seek(0, os.SEEK_END)


# --- JPEG ---------------------------------------------------------------------------------------------


def _check_jpeg(stream: BinaryIO, what: str) -> None:
    """Pillow adds EXIF segments up in quadratic time, and libjpeg goes over all pixels for every scan."""
    stream.seek(2)
    segments = scans = pixels = skipped = 0
    while True:
        start = stream.tell()
        marker = _next_marker(stream, MAX_FILE_BYTES if scans else _BLOCK)
        skipped += 0 if scans else stream.tell() - start - 2
        if skipped > _BLOCK:
            raise _refusal(what, f"over {_BLOCK} bytes that are none of a segment")
        if marker is None or marker < 0xC0 or (scans and marker == _JPEG_END):
            break
        segments += 1
        scans += marker == _JPEG_SCAN
        if marker in _JPEG_FRAMES:
            pixels = max(pixels, _frame_pixels(stream))
        if not scans and stream.tell() > _MAX_JPEG_HEADER_BYTES:
            raise _refusal(what, f"over {_MAX_JPEG_HEADER_BYTES} bytes of metadata")
        if segments > _MAX_JPEG_SEGMENTS:
            raise _refusal(what, f"more than {_MAX_JPEG_SEGMENTS} segments")
        if scans * pixels > _MAX_JPEG_SCANNED_PIXELS:
            raise _refusal(what, f"more than {_MAX_JPEG_SCANNED_PIXELS // pixels} scans of {pixels} pixels")
        if marker not in _JPEG_BARE:
            length = stream.read(2)
            if len(length) < 2:
                break
            stream.seek(max(0, int.from_bytes(length, "big") - 2), os.SEEK_CUR)


def _next_marker(stream: BinaryIO, most_bytes: int) -> int | None:
    """The next marker of a JPEG, behind which `stream` then stands; None where `most_bytes` hold none."""
    held = stream.read(2)
    if len(held) == 2 and held[0] == 0xFF and _IS_JPEG_MARKER[held[1]]:  # as between all segments
        return held[1]
    limit = stream.tell() + most_bytes
    while stream.tell() <= limit and (block := stream.read(_BLOCK)):
        held += block
        data = np.frombuffer(held, np.uint8)
        codes = np.flatnonzero(data[:-1] == 0xFF) + 1
        codes = codes[_IS_JPEG_MARKER[data[codes]]]
        if codes.size:
            stream.seek(int(codes[0]) + 1 - len(held), os.SEEK_CUR)
            return held[int(codes[0])]
        held = held[-1:]
    return None


def _frame_pixels(stream: BinaryIO) -> int:
    start = stream.tell()
    head = stream.read(7)
    stream.seek(start)
    return int.from_bytes(head[3:5], "big") * int.from_bytes(head[5:7], "big")


# --- PNG ----------------------------------------------------------------------------------------------


def _check_png(stream: BinaryIO, what: str) -> None:
    """Every compressed text or profile may unpack to 1 MB, and every chunk goes through Python."""
    place, chunks, metadata, metadata_bytes = 8, 0, 0, 0
    while True:
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8 or head[4:] == b"IEND":
            return
        length = int.from_bytes(head[:4], "big")
        chunks += 1
        if head[4:] not in _PNG_PIXEL_CHUNKS:
            metadata += 1
            metadata_bytes += length
        if chunks > _MAX_PNG_CHUNKS:
            raise _refusal(what, f"more than {_MAX_PNG_CHUNKS} chunks")
        if metadata > _MAX_PNG_METADATA or metadata_bytes > _MAX_PNG_METADATA_BYTES:
            raise _refusal(what, f"{metadata} chunks and {metadata_bytes} bytes of metadata")
        place += length + 12


# --- WebP ---------------------------------------------------------------------------------------------


def _check_webp(stream: BinaryIO, what: str) -> None:
    """libwebp keeps a list of all chunks, frames among them."""
    place = 12
    for _ in range(_MAX_WEBP_CHUNKS):
        stream.seek(place)
        head = stream.read(8)
        if len(head) < 8:
            return
        length = int.from_bytes(head[4:], "little")
        place += 8 + length + length % 2
    raise _refusal(what, f"{_MAX_WEBP_CHUNKS} chunks or more")


# --- TIFF ---------------------------------------------------------------------------------------------


def _check_tiff(stream: BinaryIO, prefix: bytes, what: str) -> None:
    """Tags may share their data, so that thousands are as large as the file each; and tiles have any size."""
    big = prefix.startswith(b"II+\0")
    if not big and not prefix.startswith((b"II*\0", b"MM\0*")):
        raise InputError(f"{what}: is a TIFF of a kind that is not read; save it as PNG")
    order = "<" if prefix.startswith(b"II") else ">"
    counter, entry, start = ("Q", "HHQQ", prefix[8:16]) if big else ("H", "HHI4s", prefix[4:8])
    limit = max(_end(stream), 2**20)
    directory = _number(start, order)
    stream.seek(min(directory, limit))
    tags = _number(stream.read(struct.calcsize(counter)), order)
    if tags > _MAX_TIFF_TAGS:
        raise _refusal(what, f"{tags} tags")
    total, sizes = 0, dict.fromkeys((_TIFF_WIDTH, _TIFF_HEIGHT, _TIFF_TILE_WIDTH, _TIFF_TILE_HEIGHT), 0)
    for _ in range(tags):
        data = stream.read(struct.calcsize(order + entry))
        if len(data) < struct.calcsize(order + entry):
            return  # truncated: Pillow says so
        tag, kind, count = struct.unpack(order + entry, data)[:3]
        width = _TIFF_SIZES.get(kind, 1)
        total += width * count
        if total > limit or (width > 1 and count > _MAX_TIFF_NUMBERS):
            raise _refusal(what, f"tag {tag} holds {count} values")
        if tag in sizes and count == 1:
            value = data[-8 if big else -4 :][:width]
            sizes[tag] = max(sizes[tag], _number(value, order))
    _check_tiles(what, *sizes.values())


def _number(data: bytes, order: str) -> int:
    return int.from_bytes(data, "little" if order == "<" else "big")


def _check_tiles(what: str, width: int, height: int, tile_width: int, tile_height: int) -> None:
    """A tile is decoded whole, however little of it lies in the picture."""
    if tile_width and tile_height:
        decoded = -(-width // tile_width) * tile_width * -(-height // tile_height) * tile_height
        if decoded > 2 * MAX_PIXELS:
            raise _refusal(what, f"tiles of {tile_width} x {tile_height}")
