"""`pocketvl export` and `pocketvl verify`: the plans, and what is done with their results."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.data.dataset import SAMPLES_FILE, Dataset
from pocketvl.errors import RecipeError
from pocketvl.families import family_named, family_of
from pocketvl.families.base import Family
from pocketvl.families.folders.hub import folder_name
from pocketvl.network.precisions import QUANTIZED
from pocketvl.pipelines.bundle import REPORT_FILES, is_bundle_of, profiles_in
from pocketvl.pipelines.fallback import FallbackResult, Trial, fall_back_until_accepted, variant_run
from pocketvl.pipelines.profiles import read_profiles
from pocketvl.pipelines.stages.bundling import AssembleBundle, MakeGoldenPack
from pocketvl.pipelines.stages.calibrating import NoteCalibration
from pocketvl.pipelines.stages.components import check_source, this_machine
from pocketvl.pipelines.stages.lowering import GraphStage, check_graph_sizes
from pocketvl.pipelines.stages.measuring import MeasureLatency, RunReference, RunVariant
from pocketvl.pipelines.stages.quantizing import RankLayers
from pocketvl.pipelines.variants import (
    DEFAULT_VARIANTS,
    Fallbacks,
    Variants,
    VariantStages,
    checked_variants,
    refused_layer,
)
from pocketvl.recipes.export_recipe import DEFAULT, ExportRecipe, read_export_recipe
from pocketvl.stage import Event, Inputs, Stage, check_replaceable, drop, plan, publish, run
from pocketvl.tasks import TASK_FILE, load_task, task_class
from pocketvl_runtime.errors import PocketVLError
from pocketvl_runtime.manifest import MANIFEST_FILE, Engine, Manifest, Precision, variant_name

if TYPE_CHECKING:
    from pocketvl.evaluate.report import Fallback, Report, SearchReport
    from pocketvl.select.gate import GateSettings

StageProgress = Callable[[Event], None]
_FLOAT_SAMPLES = 64


@dataclass(frozen=True)
class ExportSettings:
    """Settings of an export.

    Attributes:
        source: the checkpoint folder.
        out: the bundle's folder; replaced in one step.
        calibration: a dataset folder.
        data: a dataset folder for task metrics; without it parity alone is measured, on calibration's.
        variants: names of variants.
        gate: allowances, as `match_hard=0.5,retrieval_r1=1.0`; metrics not named keep their default.
        keep_failing: put variants that fail the gate in, as experimental.
        recipe: name of an export recipe, or a .toml file.
        train: a dataset folder to train on, for recipes that train.
    """

    source: Path
    out: Path
    calibration: Path
    data: Path | None = None
    variants: tuple[str, ...] = DEFAULT_VARIANTS
    gate: str = ""
    keep_failing: bool = False
    recipe: str = DEFAULT
    train: Path | None = None


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

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

    version: ClassVar[int] = 13
    tools: ClassVar[tuple[str, ...]] = (
        "onnx",
        "onnxruntime",
        "ai-edge-litert",
        "matplotlib",
        "jinja2",
        "pillow",
        "numpy",
        "tokenizers",
    )

    candidate: AssembleBundle
    reference: RunReference
    runs: tuple[RunVariant, ...]
    latency: MeasureLatency
    calibrations: tuple[NoteCalibration, ...]
    rankings: tuple[RankLayers, ...]
    fallbacks: Mapping[str, tuple[Fallback, ...]]
    calibration: Path
    data: Path
    data_name: str
    is_task_data: bool
    gate: str
    keep_failing: bool
    search: SearchReport | None = None

    @property
    def title(self) -> str:
        return "judge and report"

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def requires(self, source: Inputs) -> None:
        from pocketvl.select.gate import parse_gate

        parse_gate(self.gate)

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.pipelines.bundle import write_judged
        from pocketvl.pipelines.measure import (
            Measured,
            build_report,
            calibration_notes,
            read_rankings,
            status_of,
            with_fallbacks,
            with_tolerances,
            write_reports,
        )
        from pocketvl_runtime.bundle import Bundle

        task = load_task(source["reference"] / TASK_FILE)
        candidate = Bundle.open(source["candidate"])
        names = [stage.variant for stage in self.runs]
        measured = Measured(
            source["reference"],
            dict(zip(names, source.all("runs"), strict=True)),
            source["latency"],
            Dataset.open(source["data"]),
            self.is_task_data,
            is_calibration_data=_samples(source["data"]) == _samples(source["calibration"]),
        )
        gate = _gate_of(self.gate, family_named(candidate.manifest.model.family))
        report = with_fallbacks(build_report(candidate, task, measured, gate), self.fallbacks)
        report = replace(
            report,
            sensitivity=read_rankings(source.all("rankings"), self.rankings),
            search=self.search,
            notes=(*report.notes, *calibration_notes(source.all("calibrations"), self.calibrations)),
        )
        statuses = {name: status_of(variant, self.keep_failing) for name, variant in report.variants.items()}
        report = replace(
            report, variants={n: replace(v, status=statuses[n]) for n, v in report.variants.items()}
        )
        kept = {
            name: replace(candidate.variant(name), status=status, comparable=report.variants[name].comparable)
            for name, status in statuses.items()
            if status is not None
        }
        outputs = measured.golden_outputs()
        golden = with_tolerances(candidate, task, outputs, kept)
        write_judged(source["candidate"], candidate.manifest, golden, kept, out)
        write_reports(out, report, candidate, task, outputs, measured.reference)


def export(settings: ExportSettings, cache: Path, progress: StageProgress | None = None) -> ExportResult:
    """Lowers, quantizes, measures, judges and puts the bundle in its place.

    Where no variant passed there is nothing to ship, and the bundle's place is left as it is.

    Args:
        settings: what to export.
        cache: where results of stages are kept.
        progress: called with every event of a stage.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    _check_inputs(settings)
    planned = _Export(settings, read_export_recipe(settings.recipe), cache, progress)
    check_replaceable(settings.out, written_bundle, profiles_in(settings.out))
    plan([planned.last_stage(FallbackResult())])  # so that what is wrong with the inputs is said at once
    return _finish(settings, planned.last_stage(planned.settle()), cache, progress)


