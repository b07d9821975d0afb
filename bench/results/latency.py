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
from bench.results.rows import Kind, Row, Teacher
from bench.timing import interleaved, machine, open_graph
from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.lower.backends import BACKENDS
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Engine, PortKind, Precision, variant_name
from pocketvl_runtime.text import Tokenizer

Feeds = Mapping[str, Mapping[str, NDArray[Any]]]
"""By component, then by the input's name."""


@dataclass(frozen=True)
class Took:
    """Milliseconds of one graph over the runs: tenth percentile and median."""

    p10: float
    median: float


@dataclass(frozen=True)
class VariantLatency:
    """A row's variant.

    Attributes:
        components: of one picture, of one text, or of both, as each component takes them.
        ratio: median, over turns, of all components together to the teacher's fp32 in the same turn.
    """

    components: dict[str, Took]
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

    def graph(self, component: str, engine: Engine) -> Path:
        """One of its graph files."""
        return self.folder / f"{component}.{self.precision.value}.{engine.value}"


def measure_latency(rows: Sequence[Row], judged: Path, work: Path, threads: int, runs: int) -> bool:
    """Time all measured rows that have graphs, those of each teacher against it.

    Args:
        rows: which; of each teacher the row of the teacher itself is the reference.
        judged: a dataset folder, whose first picture and text are timed.
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
        write_record(path, _time(key, mine, feeds_of(teacher, judged), work, threads, runs))
        done = True
    return done


def feeds_of(teacher: Teacher, judged: Path) -> dict[str, dict[str, NDArray[Any]]]:
    """Of the first sample: pixels uint8 [1, H, W, 3], ids and mask int32 [1, T], as components take them."""
    source, sample = open_checkpoint(teacher.checkpoint), Dataset.open(judged).samples[0]
    text = sample.qa[0]["question"] if teacher.kind is Kind.ANSWERING else sample.captions[0]
    encoded = Tokenizer(source.tokenizer_json, source.tokenizer).encode([text])
    made: dict[PortKind, NDArray[Any]] = {
        PortKind.PIXELS: preprocess(open_image(sample.image), source.preprocess)[None],
        PortKind.TOKEN_IDS: encoded.ids,
        PortKind.ATTENTION_MASK: encoded.mask,
    }
    components = source.contract.components
    return {name: {port.name: made[port.kind] for port in each.inputs} for name, each in components.items()}


def time_engine(
    engine: Engine, variants: Sequence[Timed], reference: Timed, feeds: Feeds, threads: int, runs: int
) -> dict[tuple[str, Precision], VariantLatency]:
    """Time one engine's graphs in this process."""
    times: dict[tuple[str, Precision], dict[str, NDArray[np.float64]]] = {
        (each.row, each.precision): {} for each in variants
    }
    for component, feed in feeds.items():
        graphs = {
            f"{each.row} {each.precision.value}": open_graph(
                each.graph(component, engine), component, threads
            )
            for each in variants
        }
        found = interleaved(graphs, feed, runs, warm=1)
        for each in variants:
            times[each.row, each.precision][component] = found[f"{each.row} {each.precision.value}"]
    totals = {name: np.sum(list(found.values()), axis=0) for name, found in times.items()}
    whole = totals[reference.row, reference.precision]
    return {
        name: VariantLatency(
            {component: _took(found) for component, found in each.items()},
            float(np.median(totals[name] / whole)),
        )
        for name, each in times.items()
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
