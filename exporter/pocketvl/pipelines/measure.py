"""From what stages measured to a judged report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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
from pocketvl.pipelines.bundle import IMAGE_PORT, REPORT_FILES, TEXT_PORT, golden_embeddings, golden_scores
from pocketvl.pipelines.stages.measuring import BENCH_FILE, NOTES_FILE
from pocketvl.pipelines.stages.quantizing import CalibrateComponent, RankLayers, read_ranking
from pocketvl.pipelines.stages.training import CURVES_FILE
from pocketvl.select.gate import GateSettings, judge_report
from pocketvl.tasks.base import Task
from pocketvl.tasks.contrastive_metrics import Embeddings
from pocketvl.tasks.metrics import TaskOutcomes
from pocketvl.tasks.outputs import OUTPUTS_FILE, Outputs, component_of, load_outputs
from pocketvl.tasks.parity import ParityReport
from pocketvl_runtime.bench_result import BenchResult, VariantBench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.golden import AnswerTolerance, Golden, Tolerance, VariantTolerance
from pocketvl_runtime.manifest import Comparable, Manifest, Precision, Status, VariantSpec
from pocketvl_runtime.model import load
from pocketvl_runtime.obstacles import runnable_tasks
from pocketvl_runtime.tasks import label_texts, probabilities, similarities

if TYPE_CHECKING:
    from pocketvl.evaluate.html import ImageMatches

_COMPARABLE_DIGITS = 4
_TOLERANCE_MARGIN = 0.02
_SIMILARITY_MARGIN = 0.005
_EXACT_SIMILARITY_MARGIN = 1e-4


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
        comparable = tuple(Comparable(space, _losses(parity)) for space in bundle.manifest.spaces)
        variants[name] = replace(plain, parity=parity, metrics=metrics, comparable=comparable)
    report = Report(
        name=bundle.manifest.model.name,
        family=bundle.manifest.model.family,
        machine=_machine(bench),
        reference=reference_metrics(outcomes),
        variants=variants,
        data=_data(measured, reference),
        notes=(*_source_notes(measured), *_data_notes(measured, outcomes)),
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


def calibration_notes(folders: Sequence[Path], stages: Sequence[CalibrateComponent]) -> tuple[str, ...]:
    """What `CalibrateComponent` found doubtful about the calibration data."""
    from pocketvl.observe.calibration import read_warnings

    return tuple(
        f"{stage.component}: {warning}"
        for folder, stage in zip(folders, stages, strict=True)
        for warning in read_warnings(folder)
    )


def golden_answers(bundle: Bundle, variants: Sequence[str]) -> dict[str, Embeddings]:
    """What each variant makes of the golden pack: its pictures, its texts, and the labels' texts."""
    golden = bundle.golden()
    asked = asked_texts(golden, bundle.manifest).values()
    texts = list(dict.fromkeys(text for each in asked for text in each))
    answers = {}
    for name in variants:
        model = load(bundle, name, allow_non_finite=True)
        images = np.stack([model.embed_image(bundle.file(image.file)) for image in golden.images])
        encoding = model.tokenizer.encode(texts)
        rows = np.stack([model.embed_ids(i, m) for i, m in zip(encoding.ids, encoding.mask, strict=True)])
        answers[name] = Embeddings(images, rows, tuple(texts))
    return answers


def with_tolerances(
    golden: Golden,
    answers: Mapping[str, Embeddings],
    variants: Mapping[str, VariantSpec],
    manifest: Manifest,
) -> Golden:
    """The golden pack with a tolerance per variant: what was seen here, and a margin for other processors.

    Args:
        golden: with torch's answers.
        answers: what `golden_answers` found.
        variants: which ship.
        manifest: the bundle's, for its tasks.
    """
    expected = golden_embeddings(golden)
    tolerance = {}
    for name, spec in variants.items():
        got = answers[name]
        exact = spec.precision is Precision.FP32
        texts = _rows_of(got, expected.texts)
        rows = {IMAGE_PORT: (expected.image, got.image), TEXT_PORT: (expected.text, texts)}
        ports = {
            port: Tolerance(1e-4, 0.99999) if exact else Tolerance(None, _least_cosine(a, b))
            for port, (a, b) in rows.items()
        }
        tolerance[name] = VariantTolerance(
            ports,
            {
                task: _answer_tolerance(golden, task, got, asked, manifest, exact)
                for task, asked in asked_texts(golden, manifest).items()
            },
        )
    return replace(golden, tolerance=tolerance)


