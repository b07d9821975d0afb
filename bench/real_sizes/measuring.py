"""A model of a published size is written, exported in a process of its own, and what came of it is kept."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.peers.client import run_measured
from bench.real_sizes.models import CALIBRATION, JUDGED, SAMPLES, RealModel, write_data
from bench.results.record import read_record, write_record
from bench.timing import machine
from pocketvl.evaluate.report import Report, VariantReport
from pocketvl.evaluate.report_json import read_report
from pocketvl.families import open_checkpoint
from pocketvl.network.precisions import QUANTIZED
from pocketvl_runtime.manifest import Engine
from pocketvl_runtime.sensors import ROOT, ProcessorTime

RECORD_FILE, REPORT_FILE = "record.json", "report.json"
VARIANTS = tuple(
    f"{engine.value}-{precision}"
    for engine in (Engine.ONNX, Engine.TFLITE)
    for precision in ("fp32", "fp16", "int8", "int8dyn", "int4")
)
_NO_TASK = {False: "retrieval_r1=100", True: "match_hard=100,retrieval_r1=100"}
"""Answers of random weights are chance, so that parity alone decides; by whether samples are sounds, whose
captions have negatives."""
_JUDGED = (0, 1)
"""Exit codes of an export that came to verdicts: all passed, or some failed."""


@dataclass(frozen=True)
class VariantRecord:
    """What came of one variant.

    Attributes:
        size_bytes: of its graphs.
        passed: whether the gate accepts it.
        cosines: by port, the median of mean-centred cosines to torch's outputs.
        fallback_share: of all weights, those that went to a higher precision, 0 to 1.
        float_share: of all weights, those of them that have no integers any more, 0 to 1.
        fallback: groups of layers that did.
    """

    size_bytes: int
    passed: bool
    cosines: dict[str, float]
    fallback_share: float
    float_share: float
    fallback: tuple[str, ...]


@dataclass(frozen=True)
class RealRecord:
    """What an export came to.

    Attributes:
        name: of the model.
        published: where its weights are found.
        parameters: of its components.
        calibrated: samples that ranges were taken from.
        judged: others, that the outputs were compared on.
        seconds: the export took, from an empty cache.
        peak_bytes: the largest memory of all its processes together.
        other_load: processors that other programs kept busy meanwhile, on average.
        machine: in words.
        variants: by name.
    """

    name: str
    published: str
    parameters: int
    calibrated: int
    judged: int
    seconds: float
    peak_bytes: int
    other_load: float
    machine: str
    variants: dict[str, VariantRecord]


def variants_of(model: RealModel) -> tuple[str, ...]:
    """All variants that the formats have room for."""
    return tuple(each for each in VARIANTS if model.fits_tflite or not each.startswith(Engine.TFLITE.value))


def measure(
    model: RealModel, work: Path, photos: Path, variants: tuple[str, ...], say: Callable[[str], None]
) -> RealRecord:
    """Write, export and record a model; what is recorded is not done again, the checkpoint is removed.

    Args:
        model: which.
        work: a folder for it; keeps record.json, report.json, report.html and log.txt.
        photos: see `write_data`.
        variants: to export.
        say: is told what is done.

    Raises:
        WorkerError: the export failed.
    """
    done = read_record(RealRecord, work / RECORD_FILE)
    if done is not None:
        return done
    work.mkdir(parents=True, exist_ok=True)
    say(f"{model.name}: checkpoint and data")
    checkpoint = work / "checkpoint"
    shutil.rmtree(checkpoint, ignore_errors=True)
    model.write(checkpoint)
    write_data(model, work, photos)
    say(f"{model.name}: export")
    found = _export(model, checkpoint, work, variants)
    write_record(work / RECORD_FILE, found)
    for name in ("checkpoint", "bundle", "cache", CALIBRATION, JUDGED):
        shutil.rmtree(work / name, ignore_errors=True)
    return found


def _export(model: RealModel, checkpoint: Path, work: Path, variants: tuple[str, ...]) -> RealRecord:
    command = [
        *(sys.executable, "-c", "from pocketvl.cli import main; main()", "export", str(checkpoint)),
        *("-o", str(work / "bundle"), "--keep-failing", "--cache", str(work / "cache")),
        *("--calibration", str(work / CALIBRATION), "--data", str(work / JUDGED)),
        *("--gate", _NO_TASK[model.hears]),
        *("--variants", ",".join(variants)),
    ]
    clock = ProcessorTime(ROOT)
    busy, own, begin = clock.busy_s() or 0.0, _own_s(), time.perf_counter()
    seconds, peak = run_measured(command, work / "log.txt", own=True, fine=_JUDGED)
    other = ((clock.busy_s() or 0.0) - busy - (_own_s() - own)) / (time.perf_counter() - begin)
    report = read_report(work / "bundle" / REPORT_FILE)
    for name in (REPORT_FILE, "report.html"):
        shutil.copy(work / "bundle" / name, work / name)
    sizes = {
        (component.name, name): parameter.numel()
        for component in open_checkpoint(checkpoint).components.values()
        for name, parameter in component.module.named_parameters()
    }
    return RealRecord(
        model.name,
        model.published,
        sum(sizes.values()),
        SAMPLES[CALIBRATION],
        SAMPLES[JUDGED],
        seconds,
        peak,
        max(0.0, other),
        machine(),
        {name: _variant(report, name, sizes) for name in report.variants},
    )


def _own_s() -> float:
    """CPU seconds of this process and of those of its children that ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _variant(report: Report, name: str, sizes: dict[tuple[str, str], int]) -> VariantRecord:
    variant: VariantReport = report.variants[name]
    gate = variant.gate
    assert gate is not None
    moved = {
        (each.component, f"{layer}.weight"): each.precision
        for each in gate.fallbacks
        for layer in each.layers
    }  # by the last step that moved it
    in_float = [each for each, precision in moved.items() if precision not in QUANTIZED]
    groups = tuple(f"{each.component}: {', '.join(each.layers)}" for each in gate.fallbacks)
    return VariantRecord(
        variant.size_bytes,
        gate.passed,
        {
            port: parity.centred_cosine_median
            for port, parity in variant.parity.items()
            if parity.centred_cosine_median is not None
        },
        sum(sizes[each] for each in moved) / sum(sizes.values()),
        sum(sizes[each] for each in in_float) / sum(sizes.values()),
        groups,
    )
