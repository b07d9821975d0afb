"""What is kept of a comparison: small JSON files in its work folder, read back strictly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MODEL_FILE, EXPORT_FILE, QUANTIZE_FILE = "model.json", "export.json", "quantize.json"


@dataclass(frozen=True)
class ModelRecord:
    """A prepared model.

    Attributes:
        name: of its folder.
        described: in words.
        samples: pictures and texts that quantizers calibrate on, and as many others that judge them.
        pictures: what they show.
        vocabulary: tokens of the text tower.
    """

    name: str
    described: str
    samples: int
    pictures: str
    vocabulary: int


@dataclass(frozen=True)
class Fidelity:
    """Centred cosines of a graph's outputs to those of torch in fp32, over the judged samples.

    Attributes:
        median: of them.
        low: lower limit of the median's 95 % interval.
        high: its upper limit.
        least: the smallest.
    """

    median: float
    low: float
    high: float
    least: float


@dataclass(frozen=True)
class Made:
    """One tower quantized by one method.

    Attributes:
        versions: of the packages that did it, and that run it.
        size_bytes: of the file or files; None where it failed.
        seconds: wall time of quantizing, imports not counted; None where nothing was quantized, or several
            methods' graphs came of one export.
        peak_bytes: the largest memory of that process.
        fidelity: None where it failed.
        failed: the last line of what the tool said; empty: it did not fail.
    """

    versions: str
    size_bytes: int | None
    seconds: float | None
    peak_bytes: int | None
    fidelity: Fidelity | None
    failed: str = ""


@dataclass(frozen=True)
class QuantizeRecord:
    """pocketvl's static int8 of both towers, made by itself.

    Attributes:
        seconds: wall time, torch's import included.
        peak_bytes: the largest memory of that process.
    """

    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class ExportRecord:
    """One `pocketvl export` of all own variants.

    Attributes:
        seconds: wall time of the whole.
        peak_bytes: the largest memory of all its processes together.
        cached: whether a result was there already, so that times are not those of a whole export.
    """

    seconds: float
    peak_bytes: int
    cached: bool


@dataclass(frozen=True)
class Timed:
    """All methods of one tower at one number of threads, in turns.

    Attributes:
        machine: in words, with its instruction set.
        threads: of an inference.
        runs: counted ones of a method in a round, after one that is not.
        rounds_ms: by method, the median of each kept round.
        p10_ms: by method, the tenth percentile of all runs of kept rounds.
        busy_before: processors that other programs kept busy before.
        busy_during: of each round, those dropped too.
        busy_workers: processors that the workers themselves kept busy while none was asked.
        kept: rounds that count.
        doubtful: whether too few rounds were quiet, so that all count.
        any_load: whether the load before was over the limit, and ignored.
        serving_bytes: by method, the largest memory of its process.
        failed: by method, the last line of what a worker said that could not run its graph.
    """

    machine: str
    threads: int
    runs: int
    rounds_ms: dict[str, tuple[float, ...]]
    p10_ms: dict[str, float]
    busy_before: float
    busy_during: tuple[float, ...]
    busy_workers: float
    kept: int
    doubtful: bool
    any_load: bool
    serving_bytes: dict[str, int]
    failed: dict[str, str]


def made_file(work: Path, model: str, method: str, tower: str) -> Path:
    """Where the record of a method's tower lies."""
    return work / model / "made" / method / f"{tower}.json"


def timed_file(work: Path, model: str, tower: str, threads: int, *, without_amx: bool = False) -> Path:
    """Where the times of a tower lie."""
    return work / model / ("timed-without-amx" if without_amx else "timed") / f"{tower}-{threads}.json"
