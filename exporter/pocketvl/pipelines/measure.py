"""From what stages measured to a judged report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.compare import reference_metrics, variant_metrics
from pocketvl.evaluate.report import (
    DataReport,
    Fallback,
    Latency,
    MachineReport,
    Report,
    Sensitivity,
    VariantReport,
    describe_data,
)
from pocketvl.evaluate.report_json import report_to_json
from pocketvl.lower.backends import BACKENDS, backend_of
from pocketvl.pipelines.bundle import REPORT_FILES, inputs_of, runnable_tasks
from pocketvl.pipelines.golden_sounds import spectrogram_png
from pocketvl.pipelines.stages.calibrating import NoteCalibration, read_notes
from pocketvl.pipelines.stages.measuring import BENCH_FILE, GOLDEN_OUTPUTS_FILE, NOTES_FILE
from pocketvl.pipelines.stages.quantizing import RankLayers, read_ranking
from pocketvl.pipelines.stages.training import CURVES_FILE
from pocketvl.select.gate import GateSettings, judge_report
from pocketvl.tasks.base import Task
from pocketvl.tasks.golden import expected_outputs
from pocketvl.tasks.metrics import TaskOutcomes
from pocketvl.tasks.outputs import OUTPUTS_FILE, Outputs, component_of, load_outputs
from pocketvl.tasks.parity import ParityReport
from pocketvl_runtime.bench_result import BenchResult, VariantBench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import Golden
from pocketvl_runtime.manifest import Comparable, PortKind, Precision, Status, VariantSpec

if TYPE_CHECKING:
    from pocketvl.evaluate.html import ImageMatches

_COMPARABLE_DIGITS = 4


@dataclass(frozen=True)
class Measured:
    """Result folders of the measuring stages.

    Attributes:
        reference: of `RunReference`.
        variants: of `RunVariant`, by variant.
        latency: of `MeasureLatency`.
        dataset: what was run.
        is_task_data: whether task metrics are measured on it; calibration data serves parity alone.
        is_calibration_data: whether ranges were taken from the very same samples.
    """

    reference: Path
    variants: Mapping[str, Path]
    latency: Path
    dataset: Dataset
    is_task_data: bool
    is_calibration_data: bool = False

    def golden_outputs(self) -> dict[str, Outputs]:
        """What each variant made of the golden pack."""
        return {name: load_outputs(at / GOLDEN_OUTPUTS_FILE) for name, at in self.variants.items()}


def build_report(bundle: Bundle, task: Task, measured: Measured, gate: GateSettings) -> Report:
    """Every figure of a bundle, judged."""
    reference = load_outputs(measured.reference / OUTPUTS_FILE)
    bench = _read_bench(measured.latency)
    outcomes = _outcomes(task, measured, reference)
    variants = {}
    for name, folder in measured.variants.items():
        outputs = load_outputs(folder / OUTPUTS_FILE)
        plain = _variant(bundle, name, bench.variants[name])
        parity = task.parity(reference, outputs)
        metrics = variant_metrics(outcomes, _outcomes(task, measured, outputs))
        embedded = {
            port: each
            for port, each in parity.items()
            if bundle.manifest.output(port).kind is PortKind.EMBEDDING
        }
        comparable = tuple(Comparable(space, _losses(embedded)) for space in bundle.manifest.spaces)
        variants[name] = replace(plain, parity=parity, metrics=metrics, comparable=comparable)
    report = Report(
        name=bundle.manifest.model.name,
        family=bundle.manifest.model.family,
        machine=_machine(bench),
        reference=reference_metrics(outcomes),
        variants=variants,
        data=_data(measured, reference),
        notes=(*_source_notes(measured), *_data_notes(measured, outcomes, reference)),
        provenance=dict(bundle.manifest.provenance),
    )
    return judge_report(report, gate)


def with_fallbacks(report: Report, fallbacks: Mapping[str, tuple[Fallback, ...]]) -> Report:
    """The report with the layers moved to a higher precision, by variant."""
    variants = {
        name: replace(variant, gate=replace(variant.gate, fallbacks=fallbacks.get(name, ())))
        if variant.gate is not None
        else variant
        for name, variant in report.variants.items()
    }
    return replace(report, variants=variants)


def read_rankings(folders: Sequence[Path], stages: Sequence[RankLayers]) -> tuple[Sensitivity, ...]:
    """What `RankLayers` found, worst first."""
    found = [
        Sensitivity(group.name, group.bits, None, stage.component, group.loss)
        for folder, stage in zip(folders, stages, strict=True)
        for group in read_ranking(folder)
    ]
    return tuple(sorted(found, key=lambda each: -(each.loss or 0.0)))


def calibration_notes(folders: Sequence[Path], stages: Sequence[NoteCalibration]) -> tuple[str, ...]:
    """What is doubtful about the calibration data, by component."""
    return tuple(
        f"{stage.component}: {warning}"
        for folder, stage in zip(folders, stages, strict=True)
        for warning in read_notes(folder)
    )


def with_tolerances(
    bundle: Bundle, task: Task, outputs: Mapping[str, Outputs], variants: Mapping[str, VariantSpec]
) -> Golden:
    """The golden pack with a tolerance per variant: what was seen here, and a margin for other processors.

    Args:
        bundle: with torch's arrays and answers.
        task: of its model.
        outputs: of the golden pack, by variant.
        variants: which ship.
    """
    golden, tasks = bundle.golden(), runnable_tasks(bundle)
    inputs = inputs_of(bundle, golden)
    tolerance = {
        name: task.golden.tolerance(golden, inputs, outputs[name], tasks, spec.precision is Precision.FP32)
        for name, spec in variants.items()
    }
    return replace(golden, tolerance=tolerance)


def write_reports(
    out: Path,
    report: Report,
    bundle: Bundle,
    task: Task,
    outputs: Mapping[str, Outputs],
    reference: Path,
    profiles: Mapping[str, BenchResult] | None = None,
) -> None:
    """Writes report.json and report.html, each in one step.

    Args:
        out: the bundle's folder.
        report: what was measured.
        bundle: for the images of its golden pack.
        task: of its model.
        outputs: of the golden pack, by variant.
        reference: what `RunReference` made, with the checkpoint's training curves where it has some.
        profiles: of the bundle on devices, by name.
    """
    curves = reference / CURVES_FILE
    training = curves.read_bytes() if curves.is_file() else None
    _write(out / REPORT_FILES[0], report_to_json(report))
    write_page(out, report, bundle, task, outputs, training, profiles or {})


def write_page(
    out: Path,
    report: Report,
    bundle: Bundle,
    task: Task,
    outputs: Mapping[str, Outputs],
    training: bytes | None,
    profiles: Mapping[str, BenchResult],
) -> None:
    """Write report.html in one step.

    Args:
        out: the bundle's folder.
        report: what was measured.
        bundle: for the images of its golden pack.
        task: of its model.
        outputs: of the golden pack, by variant.
        training: a PNG of the checkpoint's training curves.
        profiles: of the bundle on devices, by name.
    """
    from pocketvl.evaluate.html import render_html
    from pocketvl.pipelines.profiles import explain_profiles

    explained = explain_profiles(bundle, profiles)
    html = render_html(report, _pictures(bundle, task, outputs), training, profiles, explained)
    _write(out / REPORT_FILES[1], html)


def _write(path: Path, text: str) -> None:
    half = path.with_name(f"{path.name}.new")
    half.write_text(text, encoding="utf-8", newline="\n")
    half.replace(path)


def _pictures(bundle: Bundle, task: Task, outputs: Mapping[str, Outputs]) -> list[ImageMatches]:
    from pocketvl.evaluate.html import ImageMatches

    golden, tasks = bundle.golden(), bundle.manifest.tasks
    shown = {name: task.golden.shown(golden, each, tasks) for name, each in outputs.items()}
    pictures = [(each.file, bundle.read(each.file)) for each in golden.images]
    pictures += [
        (each.file, spectrogram_png(bundle.read(each.features), bundle.manifest)) for each in golden.sounds
    ]
    return [
        ImageMatches(
            name=Path(pictures[expected.image][0]).name,
            image=pictures[expected.image][1],
            texts=expected.texts,
            reference=expected.probability,
            variants={name: rows[row].probability for name, rows in shown.items()},
        )
        for row, expected in enumerate(task.golden.shown(golden, expected_outputs(golden), tasks))
    ]


def _outcomes(task: Task, measured: Measured, outputs: Outputs) -> TaskOutcomes:
    if not measured.is_task_data:
        return TaskOutcomes({}, ())
    return task.measure(measured.dataset, outputs)


def _source_notes(measured: Measured) -> list[str]:
    notes: list[str] = json.loads((measured.reference / NOTES_FILE).read_text(encoding="utf-8"))
    return notes


def _data_notes(measured: Measured, outcomes: TaskOutcomes, reference: Outputs) -> tuple[str, ...]:
    if not measured.is_task_data:
        texts = " and their texts" if reference.texts else ""
        seen = f"on {len(measured.dataset)} calibration pictures{texts}"
        return (f"no task data was given (--data): parity alone was measured, {seen}",)
    if measured.is_calibration_data:
        return (
            *outcomes.notes,
            "the task data is the calibration data, so that the figures flatter int8: give unseen data",
        )
    return outcomes.notes


def _data(measured: Measured, reference: Outputs) -> DataReport | None:
    if not measured.is_task_data:
        return None
    return describe_data(measured.dataset, len(reference.texts))


def _read_bench(folder: Path) -> BenchResult:
    path = folder / BENCH_FILE
    return BenchResult.from_json(path.read_bytes(), path.name)


def _machine(bench: BenchResult) -> MachineReport:
    used = [variant.engine for variant in bench.variants.values()]
    engines = {
        engine: f"{each.name} {each.version}"
        for each in used
        for engine, backend in BACKENDS.items()
        if each.name == backend.runtime
    }
    told = bench.machine
    return MachineReport(told.cpu, told.isa, told.processors, told.exact_int8, engines)


def _variant(bundle: Bundle, name: str, timed: VariantBench) -> VariantReport:
    spec = bundle.variant(name)
    backend = backend_of(spec.engine)
    graphs = {graph.component: graph for graph in bundle.graphs(name)}
    return VariantReport(
        engine=spec.engine,
        precision=spec.precision,
        status=spec.status,
        size_bytes=bundle.size_bytes(name),
        files={graph.graph_id: bundle.manifest.files[graph.file].bytes for graph in graphs.values()},
        latency_ms=_latency_by_stage(timed),
        peak_rss_bytes=timed.peak_memory_bytes,
        ops={component: backend.op_counts(bundle.root / graph.file) for component, graph in graphs.items()},
        notes=timed.notes,
    )


def _latency_by_stage(timed: VariantBench) -> dict[str, dict[str, Latency]]:
    """Stage -> thread count -> latency."""
    stages = dict.fromkeys(stage for timing in timed.timings for stage in timing.stages)
    return {
        stage: {
            str(timing.threads): Latency(timing.stages[stage].p10, timing.stages[stage].median)
            for timing in timed.timings
        }
        for stage in stages
    }


def _losses(parity: Mapping[str, ParityReport]) -> dict[str, float]:
    digits = _COMPARABLE_DIGITS
    return {component_of(port): round(each.centred_cosine_median, digits) for port, each in parity.items()}


def status_of(variant: VariantReport, keep_failing: bool) -> Status | None:
    """Accepted where the gate was passed; else experimental, or nothing where such a variant is left out."""
    if variant.gate is not None and variant.gate.passed:
        return Status.ACCEPTED
    return Status.EXPERIMENTAL if keep_failing else None
