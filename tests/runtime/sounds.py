"""Sounds that tests make: tones, chirps, noise and clicks, and WAV files of every kind."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketvl_runtime.manifest import (
    AudioOutput,
    AudioPad,
    AudioProcessor,
    Longer,
    MelScale,
    Window,
)

Doubles = NDArray[np.float64]
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE


def processor(
    seconds: float = 0.5,
    rate: int = 48_000,
    n_fft: int = 1024,
    hop: int = 480,
    mels: int = 64,
    pad: AudioPad = AudioPad.REPEAT,
    scale: MelScale = MelScale.SLANEY,
    low_hz: float = 50.0,
    high_hz: float = 14_000.0,
) -> AudioProcessor:
    """As CLAP's, but for sounds of half a second."""
    samples = int(seconds * rate)
    shape = (1, 1, samples // hop + 1, mels)
    return AudioProcessor(
        rate,
        n_fft,
        hop,
        mels,
        low_hz,
        high_hz,
        scale,
        Window.HANN,
        samples,
        pad,
        Longer.FIRST_WINDOW,
        AudioOutput("float32", shape),
    )


def tone(hertz: float = 440.0, seconds: float = 0.3, rate: int = 48_000, loudness: float = 0.5) -> Doubles:
    """A sine wave."""
    return loudness * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)


def chirp(low: float, high: float, seconds: float = 0.3, rate: int = 48_000) -> Doubles:
    """A tone that rises or falls steadily."""
    time = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * (low * time + (high - low) * time**2 / (2 * seconds)))


def noise(seconds: float = 0.3, rate: int = 48_000, seed: int = 0) -> Doubles:
    """White noise."""
    return np.clip(0.2 * np.random.default_rng(seed).normal(size=int(seconds * rate)), -1, 1)


def clicks(count: int = 4, seconds: float = 0.3, rate: int = 48_000) -> Doubles:
    """Silence with a few samples of full loudness."""
    samples = np.zeros(int(seconds * rate))
    samples[np.linspace(0, len(samples) - 1, count).astype(int)] = 0.9
    return samples


def wav_bytes(
    samples: Doubles,
    rate: int = 48_000,
    width: int = 2,
    *,
    is_float: bool = False,
    extensible: bool = False,
    before: bytes = b"",
    data_size: int | None = None,
) -> bytes:
    """A WAV file of samples [N] or [N, channels].

    Args:
        samples: of -1 to 1.
        rate: of them a second.
        width: bytes of a sample.
        is_float: whether they are floats.
        extensible: whether the header is of the newer kind.
        before: chunks that stand before the samples.
        data_size: what the file says of their size.
    """
    channels = samples.shape[1] if samples.ndim > 1 else 1
    flat = samples.ravel()
    if is_float:
        content = flat.astype(f"<f{width}").tobytes()
    elif width == 1:
        content = np.round(flat * 127 + 128).astype(np.uint8).tobytes()
    else:
        whole = np.round(flat * (2.0 ** (8 * width - 1) - 1)).astype("<i8")
        content = whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    tag = FLOAT if is_float else PCM
    block = channels * width
    described = struct.pack(
        "<HHIIHH", EXTENSIBLE if extensible else tag, channels, rate, rate * block, block, 8 * width
    )
    if extensible:
        guid = struct.pack("<H", tag) + bytes.fromhex("000000001000800000aa00389b71")
        described += struct.pack("<HHI", 22, 8 * width, 0) + guid
    size = len(content) if data_size is None else data_size
    body = chunk(b"fmt ", described) + before + b"data" + struct.pack("<I", size) + content
    return b"RIFF" + struct.pack("<I", (4 + len(body)) % 2**32) + b"WAVE" + body


def chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a RIFF file."""
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def write_wav(path: Path, samples: Doubles, rate: int = 48_000, width: int = 2) -> Path:
    """Writes a WAV file and returns its path."""
    path.write_bytes(wav_bytes(samples, rate, width))
    return path
