"""From a sound to the log-mel spectrogram that the audio graph takes, the same on host and device.

Source: transformers' `ClapFeatureExtractor` without fusion, of which what is random there, the part taken of
a long sound, is the first one here; it does not resample.
"""

from __future__ import annotations

import functools
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import AudioPad, AudioProcessor, MelScale
from pocketvl_runtime.obstacles import refuse_processor
from pocketvl_runtime.resample import margin, resampled
from pocketvl_runtime.wav import MAX_RATE, MIN_RATE, opened_wav, read_frames

Doubles = npt.NDArray[np.float64]
Features = npt.NDArray[np.float32]

_FLOOR = 1e-10
_BLOCK_FRAMES = 256
_SLANEY_BEND_HZ, _SLANEY_BEND_MEL, _SLANEY_STEP = 1000.0, 15.0, math.log(6.4) / 27


class AudioWarning(UserWarning):
    """A sound is longer than the model listens."""


@dataclass(frozen=True, eq=False)
class Sound:
    """Samples that are in memory.

    Attributes:
        samples: float32 or float64 [N], mono, of -1 to 1.
        rate: of them a second, Hz.
    """

    samples: npt.NDArray[np.floating]
    rate: int


AudioInput: TypeAlias = str | Path | bytes | Sound


def open_sound(audio: AudioInput, processor: AudioProcessor) -> Sound:
    """Reads what a processor takes of a sound: its begin, of a long one.

    Args:
        audio: the path of a WAV file (8 to 32 bits, or floats; channels are averaged), its bytes, or samples.
        processor: the manifest's.

    Returns:
        float64 samples at the sound's own rate; of a long sound a little more than `processor.samples`
        amount to, so that its end is resampled rightly.

    Warns:
        AudioWarning: the sound is longer than that.

    Raises:
        BundleError: this runtime cannot run the processor.
        InputError: no such file, no WAV file that can be read, no samples, NaN or infinity among them, or
            a rate below 1,000 or above 384,000 Hz.
    """
    refuse_processor(processor)
    if isinstance(audio, Sound):
        _check_samples(audio, "the sound")
        wanted, there, rate = _wanted(audio.rate, processor), len(audio.samples), audio.rate
        samples = audio.samples[:wanted].astype(np.float64)
        what = "the sound"
    elif isinstance(audio, str | Path | bytes):
        what = "the sound" if isinstance(audio, bytes) else str(audio)
        with opened_wav(audio, what) as (stream, header):
            rate, there = header.rate, header.frames
            samples = read_frames(stream, header, _wanted(rate, processor))
    else:
        raise InputError(
            f"the sound is of type {type(audio).__name__}; give the path of a WAV file, its bytes or a Sound"
        )
    if not np.isfinite(samples).all():
        raise InputError(f"{what}: holds NaN or infinity")
    if there * processor.rate > processor.samples * rate:
        heard = processor.samples / processor.rate
        warnings.warn(
            f"{what} lasts {there / rate:.1f} s, and its first {heard:g} s are taken",
            AudioWarning,
            stacklevel=2,
        )
    return Sound(samples, rate)


