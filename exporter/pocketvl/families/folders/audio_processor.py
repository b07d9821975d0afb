"""What folders write down of their preprocessing of sounds, read into one `AudioProcessor`.

Source: transformers' `AutoFeatureExtractor.from_pretrained` (which file counts) and `ClapFeatureExtractor`
(what the keys mean, and what holds where they are missing).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.hf import read_json
from pocketvl_runtime.errors import PocketVLError, quoted
from pocketvl_runtime.manifest import AudioOutput, AudioPad, AudioProcessor, Longer, MelScale, Window
from pocketvl_runtime.obstacles import processor_obstacle

_COMBINED, _SINGLE = "processor_config.json", "preprocessor_config.json"
_EXTRACTOR = "ClapFeatureExtractor"
_PADS = {"repeatpad": AudioPad.REPEAT, "pad": AudioPad.ZEROS}
_TRUNCATION = "rand_trunc"  # of the two that there are, the one without fusion
_SIZES = {
    "feature_size": 64,
    "sampling_rate": 48_000,
    "hop_length": 480,
    "max_length_s": 10,
    "fft_window_size": 1024,
}
_FREQUENCIES = {"frequency_min": 0, "frequency_max": 14_000}
# Follow from others, or say nothing of one sound without fusion.
_WITHOUT_EFFECT = {
    *("chunk_length_s", "feature_extractor_type", "n_fft", "nb_frequency_bins", "nb_max_frames"),
    *("nb_max_samples", "padding_side", "processor_class", "return_attention_mask", "auto_map"),
}


def read_log_mel(folder: Path, mels: int, most_frames: int) -> tuple[AudioProcessor, tuple[str, ...]]:
    """Read the `feature_extractor` part of processor_config.json; without one, preprocessor_config.json.

    Args:
        folder: the model folder.
        mels: how many the model takes.
        most_frames: of a spectrogram, that the model takes.

    Returns:
        The preprocessing, and notes for the user.

    Raises:
        SourceError: neither file is there, or it is broken, or asks for something that the runtime does not
            do or the model does not take.
    """
    stored, path = _find(folder)
    kind = stored.get("feature_extractor_type", _EXTRACTOR)
    if kind != _EXTRACTOR:
        raise SourceError(
            f"{path}: feature_extractor_type is {quoted(kind)}; only {_EXTRACTOR} is known here"
        )
    if stored.get("truncation", "fusion") != _TRUNCATION:
        raise SourceError(
            f"{path}: truncation is {quoted(stored.get('truncation', 'fusion'))}; only {_TRUNCATION!r} is "
            "known, of models that do not fuse several parts of a sound"
        )
    pad = _PADS.get(str(stored.get("padding", "repeatpad")))
    if pad is None:
        raise SourceError(f"{path}: padding is {quoted(stored['padding'])}; known are {', '.join(_PADS)}")
    for key, harmless in (("top_db", None), ("padding_value", 0)):
        if stored.get(key, harmless) != harmless:
            raise SourceError(f"{path}: {key} is {quoted(stored[key])}; it is not supported, remove it")
    numbers = {key: _number(stored, key, default, path) for key, default in (_SIZES | _FREQUENCIES).items()}
    processor = _spec(numbers, pad, path)
    _, _, frames, features = processor.output.shape
    if features != mels or frames > most_frames:
        raise SourceError(
            f"{path}: spectrograms are {frames} x {features}, and config.json asks for {mels} mels and at "
            f"most {most_frames} frames"
        )
    known = {*_SIZES, *_FREQUENCIES, *_WITHOUT_EFFECT, "truncation", "padding", "top_db", "padding_value"}
    odd = tuple(
        f"{path.name}: {key} is no key of {_EXTRACTOR}: without effect" for key in stored if key not in known
    )
    seconds = f"{processor.samples / processor.rate:g} s"
    return processor, (
        f"of sounds longer than {seconds}, the first {seconds} are taken, not a random part",
        *odd,
    )


def _find(folder: Path) -> tuple[dict[str, Any], Path]:
    """The settings that count, and the file that holds them."""
    combined, single = folder / _COMBINED, folder / _SINGLE
    nested = read_json(combined).get("feature_extractor") if combined.exists() else None
    if nested is not None:
        if not isinstance(nested, dict):
            raise SourceError(f"{combined}: feature_extractor is {quoted(nested)}, not a JSON object")
        return nested, combined
    if not single.exists():
        raise SourceError(f"{folder} has neither {_COMBINED} nor {_SINGLE}; add one of them")
    return read_json(single), single


def _number(stored: dict[str, Any], key: str, default: int, path: Path) -> float:
    value = stored.get(key, default)
    is_size = key in _SIZES
    if (
        isinstance(value, bool)
        or not isinstance(value, int if is_size else int | float)
        or not 0 <= value < 2**31
    ):
        raise SourceError(f"{path}: {key} is {quoted(value)}, not a number that fits")
    return value if is_size else float(value)


def _spec(numbers: Mapping[str, float], pad: AudioPad, path: Path) -> AudioProcessor:
    mels, rate, hop, seconds, n_fft = (int(numbers[key]) for key in _SIZES)
    frames = seconds * rate // max(hop, 1) + 1
    try:
        processor = AudioProcessor(
            rate=rate,
            n_fft=n_fft,
            hop=hop,
            mels=mels,
            low_hz=numbers["frequency_min"],
            high_hz=numbers["frequency_max"],
            mel_scale=MelScale.SLANEY,
            window=Window.HANN,
            samples=seconds * rate,
            pad=pad,
            longer=Longer.FIRST_WINDOW,
            output=AudioOutput("float32", (1, 1, frames, mels)),
        )
    except PocketVLError as error:
        raise SourceError(f"{path}: {error}") from error
    obstacle = processor_obstacle(processor)
    if obstacle is not None:
        raise SourceError(f"{path}: the runtime cannot run {obstacle}")
    return processor
