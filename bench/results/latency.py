"""How long rows' graphs take beside their teacher's in float: all of an engine in one process, in turns."""

from __future__ import annotations

import importlib.metadata
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.results.record import (
    LATENCY_FILE,
    Measured,
    key_of,
    read_measured,
    read_record,
    row_folder,
    write_record,
)
from bench.results.rows import Row
from bench.timing import interleaved, machine, open_graph
from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.lower.backends import BACKENDS
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Engine, Precision, variant_name
from pocketvl_runtime.text import Tokenizer

_ROLES = {"image_encoder": "pixels", "text_encoder": "ids"}
Feeds = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Took:
    """Milliseconds of one graph over the runs: tenth percentile and median."""

    p10: float
    median: float


@dataclass(frozen=True)
class VariantLatency:
    """A row's variant.

    Attributes:
        image: of one picture.
        text: of one text.
        ratio: median, over turns, of picture and text together to the teacher's fp32 in the same turn.
    """

    image: Took
    text: Took
    ratio: float


@dataclass(frozen=True)
class LatencyReport:
    """All rows of one teacher.

    Attributes:
        key: of everything that was timed.
        machine: in words, with its instruction set.
        engines: with their versions.
        threads: of an inference.
        runs: counted ones of each graph.
        rows: by row, then by variant.
    """

    key: str
    machine: str
    engines: tuple[str, ...]
    threads: int
    runs: int
    rows: dict[str, dict[str, VariantLatency]]


@dataclass(frozen=True)
class Timed:
    """A variant to time: the folder of its graphs."""

    row: str
    precision: Precision
    folder: Path

    def graph(self, role: str, engine: Engine) -> Path:
        """One of its graph files."""
        return self.folder / f"{role}.{self.precision.value}.{engine.value}"


def measure_latency(rows: Sequence[Row], judged: Path, work: Path, threads: int, runs: int) -> bool:
    """Time all measured rows that have graphs, those of each teacher against it.

    Args:
        rows: which; of each teacher the row of the teacher itself is the reference.
        judged: a dataset folder, whose first picture and caption are timed.
        work: where rows are kept.
        threads: of an inference.
        runs: counted ones of each graph.

    Returns:
        Whether anything was to be done.

    Raises:
        DataError: the teacher itself is not measured.
    """
    measured = {row: found for row in rows if (found := read_measured(work, row)) is not None}
    done = False
    for teacher in dict.fromkeys(row.teacher for row in measured if row.teacher.exported):
        mine = {row: found for row, found in measured.items() if row.teacher == teacher}
        path = work / teacher.name / LATENCY_FILE
        key = _key(mine, threads, runs)
        there = read_record(LatencyReport, path)
        if there is not None and there.key == key:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        write_record(path, _time(key, mine, feeds_of(teacher.checkpoint, judged), work, threads, runs))
        done = True
    return done


def feeds_of(checkpoint: Path, judged: Path) -> dict[str, NDArray[Any]]:
    """Pixels uint8 [1, H, W, 3] and ids int32 [1, T] of the first sample."""
    source, sample = open_checkpoint(checkpoint), Dataset.open(judged).samples[0]
    pixels = preprocess(open_image(sample.image), source.preprocess)[None]
    ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode([sample.captions[0]]).ids
    return {"pixels": pixels, "ids": ids}


def time_engine(
    engine: Engine, variants: Sequence[Timed], reference: Timed, feeds: Feeds, threads: int, runs: int
) -> dict[tuple[str, Precision], VariantLatency]:
    """Time one engine's graphs in this process."""
    times: dict[str, dict[tuple[str, Precision], NDArray[np.float64]]] = {}
    for role, feed in _ROLES.items():
        graphs = {
            f"{each.row} {each.precision.value}": open_graph(each.graph(role, engine), role, threads)
            for each in variants
        }
        found = interleaved(graphs, {feed: feeds[feed]}, runs, warm=1)
        times[role] = {(e.row, e.precision): found[f"{e.row} {e.precision.value}"] for e in variants}
    image, text = times["image_encoder"], times["text_encoder"]
    own = (reference.row, reference.precision)
    whole = image[own] + text[own]
    return {
        name: VariantLatency(
            _took(image[name]), _took(text[name]), float(np.median((image[name] + text[name]) / whole))
        )
        for name in image
    }


def _time(
    key: str, measured: Mapping[Row, Measured], feeds: Feeds, work: Path, threads: int, runs: int
) -> LatencyReport:
    variants = [
        Timed(row.name, precision, row_folder(work, row) / "graphs")
        for row in measured
        for precision in (Precision.FP32, row.precision)
    ]
    own = next((row.name for row in measured if not row.steps), None)
    if own is None:
        raise DataError("latencies are held against the teacher's: measure its own row first")
    reference = next(each for each in variants if (each.row, each.precision) == (own, Precision.FP32))
    rows: dict[str, dict[str, VariantLatency]] = {row.name: {} for row in measured}
    for engine in Engine:
        fresh = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=fresh) as process:
            job = process.submit(time_engine, engine, variants, reference, feeds, threads, runs)
            for (row, precision), latency in job.result().items():
                rows[row][variant_name(engine, precision)] = latency
    engines = tuple(
        f"{each.runtime} {importlib.metadata.version(each.runtime)}" for each in BACKENDS.values()
    )
    return LatencyReport(key, machine(), engines, threads, runs, rows)


def _key(measured: Mapping[Row, Measured], threads: int, runs: int) -> str:
    keys = {row.name: found.key for row, found in measured.items()}
    return key_of(rows=keys, machine=machine(), threads=threads, runs=runs)


def _took(times: NDArray[np.float64]) -> Took:
    return Took(float(np.percentile(times, 10)), float(np.median(times)))
