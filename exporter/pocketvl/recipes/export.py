"""`pocketvl export` and `pocketvl verify`: the plans, and what is done with their results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.data.dataset import SAMPLES_FILE, Dataset
from pocketvl.errors import RecipeError
from pocketvl.recipes.bundle import REPORT_FILES
from pocketvl.recipes.publishing import publish_if_changed
from pocketvl.recipes.stages import (
    AssembleBundle,
    CalibrationFeeds,
    CastFp16,
    EmbedReference,
    EmbedVariant,
    GraphStage,
    LowerGraph,
    LowerInt8,
    MeasureLatency,
    QuantizeTower,
    check_source,
    this_machine,
)
from pocketvl.stage import Event, Inputs, Result, Stage, check_replaceable, plan, run
from pocketvl_runtime.errors import PocketVLError
from pocketvl_runtime.manifest import MANIFEST_FILE, Engine, Manifest, Precision, Role, variant_name

if TYPE_CHECKING:
    from pocketvl.evaluate.report import Report

DEFAULT_VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-fp16", "tflite-int8")
_ROLES = (Role.IMAGE_ENCODER, Role.TEXT_ENCODER)

Tell = Callable[[Event], None]


@dataclass(frozen=True)
class ExportSettings:
    """What to export.

    Attributes:
        source: the checkpoint folder.
        out: the bundle's folder; replaced in one step.
        calibration: a dataset folder.
        data: a dataset folder for task metrics; without it parity alone is measured, on calibration's.
        variants: names of variants.
        gate: allowances, as `match_hard=0.5,retrieval_r1=1.0`; metrics not named keep their default.
        keep_failing: put variants that fail the gate in, as experimental.
    """

    source: Path
    out: Path
    calibration: Path
    data: Path | None = None
    variants: tuple[str, ...] = DEFAULT_VARIANTS
    gate: str = ""
    keep_failing: bool = False


@dataclass(frozen=True)
class ExportResult:
    """What came out.

    Attributes:
        bundle: its place; None where no variant passed, so that there is nothing to ship.
        page: report.html.
        report: what was measured.
        failures: one line per figure over its allowance.
    """

    bundle: Path | None
    page: Path
    report: Report
    failures: tuple[str, ...]


@dataclass(frozen=True)
class JudgeBundle(Stage):
    """The bundle as it ships: judged variants, tolerances, and the report beside the manifest."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = (
        "onnx",
        "onnxruntime",
        "ai-edge-litert",
        "matplotlib",
        "jinja2",
        "pillow",
        "numpy",
        "scipy",
        "tokenizers",
    )

    candidate: AssembleBundle
    reference: EmbedReference
    embedded: tuple[EmbedVariant, ...]
    latency: MeasureLatency
    calibration: Path
    data: Path
    data_name: str
    is_task_data: bool
    gate: str
    keep_failing: bool

    @property
    def title(self) -> str:
        return "judge and report"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def requires(self, source: Inputs) -> None:
        from pocketvl.select.gate import parse_gate

        parse_gate(self.gate)

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.recipes.bundle import write_judged
        from pocketvl.recipes.measure import (
            Measured,
            build_report,
            golden_answers,
            status_of,
            with_tolerances,
            write_reports,
        )
        from pocketvl.select.gate import parse_gate
        from pocketvl_runtime.bundle import Bundle

        candidate = Bundle.open(source["candidate"])
        names = [stage.variant for stage in self.embedded]
        measured = Measured(
            source["reference"],
            dict(zip(names, source.all("embedded"), strict=True)),
            source["latency"],
            Dataset.open(source["data"]),
            self.is_task_data,
            is_calibration_data=_samples(source["data"]) == _samples(source["calibration"]),
        )
        report = build_report(candidate, measured, parse_gate(self.gate))
        statuses = {name: status_of(variant, self.keep_failing) for name, variant in report.variants.items()}
        report = replace(
            report, variants={n: replace(v, status=statuses[n]) for n, v in report.variants.items()}
        )
        kept = {
            name: replace(candidate.variant(name), status=status, comparable=report.variants[name].comparable)
            for name, status in statuses.items()
            if status is not None
        }
        answers = golden_answers(candidate, names)
        precisions = {name: spec.precision for name, spec in kept.items()}
        kept_answers = {name: answers[name] for name in kept}
        golden = with_tolerances(candidate.golden(), kept_answers, precisions)
        write_judged(source["candidate"], candidate.manifest, golden, kept, out)
        write_reports(out, report, candidate, answers)