def export_chosen(
    settings: ExportSettings,
    chosen: Fallbacks,
    search: SearchReport,
    cache: Path,
    progress: StageProgress | None = None,
) -> ExportResult:
    """Export what a search chose, as variants of mixed precision, beside those of the settings.

    Args:
        settings: what to export.
        chosen: the layers that are not in 8 bits.
        search: what the report says of the search.
        cache: where results of stages are kept.
        progress: called with every event of a stage.

    Raises:
        PocketVLError: something is wrong with the inputs.
    """
    recipe = read_export_recipe(settings.recipe)
    precisions = {precision for layers in chosen.layers.values() for _, precision in layers}
    able = [
        engine
        for engine in Engine
        if all(refused_layer(engine, precision, recipe.grids) is None for precision in precisions)
    ]
    mixed = {variant_name(engine, Precision.MIXED): (engine, Precision.MIXED) for engine in able}
    planned = _Export(settings, recipe, cache, progress, mixed, search)
    check_replaceable(settings.out, written_bundle, profiles_in(settings.out))
    return _finish(settings, planned.last_stage(FallbackResult({Precision.MIXED: chosen})), cache, progress)


def _finish(
    settings: ExportSettings, last: JudgeBundle, cache: Path, progress: StageProgress | None
) -> ExportResult:
    """Run the last stage and put the bundle in its place."""
    from pocketvl.evaluate.report_json import read_report

    results = run(plan([last]), cache, progress)
    result = results[last]
    report = read_report(result.folder / "report.json")
    if all(variant.status is None for variant in report.variants.values()):
        return ExportResult(None, result.folder / "report.html", report, report.failures)
    publish(result.folder, settings.out, written_bundle, profiles_in(settings.out))
    drop(results, cache)
    return ExportResult(settings.out, settings.out / "report.html", report, report.failures)


def verify(
    bundle: Path, source: Path, data: Path, gate: str, progress: StageProgress | None = None
) -> Report:
    """Measure an existing bundle against its checkpoint again and write its reports.

    Args:
        bundle: the bundle's folder; report.json and report.html in it are replaced.
        source: the checkpoint it was exported from.
        data: a dataset folder.
        gate: as in `ExportSettings`.
        progress: called with every event of a stage.

    Raises:
        RecipeError: the bundle is not of this checkpoint.
        PocketVLError: anything else that is wrong with the inputs.
    """
    from pocketvl.families import open_checkpoint
    from pocketvl.pipelines.measure import Measured, build_report, write_reports
    from pocketvl_runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    settings = _gate_of(gate, family_of(source))
    opened.verify()
    if not is_bundle_of(opened, open_checkpoint(source)):
        raise RecipeError(f"{bundle} was not exported from {source}: their outputs differ")
    profiles = read_profiles(opened).results
    names = tuple(opened.manifest.variants)
    reference = RunReference(source, data)
    runs = {name: RunVariant(reference, bundle, data, name) for name in names}
    latency = MeasureLatency(bundle, names)
    with tempfile.TemporaryDirectory(prefix="pocketvl-verify-") as cache:
        results = run(plan([reference, *runs.values(), latency]), Path(cache), progress)
        measured = Measured(
            results[reference].folder,
            {name: results[stage].folder for name, stage in runs.items()},
            results[latency].folder,
            Dataset.open(data),
            is_task_data=True,
        )
        task = load_task(measured.reference / TASK_FILE)
        report = build_report(opened, task, measured, settings)
        outputs = measured.golden_outputs()
        write_reports(bundle, report, opened, task, outputs, measured.reference, profiles)
    return report