def asked_texts(golden: Golden, manifest: Manifest) -> dict[str, list[str]]:
    """What the golden pictures are held against, by task: the golden texts, or the labels."""
    return {
        name: [text.text for text in golden.texts]
        if task.template is None
        else label_texts(task.template, task.labels or ())
        for name, task in runnable_tasks(manifest).items()
    }


def write_reports(
    out: Path, report: Report, bundle: Bundle, answers: Mapping[str, Embeddings], reference: Path
) -> None:
    """Writes report.json and report.html, each in one step.

    Args:
        out: the bundle's folder.
        report: what was measured.
        bundle: for the pictures of its golden pack.
        answers: of those, by variant.
        reference: what `RunReference` made, with the checkpoint's training curves where it has some.
    """
    from pocketvl.evaluate.html import render_html

    curves = reference / CURVES_FILE
    training = curves.read_bytes() if curves.is_file() else None
    html = render_html(report, _pictures(bundle, answers), training)
    for name, text in zip(REPORT_FILES, (report_to_json(report), html), strict=True):
        half = out / f"{name}.new"
        half.write_text(text, encoding="utf-8", newline="\n")
        half.replace(out / name)


def _least_cosine(expected: np.ndarray, got: np.ndarray) -> float:
    products = (expected * got).sum(axis=1)
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(got, axis=1)
    worst = float(np.nan_to_num(products / np.maximum(norms, 1e-12), nan=-1.0).min())
    return max(-1.0, float(np.floor(100 * (worst - _TOLERANCE_MARGIN)) / 100))


def _rows_of(embeddings: Embeddings, texts: Sequence[str]) -> np.ndarray:
    """Text embeddings float32 [N, D] of texts that are among those embedded."""
    places = {text: place for place, text in enumerate(embeddings.texts)}
    return embeddings.text[[places[text] for text in texts]]


def _answer_tolerance(
    golden: Golden, task: str, got: Embeddings, asked: Sequence[str], manifest: Manifest, exact: bool
) -> AnswerTolerance:
    """Twice what a variant's scores were off here, and a margin; probabilities follow from similarities.

    A softmax's slope is at most 1/4, and the logits of two texts move apart by at most twice the scale
    times what each similarity is off.
    """
    margin = _EXACT_SIMILARITY_MARGIN if exact else _SIMILARITY_MARGIN
    scale = runnable_tasks(manifest)[task].scale.first
    worst = {"similarity": 0.0, "probability": 0.0}
    found = golden_scores(got.image, _rows_of(got, asked), scale)
    for expected, scores in zip((golden.answers or {})[task], found, strict=True):
        for kind in worst:
            off = np.abs(np.subtract(getattr(expected, kind), getattr(scores, kind)))
            worst[kind] = max(worst[kind], float(np.nan_to_num(off, nan=1.0).max()))
    similarity = 2 * worst["similarity"] + margin
    probability = 2 * worst["probability"] + scale * margin / 2
    return AnswerTolerance(_rounded_up(min(similarity, 2.0)), _rounded_up(min(probability, 1.0)))


def _rounded_up(value: float) -> float:
    """To four digits, so that the last ones of a sum do not show."""
    return float(np.ceil(1e4 * value) / 1e4)


def _pictures(bundle: Bundle, answers: Mapping[str, Embeddings]) -> list[ImageMatches]:
    from pocketvl.evaluate.html import ImageMatches

    golden = bundle.golden()
    expected = golden_embeddings(golden)
    shown = slice(0, 6)
    scale = runnable_tasks(bundle.manifest)["match"].scale.first

    def shares(embeddings: Embeddings, row: int) -> tuple[float, ...]:
        similarity = similarities(embeddings.image[row], embeddings.text[shown])
        return tuple(float(p) for p in probabilities(similarity, scale))

    return [
        ImageMatches(
            name=Path(image.file).name,
            image=bundle.read(image.file),
            texts=expected.texts[shown],
            reference=shares(expected, row),
            variants={name: shares(got, row) for name, got in answers.items()},
        )
        for row, image in enumerate(golden.images)
    ]


def _outcomes(task: Task, measured: Measured, outputs: Outputs) -> TaskOutcomes:
    if not measured.is_task_data:
        return TaskOutcomes({}, ())
    return task.measure(measured.dataset, outputs)


def _source_notes(measured: Measured) -> list[str]:
    notes: list[str] = json.loads((measured.reference / NOTES_FILE).read_text(encoding="utf-8"))
    return notes


def _data_notes(measured: Measured, outcomes: TaskOutcomes) -> tuple[str, ...]:
    if not measured.is_task_data:
        seen = f"on {len(measured.dataset)} calibration pictures and their texts"
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