def export(settings: ExportSettings, cache: Path, tell: Tell | None = None) -> ExportResult:
    """Lowers, quantizes, measures, judges and puts the bundle in its place.

    Where no variant passed there is nothing to ship, and the bundle's place is left as it is.

    Args:
        settings: what to export.
        cache: where results of stages are kept.
        tell: is told of every stage.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    from pocketvl.evaluate.report_json import read_report

    _check_inputs(settings)
    last = _export_stage(settings)
    planned = plan([last])
    check_replaceable(settings.out, is_bundle)
    results = run(planned, cache, tell)
    result: Result = results[last]
    report = read_report(result.folder / "report.json")
    failures = gate_failures(report)
    if all(variant.status is None for variant in report.variants.values()):
        return ExportResult(None, result.folder / "report.html", report, failures)
    publish_if_changed(result.folder, settings.out, is_bundle)
    return ExportResult(settings.out, settings.out / "report.html", report, failures)


def verify(bundle: Path, source: Path, data: Path, gate: str, tell: Tell | None = None) -> Report:
    """Measures an existing bundle anew against its checkpoint and writes its reports.

    Args:
        bundle: the bundle's folder; report.json and report.html in it are replaced.
        source: the checkpoint it was exported from.
        data: a dataset folder.
        gate: as in `ExportSettings`.
        tell: is told of every stage.

    Raises:
        RecipeError: the bundle is not of this checkpoint.
        PocketVLError: anything else that is wrong with the inputs.
    """
    from pocketvl.families import open_source
    from pocketvl.recipes.measure import Measured, build_report, golden_answers, write_reports
    from pocketvl.select.gate import parse_gate
    from pocketvl_runtime.bundle import Bundle

    settings = parse_gate(gate)
    opened = Bundle.open(bundle)
    opened.verify()
    if open_source(source).space != opened.manifest.space:
        raise RecipeError(f"{bundle} was not exported from {source}: their embedding spaces differ")
    names = tuple(opened.manifest.variants)
    reference = EmbedReference(source, data)
    embedded = {name: EmbedVariant(bundle, data, name) for name in names}
    latency = MeasureLatency(bundle, names)
    with tempfile.TemporaryDirectory(prefix="pocketvl-verify-") as cache:
        results = run(plan([reference, *embedded.values(), latency]), Path(cache), tell)
        measured = Measured(
            results[reference].folder,
            {name: results[stage].folder for name, stage in embedded.items()},
            results[latency].folder,
            Dataset.open(data),
            is_task_data=True,
        )
        report = build_report(opened, measured, settings)
    write_reports(bundle, report, opened, golden_answers(opened, names))
    return report


def _samples(folder: Path) -> bytes:
    return (folder / SAMPLES_FILE).read_bytes()


def _check_inputs(settings: ExportSettings) -> None:
    """Says of a wrong folder once what every stage of the plan would say of it."""
    check_source(settings.source)
    for folder in filter(None, (settings.calibration, settings.data)):
        Dataset.open(folder)


def gate_failures(report: Report) -> tuple[str, ...]:
    """One line per figure over its allowance, over all variants."""
    return tuple(f for v in report.ordered_variants() if v.gate is not None for f in v.gate.failures)


def is_bundle(folder: Path) -> bool:
    """Whether a folder is a bundle and nothing else, which `export` may replace."""
    try:
        known = {*Manifest.read(folder / MANIFEST_FILE).files, MANIFEST_FILE, *REPORT_FILES}
        known |= {f"{name}.new" for name in REPORT_FILES}
    except PocketVLError:
        return False
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}
    return files <= known


def _export_stage(settings: ExportSettings) -> JudgeBundle:
    source, calibration = settings.source, settings.calibration
    variants = _checked(settings.variants)
    feeds = CalibrationFeeds(source, calibration)
    graphs = tuple(
        _graph(source, feeds, role, *variants[name]) for name in sorted(variants) for role in _ROLES
    )
    candidate = AssembleBundle(source, calibration, graphs, source.resolve().name)
    data = settings.data or calibration
    reference = EmbedReference(source, data)
    embedded = tuple(EmbedVariant(candidate, data, name) for name in sorted(variants))
    latency = MeasureLatency(candidate, tuple(sorted(variants)))
    return JudgeBundle(
        candidate,
        reference,
        embedded,
        latency,
        calibration,
        data,
        data.resolve().name,
        settings.data is not None,
        settings.gate,
        settings.keep_failing,
    )


def _graph(
    source: Path, feeds: CalibrationFeeds, role: Role, engine: Engine, precision: Precision
) -> GraphStage:
    lowered = LowerGraph(source, role, engine)
    if precision is Precision.FP32:
        return lowered
    if precision is Precision.FP16:
        return CastFp16(lowered)
    return LowerInt8(lowered, QuantizeTower(source, role, feeds))


def _checked(names: tuple[str, ...]) -> Mapping[str, tuple[Engine, Precision]]:
    known = {
        variant_name(e, p): (e, p)
        for e in Engine
        for p in Precision
        if variant_name(e, p) in DEFAULT_VARIANTS
    }
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise RecipeError(f"variants: {', '.join(unknown) or 'none given'}; there are {', '.join(known)}")
    return {name: known[name] for name in names}