def _gate_of(text: str, family: Family) -> GateSettings:
    """The gate of a family's models."""
    from pocketvl.select.gate import parse_gate

    return parse_gate(text, task_class(family).metrics, family.tolerances)


def _samples(folder: Path) -> bytes:
    return (folder / SAMPLES_FILE).read_bytes()


def _check_inputs(settings: ExportSettings) -> None:
    """Check the input folders once, before every stage of the plan would."""
    check_source(settings.source)
    check_graph_sizes(settings.source, {engine for engine, _ in checked_variants(settings.variants).values()})
    for folder in filter(None, (settings.calibration, settings.data, settings.train)):
        Dataset.open(folder)


def written_bundle(folder: Path) -> Mapping[str, str | None] | None:
    """The files that `export` wrote into a folder: those in its manifest, the manifest, and reports."""
    try:
        files = Manifest.read(folder / MANIFEST_FILE).files
    except PocketVLError:
        return None
    measured = (*REPORT_FILES, *(f"{name}.new" for name in REPORT_FILES))
    return {
        **{name: entry.sha256 for name, entry in files.items()},
        **dict.fromkeys((MANIFEST_FILE, *measured)),
    }


@dataclass(frozen=True)
class _Export:
    """One export: its stages, which depend on what the gate says on the way."""

    settings: ExportSettings
    recipe: ExportRecipe
    cache: Path
    progress: StageProgress | None
    mixed: Variants = field(default_factory=dict)
    search: SearchReport | None = None

    @property
    def variants(self) -> Variants:
        return {**checked_variants(self.settings.variants), **self.mixed}

    @cached_property
    def stages(self) -> VariantStages:
        settings = self.settings
        return VariantStages(
            settings.source, settings.calibration, self.recipe, self.is_quantized, settings.train
        )

    @property
    def is_quantized(self) -> bool:
        return any(precision in QUANTIZED for _, precision in self.variants.values())

    @property
    def base(self) -> MakeGoldenPack:
        source = self.settings.source
        return MakeGoldenPack(source, self.settings.calibration, folder_name(source))

    @property
    def data(self) -> Path:
        return self.settings.data or self.settings.calibration

    def settle(self) -> FallbackResult:
        """Find out which layers must be moved to a higher precision."""
        settings = self.settings
        graphs = chain.from_iterable(self._graphs(FallbackResult()).values())
        trial = Trial(
            self.base,
            self.data,
            settings.data is not None,
            _gate_of(settings.gate, family_of(settings.source)),
            self.recipe.most_growth,
            tuple(graph for graph in graphs if graph.precision not in QUANTIZED),
            self.cache,
            self.progress,
        )
        return fall_back_until_accepted(self.stages, self.variants, trial)

    def _graphs(self, fallback: FallbackResult) -> dict[str, tuple[GraphStage, ...]]:
        """The graphs of each variant, with these layers in a higher precision."""
        return {
            name: self.stages.graphs(engine, precision, fallback.layers.get(precision, Fallbacks()))
            for name, (engine, precision) in self.variants.items()
        }

    def _most_samples(self, precision: Precision) -> int | None:
        """How many pictures, and texts, a variant is compared on; None: all."""
        # rounding in float costs all samples about the same, so that some of them tell how much
        is_float = precision in (Precision.FP32, Precision.FP16)
        return _FLOAT_SAMPLES if is_float and self.settings.data is None else None

    def last_stage(self, fallback: FallbackResult) -> JudgeBundle:
        """The judged bundle, with these layers in a higher precision."""
        stages, graphs = self.stages, self._graphs(fallback)
        candidate = AssembleBundle(self.base, tuple(chain.from_iterable(graphs.values())))
        names, settings = tuple(self.variants), self.settings
        return JudgeBundle(
            candidate,
            RunReference(settings.source, self.data),
            tuple(
                variant_run(self.base, self.data, name, graphs[name], self._most_samples(precision))
                for name, (_, precision) in self.variants.items()
            ),
            MeasureLatency(candidate, names),
            tuple(map(stages.calibration_notes, stages.components)) if self.is_quantized else (),
            fallback.rankings,
            {name: fallback.steps.get(precision, ()) for name, (_, precision) in self.variants.items()},
            settings.calibration,
            self.data,
            self.data.resolve().name,
            settings.data is not None,
            settings.gate,
            settings.keep_failing,
            self.search,
        )
