"""A dataset folder of sounds that are made up: tones, chirps, noise and clicks, with captions and labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pocketvl.data.dataset import write_samples
from tests.runtime.sounds import Doubles, chirp, clicks, noise, tone, wav_bytes

KINDS = ("tone", "rising chirp", "falling chirp", "noise", "clicks")


def write_heard(folder: Path, seed: int, count: int, rate: int = 8_000, seconds: float = 0.6) -> Path:
    """Writes `count` sounds, each with a caption of its own, a negative and a label.

    Args:
        folder: made if it does not exist.
        seed: of pitches and noises.
        count: how many sounds.
        rate: frames a second.
        seconds: of each.

    Returns:
        `folder`.
    """
    (folder / "audio").mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind, other = KINDS[number % len(KINDS)], KINDS[(number + 1) % len(KINDS)]
        hertz = float(random.integers(100, 3_000))
        name = f"audio/{number:04}.wav"
        (folder / name).write_bytes(wav_bytes(_sound(kind, hertz, seconds, rate, number), rate))
        caption = f"a {kind} of {hertz:.0f} hertz, number {number}"
        rows.append(
            {"audio": name, "captions": [caption], "negatives": [caption.replace(kind, other)], "label": kind}
        )
    write_samples(folder, rows)
    (folder / "templates.txt").write_text("the sound of {label}\n")
    return folder


def _sound(kind: str, hertz: float, seconds: float, rate: int, seed: int) -> Doubles:
    match kind:
        case "tone":
            return tone(hertz, seconds, rate)
        case "rising chirp":
            return chirp(hertz, 1.3 * hertz, seconds, rate)
        case "falling chirp":
            return chirp(hertz, 0.5 * hertz, seconds, rate)
        case "noise":
            return noise(seconds, rate, seed)
        case _:
            return clicks(2 + seed % 7, seconds, rate)
