"""Spectrograms are those of transformers' feature extractor, and no sound is too odd for a clear answer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl_runtime.audio import AudioInput, AudioWarning, Sound, load_features, log_mel, open_sound
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.manifest import AudioPad, AudioProcessor, MelScale
from pocketvl_runtime.obstacles import processor_obstacle
from tests.memory import peak_bytes
from tests.runtime.sounds import Doubles, chirp, clicks, noise, processor, tone, wav_bytes

SOUNDS: Mapping[str, Doubles] = {
    "tone": tone(),
    "chirp": chirp(100.0, 12_000.0),
    "noise": noise(),
    "clicks": clicks(),
    "silence": np.zeros(5_000),
    "exactly as long": noise(0.5),
    "one sample less": noise(0.5)[:-1],
    "a third": noise(0.5 / 3),
    "one sample": np.array([0.25]),
}


def transformers_features(samples: Doubles, spec: AudioProcessor) -> np.ndarray:
    transformers = pytest.importorskip("transformers", reason="it comes with pocketvl, not with its runtime")
    extractor = transformers.ClapFeatureExtractor(
        feature_size=spec.mels,
        sampling_rate=spec.rate,
        hop_length=spec.hop,
        max_length_s=1,
        fft_window_size=spec.n_fft,
        frequency_min=spec.low_hz,
        frequency_max=spec.high_hz,
        truncation="rand_trunc",
        padding="repeatpad" if spec.pad is AudioPad.REPEAT else "pad",
    )
    if spec.mel_scale is MelScale.HTK:
        extractor.mel_filters_slaney = extractor.mel_filters
    found = extractor(samples, sampling_rate=spec.rate, max_length=spec.samples, return_tensors="np")
    return np.asarray(found["input_features"], np.float32)


@pytest.mark.parametrize("pad", AudioPad)
@pytest.mark.parametrize("name", SOUNDS)
def test_features_are_transformers_own(name: str, pad: AudioPad) -> None:
    spec = processor(pad=pad)
    found = load_features(Sound(SOUNDS[name], spec.rate), spec)
    np.testing.assert_allclose(found, transformers_features(SOUNDS[name], spec), atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        processor(scale=MelScale.HTK),
        processor(rate=16_000, n_fft=400, hop=160, mels=40, low_hz=0.0, high_hz=8_000.0),
        processor(n_fft=2048, hop=500, mels=128, low_hz=0.0, high_hz=24_000.0),
    ],
)
def test_other_settings_are_followed(spec: AudioProcessor) -> None:
    samples = noise(0.3, spec.rate)
    wanted = transformers_features(samples, spec)
    np.testing.assert_allclose(load_features(Sound(samples, spec.rate), spec), wanted, atol=1e-5, rtol=1e-6)


def test_of_a_long_sound_the_first_window_is_taken_and_told() -> None:
    spec = processor()
    samples = noise(2.0)
    with pytest.warns(AudioWarning, match=r"lasts 2\.0 s, and its first 0\.5 s are taken"):
        found = load_features(wav_bytes(samples, width=8, is_float=True), spec)
    np.testing.assert_array_equal(found, load_features(Sound(samples[:24_000], 48_000), spec))


@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_a_long_sound_of_another_rate_is_as_if_all_were_resampled(rate: int) -> None:
    spec = processor()
    samples = noise(1.5, rate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AudioWarning)
        part = open_sound(Sound(samples, rate), spec)
    assert len(part.samples) < len(samples) // 2
    np.testing.assert_array_equal(log_mel(part, spec), log_mel(Sound(samples, rate), spec))


def test_a_tone_of_another_rate_sounds_alike() -> None:
    spec = processor()
    one, other = (load_features(Sound(tone(1000.0, 0.5, rate), rate), spec) for rate in (44_100, 48_000))
    loud = other > other.max() - 30
    assert np.abs(one - other)[loud].max() < 0.1  # dB


def test_the_loudest_filter_is_the_tones_own() -> None:
    found = load_features(Sound(tone(1000.0, 0.5), 48_000), processor())[0, 0, 10]
    louder = load_features(Sound(tone(2000.0, 0.5), 48_000), processor())[0, 0, 10]
    assert found.argmax() < louder.argmax()


def test_an_endless_file_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "hours.wav"
    with path.open("wb") as out:
        out.write(wav_bytes(np.zeros(0), data_size=2**31))
        out.truncate(2**31 + 44)  # a hole, not bytes
    with pytest.warns(AudioWarning):
        assert peak_bytes(lambda: load_features(path, processor())) < 20e6


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (Sound(np.zeros(0), 48_000), "holds no samples"),
        (Sound(np.zeros((4, 2)), 48_000), r"float64 \[4, 2\]; give floats \[N\]"),
        (Sound(np.zeros(4, np.int16), 48_000), "int16"),
        (Sound(np.full(9, np.nan), 48_000), "NaN or infinity"),
        (Sound(np.zeros(9), 0), "rate of 0 Hz"),
        (wav_bytes(np.full(9, np.inf), width=4, is_float=True), "NaN or infinity"),
        (np.zeros(9), "of type ndarray; give the path of a WAV file"),
    ],
)
def test_what_cannot_be_used_is_refused(audio: AudioInput, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_features(audio, processor())


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"n_fft": 1023}, "an n_fft of 1023"),
        ({"n_fft": 2**26}, "an n_fft of"),
        ({"samples": 500}, "sounds of 500 samples"),
        ({"samples": 2**26, "hop": 2**20}, "sounds of 67108864 samples"),
        ({"hop": 1, "samples": 2**20}, "spectrograms of 1048577 x 64"),
        ({"mels": 600}, "spectrograms of"),
        ({"low_hz": 15_000.0}, "mel filters from 15000.0 to 14000.0 Hz"),
        ({"high_hz": 30_000.0}, "mel filters"),
        ({"low_hz": -1.0}, "mel filters"),
    ],
)
def test_processors_that_would_fill_the_memory_or_make_nothing_are_refused(
    changed: dict[str, Any], says: str
) -> None:
    spec = processor()
    sizes = {"samples": spec.samples, "hop": spec.hop, "mels": spec.mels} | changed
    shape = (1, 1, int(sizes["samples"]) // int(sizes["hop"]) + 1, int(sizes["mels"]))
    odd = replace(spec, **changed, output=replace(spec.output, shape=shape))
    assert says in (processor_obstacle(odd) or "")
    with pytest.raises(BundleError, match="this runtime cannot run"):
        load_features(Sound(noise(), 48_000), odd)
