"""WAV files, read as mono samples, and no more of them than is wanted.

Python's own `wave` refuses floats, and before 3.12 the extensible header that most 24-bit files have.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.files import regular_size

MIN_RATE, MAX_RATE = 1_000, 384_000
"""Of a sound in Hz; others are refused."""

_MAX_CHANNELS = 32
_MAX_CHUNKS = 1_000  # before the samples; tools write about five
_BLOCK_FRAMES = 2**16
_UNKNOWN_SIZES = (0, 2**32 - 1)  # of samples that a program wrote as they came
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_WIDTHS = {_PCM: (1, 2, 3, 4), _FLOAT: (4, 8)}  # bytes of a sample
_MAGIC = {
    b"OggS": "an Ogg file",
    b"fLaC": "a FLAC file",
    b"ID3": "an MP3 file",
    b"\xff\xfb": "an MP3 file",
    b"\xff\xf3": "an MP3 file",
    b"\xff\xf1": "an AAC file",
    b"FORM": "an AIFF file",
    b"\x1aE\xdf\xa3": "a Matroska or WebM file",
    b"RIFX": "a WAV file with its bytes in another order",
}


@dataclass(frozen=True)
class WavHeader:
    """What a WAV file says of its samples.

    Attributes:
        rate: frames a second.
        channels: samples of a frame.
        width: bytes of a sample.
        is_float: whether samples are floats; else integers, of one byte without a sign.
        start: where the first frame lies in the file, bytes.
        frames: how many there are.
    """

    rate: int
    channels: int
    width: int
    is_float: bool
    start: int
    frames: int


@contextmanager
def opened_wav(audio: str | Path | bytes, what: str) -> Iterator[tuple[BinaryIO, WavHeader]]:
    """A WAV file, opened, with its header read.

    Args:
        audio: a path, or the bytes of a file.
        what: how errors call it.

    Raises:
        InputError: there is no such file, it is not a regular one, damaged, cut short, or no WAV file that
            can be read.
    """
    if audio == "":
        raise InputError("the path of the sound is empty")
    try:
        if isinstance(audio, bytes):
            stored: BinaryIO = io.BytesIO(audio)
            size = len(audio)
        else:
            size = regular_size(Path(audio))
            stored = Path(audio).open("rb")  # noqa: SIM115 - closed below
        with stored as stream:
            yield stream, _header(stream, size, what)
    except FileNotFoundError as error:
        raise InputError(f"{what}: no such sound") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def read_frames(stream: BinaryIO, header: WavHeader, count: int) -> npt.NDArray[np.float64]:
    """The first frames, float64 [count] of -1 to 1: the mean of their channels.

    Raises:
        ValueError: the file has become shorter.
    """
    count = min(count, header.frames)
    mono = np.empty(count)
    stream.seek(header.start)
    for begin in range(0, count, _BLOCK_FRAMES):
        end = min(begin + _BLOCK_FRAMES, count)
        content = stream.read((end - begin) * header.channels * header.width)
        mono[begin:end] = _samples(content, header).reshape(end - begin, header.channels).mean(axis=1)
    return mono


def _samples(content: bytes, header: WavHeader) -> npt.NDArray[np.float64]:
    if header.is_float:
        return np.frombuffer(content, f"<f{header.width}").astype(np.float64)
    if header.width == 1:
        return (np.frombuffer(content, np.uint8).astype(np.float64) - 128) / 128.0
    if header.width == 3:
        wide = np.zeros((len(content) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(content, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float64) / 2**31
    whole = np.frombuffer(content, f"<i{header.width}").astype(np.float64)
    return whole / 2.0 ** (8 * header.width - 1)


def _header(stream: BinaryIO, size: int, what: str) -> WavHeader:
    head = stream.read(12)
    if size == 0:
        raise InputError(f"{what}: is empty (0 bytes)")
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
        raise InputError(f"{what}: is {_kind(head)}, and sounds are read from WAV files only; {_advice()}")
    described: bytes | None = None
    for _ in range(_MAX_CHUNKS):
        prefix = stream.read(8)
        if len(prefix) < 8:
            break
        name, length = prefix[:4], int.from_bytes(prefix[4:], "little")
        place = stream.tell()
        if name == b"data":
            if described is None:
                break
            return _checked(described, place, length, size, what)
        if name == b"fmt ":
            described = stream.read(min(length, 40))
        stream.seek(place + length + length % 2)
    raise InputError(f"{what}: is a WAV file without samples, or damaged")


def _checked(described: bytes, start: int, length: int, size: int, what: str) -> WavHeader:
    if len(described) < 16:
        raise InputError(f"{what}: is a damaged WAV file (its format has {len(described)} bytes)")
    tag, channels, rate, _, block, bits = struct.unpack("<HHIIHH", described[:16])
    if tag == _EXTENSIBLE and len(described) >= 26:
        tag = int.from_bytes(described[24:26], "little")
    width = block // channels if channels else 0
    if width not in _WIDTHS.get(tag, ()):
        raise InputError(f"{what}: is a WAV file of format {tag} with {bits} bits; {_advice()}")
    if not 1 <= channels <= _MAX_CHANNELS or block != width * channels or -(-bits // 8) != width:
        raise InputError(
            f"{what}: is a WAV file of {channels} channels, {bits} bits and frames of {block} bytes, "
            f"which is damaged or has more than {_MAX_CHANNELS} channels"
        )
    if not MIN_RATE <= rate <= MAX_RATE:
        raise InputError(f"{what}: has a rate of {rate} Hz, and {MIN_RATE} to {MAX_RATE} are read")
    there = size - start
    if length not in _UNKNOWN_SIZES and length > there:
        raise InputError(f"{what}: is cut short ({there} of {length} bytes of samples are there)")
    frames = (there if length in _UNKNOWN_SIZES else length) // block
    if frames < 1:
        raise InputError(f"{what}: holds no samples")
    return WavHeader(rate, channels, width, tag == _FLOAT, start, frames)


def _kind(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        return "an MP4 or M4A file"
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), "no WAV file")


def _advice() -> str:
    return "convert it: ffmpeg -i INPUT -c:a pcm_s16le OUTPUT.wav"
