"""The sounds of the golden pack: files of the kinds on which reading, resampling and filling up differ."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl_runtime.audio import AudioWarning, open_sound
from pocketvl_runtime.manifest import AudioProcessor, Manifest, Modality
from pocketvl_runtime.resample import resampled

Doubles = npt.NDArray[np.float64]

_MOST_SECONDS = 3.0  # of a sound that is not to be cut
_PCM, _FLOAT = 1, 3
_FLOOR_DB, _RANGE_DB = -100.0, 140.0


def golden_sounds(dataset: Dataset, processor: AudioProcessor) -> dict[str, bytes]:
    """Six WAV files made from a dataset's first sounds: file name -> bytes; the same dataset, the same bytes.

    Nothing but samples gets in: no name, no place, no program.

    Raises:
        InputError: a sound cannot be used.
    """
    files, rate, heard = dataset.media(Modality.AUDIO), processor.rate, processor.samples / processor.rate
    sounds = [_samples(files[k % len(files)], processor) for k in range(5)]
    plain, stereo, other, loud, short = (each[: int(_MOST_SECONDS * rate)] for each in sounds)
    low = max(1_000, rate // 6)
    long = np.resize(resampled(loud, rate, low), int(1.1 * heard * low) + 1)
    silence = np.zeros(max(1, int(0.1 * heard * rate)))
    return {
        "plain.wav": _wav(plain, rate, 16),
        "stereo-24.wav": _wav(np.stack([stereo, stereo[::-1] / 2], axis=1), rate, 24),
        "other-rate-float.wav": _wav(resampled(other, rate, 44_100), 44_100, 32, _FLOAT),
        "long-8.wav": _wav(long, low, 8),
        "short.wav": _wav(short[: max(1, processor.samples // 7)], rate, 16),
        "silence.wav": _wav(silence, rate, 16),
    }


def spectrogram_png(features: bytes, manifest: Manifest) -> bytes:
    """Golden features as a picture for people: time to the right, pitch upwards, loud is bright."""
    processors: Mapping[str, object] = manifest.processors
    (spec,) = (each for each in processors.values() if isinstance(each, AudioProcessor))
    decibels = np.frombuffer(features, "<f4").reshape(-1, spec.mels).T[::-1]
    grey = np.clip((decibels - _FLOOR_DB) / _RANGE_DB * 255, 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).resize((480, 240), Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()


def _samples(file: object, processor: AudioProcessor) -> Doubles:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        sound = open_sound(str(file), processor)
    found = resampled(sound.samples.astype(np.float64), sound.rate, processor.rate)
    return np.clip(found[: processor.samples], -1, 1)


def _wav(samples: Doubles, rate: int, bits: int, tag: int = _PCM) -> bytes:
    """A WAV file of samples [N] or [N, channels], of -1 to 1."""
    channels = samples.shape[1] if samples.ndim > 1 else 1
    width = bits // 8
    if tag == _FLOAT:
        content = samples.astype("<f4").tobytes()
    else:
        most = 2 ** (bits - 1) - 1
        whole = np.round(samples.ravel() * most).astype("<i8") + (128 if width == 1 else 0)
        content = whole.view(np.uint8).reshape(-1, 8)[:, :width].tobytes()
    block = channels * width
    described = struct.pack("<HHIIHH", tag, channels, rate, rate * block, block, bits)
    body = b"fmt " + struct.pack("<I", len(described)) + described
    body += b"data" + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body