def log_mel(sound: Sound, processor: AudioProcessor) -> Features:
    """The log-mel spectrogram of a sound in dB.

    Args:
        sound: what `open_sound` gave.
        processor: the manifest's.

    Returns:
        float32 of the shape `processor.output.shape`: frames x mels.

    Raises:
        BundleError: this runtime cannot run the processor.
        InputError: the samples cannot be used.
    """
    refuse_processor(processor)
    _check_samples(sound, "the sound")
    samples = resampled(sound.samples.astype(np.float64), sound.rate, processor.rate)
    wave = np.pad(_filled(samples, processor), processor.n_fft // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(wave, processor.n_fft)[:: processor.hop]
    window = np.hanning(processor.n_fft + 1)[:-1]  # periodic
    filters = mel_filters(processor)
    found = np.empty((len(frames), processor.mels), np.float32)
    for begin in range(0, len(frames), _BLOCK_FRAMES):
        rows = slice(begin, begin + _BLOCK_FRAMES)
        # the reference keeps spectra as complex64
        spectrum = np.fft.rfft(frames[rows] * window).astype(np.complex64).astype(np.complex128)
        power = np.abs(spectrum) ** 2
        found[rows] = 10 * np.log10(np.maximum(power @ filters, _FLOOR))
    return found.reshape(processor.output.shape)


def load_features(audio: AudioInput, processor: AudioProcessor) -> Features:
    """`open_sound`, then `log_mel`: float32 of the shape `processor.output.shape`.

    Raises:
        BundleError: this runtime cannot run the processor.
        InputError: the sound cannot be used.
    """
    return log_mel(open_sound(audio, processor), processor)


@functools.lru_cache(maxsize=8)
def mel_filters(processor: AudioProcessor) -> Doubles:
    """Triangular filters float64 [n_fft / 2 + 1, mels], by which power spectra are multiplied.

    Source: Slaney, 1998, "Auditory Toolbox", and the HTK Book (Young et al.), as transformers'
    `mel_filter_bank` and librosa's `filters.mel` compute them.
    """
    slaney = processor.mel_scale is MelScale.SLANEY
    low, high = _mel(processor.low_hz, slaney), _mel(processor.high_hz, slaney)
    corners = _hertz(np.linspace(low, high, processor.mels + 2), slaney)  # [mels + 2], Hz
    bins = np.linspace(0, processor.rate // 2, processor.n_fft // 2 + 1)
    slopes, widths = corners[None] - bins[:, None], np.diff(corners)
    filters = np.maximum(0, np.minimum(-slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]))
    if slaney:
        filters *= 2 / (corners[2:] - corners[:-2])
    filters.flags.writeable = False  # it is kept for the next sound
    return filters


def _mel(hertz: float, slaney: bool) -> float:
    if not slaney:
        return 2595 * math.log10(1 + hertz / 700)
    if hertz < _SLANEY_BEND_HZ:
        return 3 * hertz / 200
    return _SLANEY_BEND_MEL + math.log(hertz / _SLANEY_BEND_HZ) / _SLANEY_STEP


def _hertz(mels: Doubles, slaney: bool) -> Doubles:
    if not slaney:
        return np.asarray(700 * (10 ** (mels / 2595) - 1))
    bent = _SLANEY_BEND_HZ * np.exp(_SLANEY_STEP * (mels - _SLANEY_BEND_MEL))
    return np.where(mels < _SLANEY_BEND_MEL, 200 * mels / 3, bent)


def _wanted(rate: int, processor: AudioProcessor) -> int:
    """How many samples at a rate are read of a long sound."""
    return math.ceil(processor.samples * rate / processor.rate) + margin(rate, processor.rate)


def _filled(samples: Doubles, processor: AudioProcessor) -> Doubles:
    """Exactly `processor.samples`: the first, or all of a short sound, filled up."""
    most = processor.samples
    if len(samples) < most and processor.pad is AudioPad.REPEAT:
        samples = np.tile(samples, most // len(samples))
    return np.pad(samples[:most], (0, most - min(most, len(samples))))


def _check_samples(sound: Sound, what: str) -> None:
    samples = sound.samples
    if not isinstance(samples, np.ndarray) or samples.ndim != 1 or samples.dtype.kind != "f":
        kind = f"{samples.dtype} {list(samples.shape)}" if isinstance(samples, np.ndarray) else type(samples)
        raise InputError(f"{what}: samples are {kind}; give floats [N] of -1 to 1, mono")
    if not len(samples):
        raise InputError(f"{what}: holds no samples")
    if not MIN_RATE <= sound.rate <= MAX_RATE:
        raise InputError(f"{what}: has a rate of {sound.rate} Hz, and {MIN_RATE} to {MAX_RATE} are read")
