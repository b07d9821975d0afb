"""WAV files of every kind that tools write are read alike; what is none, or damaged, is one clear line."""

from __future__ import annotations

import io
import struct
import wave
from pathlib import Path

import numpy as np
import pytest

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.wav import opened_wav, read_frames
from tests.runtime.sounds import Doubles, chunk, noise, tone, wav_bytes

WHOLE = 2**40


def read(audio: bytes | str | Path, count: int = WHOLE) -> tuple[int, Doubles]:
    with opened_wav(audio, "x.wav") as (stream, header):
        return header.rate, read_frames(stream, header, count)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(
    ("width", "is_float", "step"),
    [
        (1, False, 0.012),
        (2, False, 2**-14),
        (3, False, 2**-22),
        (4, False, 2**-30),
        (4, True, 1e-7),
        (8, True, 0),
    ],
)
def test_samples_of_every_width(width: int, is_float: bool, step: float, extensible: bool) -> None:
    samples = noise()
    rate, found = read(wav_bytes(samples, 22_050, width, is_float=is_float, extensible=extensible))
    assert rate == 22_050
    np.testing.assert_allclose(found, samples, atol=step)


def test_it_reads_what_pythons_own_module_writes() -> None:
    content = io.BytesIO()
    with wave.open(content, "wb") as out:
        out.setnchannels(2)
        out.setsampwidth(2)
        out.setframerate(44_100)
        out.writeframes(np.array([[100, 300], [-32_768, -32_768]], "<i2").tobytes())
    rate, found = read(content.getvalue())
    assert (rate, found.tolist()) == (44_100, [200 / 2**15, -1.0])


def test_channels_are_averaged() -> None:
    left, right = tone(440.0), tone(880.0)
    _, found = read(wav_bytes(np.stack([left, right], axis=1), width=4, is_float=True))
    np.testing.assert_allclose(found, (left + right) / 2, atol=1e-7)


def test_only_what_is_wanted_is_read() -> None:
    samples = noise()
    _, found = read(wav_bytes(samples, width=8, is_float=True), 100)
    np.testing.assert_array_equal(found, samples[:100])


def test_other_chunks_are_passed_over() -> None:
    samples = noise()
    content = wav_bytes(
        samples, width=8, is_float=True, before=chunk(b"LIST", b"odd") + chunk(b"bext", bytes(602))
    )
    np.testing.assert_array_equal(read(content)[1], samples)


@pytest.mark.parametrize("said", [0, 2**32 - 1])
def test_what_was_written_as_it_came_has_no_size(said: int) -> None:
    samples = noise()
    content = wav_bytes(samples, width=8, is_float=True, data_size=said)
    np.testing.assert_array_equal(read(content)[1], samples)


def test_a_path_is_read_like_its_bytes(tmp_path: Path) -> None:
    content = wav_bytes(noise())
    (tmp_path / "a.wav").write_bytes(content)
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[1], read(content)[1])


GOOD = wav_bytes(noise())


def header(tag: int = 1, channels: int = 1, rate: int = 48_000, block: int = 2, bits: int = 16) -> bytes:
    described = struct.pack("<HHIIHH", tag, channels, rate, rate * block % 2**32, block, bits)
    body = chunk(b"fmt ", described) + chunk(b"data", bytes(64))
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


HOSTILE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "text": (
        b"hello there, nobody",
        "is no WAV file, and sounds are read from WAV files only; convert it: ffmpeg",
    ),
    "MP3": (b"ID3\x04" + bytes(40), "is an MP3 file"),
    "FLAC": (b"fLaC" + bytes(40), "is a FLAC file"),
    "Ogg": (b"OggS" + bytes(40), "is an Ogg file"),
    "M4A": (b"\0\0\0\x20ftypM4A " + bytes(40), "is an MP4 or M4A file"),
    "cut in the samples": (GOOD[:-100], "is cut short"),
    "cut in the header": (GOOD[:30], "without samples, or damaged"),
    "no samples": (wav_bytes(np.zeros(0), data_size=0), "holds no samples"),
    "ADPCM": (header(tag=2, bits=4), "format 2 with 4 bits"),
    "no channels": (header(channels=0), "format 1|channels"),
    "300 channels": (header(channels=300, block=600), "300 channels"),
    "odd block": (header(block=3), "channels|bits"),
    "64-bit integers": (header(block=8, bits=64), "format 1 with 64 bits"),
    "no rate": (header(rate=0), "rate of 0 Hz"),
    "endless rate": (header(rate=2**32 - 1), "rate of 4294967295 Hz"),
    "format of two bytes": (
        b"RIFF\0\0\0\0WAVE" + chunk(b"fmt ", b"\1\0") + chunk(b"data", bytes(8)),
        "damaged",
    ),
    "samples before the format": (
        b"RIFF\0\0\0\0WAVE" + chunk(b"data", bytes(8)),
        "without samples, or damaged",
    ),
    "thousands of chunks": (b"RIFF\0\0\0\0WAVE" + chunk(b"junk", b"") * 5_000, "without samples, or damaged"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_is_no_wav_file_is_one_clear_line(kind: str) -> None:
    content, says = HOSTILE[kind]
    with pytest.raises(InputError, match=says) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such sound"):
        read(tmp_path / "none.wav")
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(InputError, match="not a regular file"):
        read("/dev/zero")
    with pytest.raises(InputError, match="path of the sound is empty"):
        read("")
