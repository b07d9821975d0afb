"""`pocketvl search`: bits per layer under a budget, then the bundle of what was found."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pocketvl.data.dataset import Dataset
from pocketvl.errors import RecipeError
from pocketvl.families import read_contract
from pocketvl.families.base import Contract
from pocketvl.lower.backends import backend_of
from pocketvl.lower.forms import described
from pocketvl.network.precisions import PLANS
from pocketvl.pipelines.bundle import profiles_in
from pocketvl.pipelines.export import ExportResult, ExportSettings, export_chosen, written_bundle
from pocketvl.pipelines.stages.components import check_second_head, check_source, open_component
from pocketvl.pipelines.stages.lowering import LowerGraph, check_graph_sizes
from pocketvl.pipelines.stages.quantizing import QuantizeComponent, loss_by_layer, read_ranking
from pocketvl.pipelines.stages.splitting import CHOOSING, JUDGING, SplitDataset
from pocketvl.pipelines.variants import Fallbacks, VariantStages, refused_layer
from pocketvl.recipes.export_recipe import DEFAULT, read_export_recipe
from pocketvl.stage import Event, Result, Results, check_replaceable, plan, run
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, variant_name
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pocketvl.evaluate.report import SearchReport
    from pocketvl.network.integers import QuantizedLayer
    from pocketvl.select.bit_trials import BitTrials, ComponentChoices
    from pocketvl.select.search import Budget, Group, Outcome, SearchSettings, Trial, Widths
    from pocketvl.tasks.base import Task
    from pocketvl.tasks.torch_runner import TorchRunner

StageProgress = Callable[[Event], None]
_PRECISIONS = {
    plan.search_bits: precision for precision, plan in PLANS.items() if plan.search_bits is not None
}
_STUDY_FILE = "study.log"
_MOST_CHOOSING = 1000
_THREADS, _WARMUP, _RUNS = 2, 10, 60
_SIMULATED_BATCH = 100
_CHANNEL_BYTES = 12  # a scale, and the zero point of 64 bits that TFLite has


@dataclass(frozen=True)
class SearchRequest:
    """A search request.

    Attributes:
        source: the checkpoint folder.
        out: the bundle's folder; replaced in one step.
        work: where the study is kept, so that it can be gone on with, or be shared.
        calibration: a dataset folder.
        data: a dataset folder; one part of it chooses, the rest judges.
        budget: `size=1.2MB` or `latency_ms=8`.
        engine: whose files or latency are limited.
        trials: how many choices are tried.
        sampler: gp or tpe.
        widths: bits to choose from.
        seed: of the sampler.
        recipe: name of an export recipe, or a .toml file.
        gate: allowances, as in `ExportSettings`.
        keep_failing: put variants that fail the gate in, as experimental.
    """

    source: Path
    out: Path
    work: Path
    calibration: Path
    data: Path
    budget: str
    engine: Engine = Engine.TFLITE
    trials: int = 60
    sampler: str = "gp"
    widths: tuple[int, ...] = (4, 8)
    seed: int = 0
    recipe: str = DEFAULT
    gate: str = ""
    keep_failing: bool = False

    def __post_init__(self) -> None:
        if len(set(self.widths)) < 2 or not set(self.widths) <= set(_PRECISIONS):
            raise RecipeError(f"widths: two or more of {', '.join(map(str, sorted(_PRECISIONS)))} are needed")
        grids = read_export_recipe(self.recipe).grids
        for bits in self.widths:
            refused = refused_layer(self.engine, _PRECISIONS[bits], grids)
            if refused is not None:
                title = backend_of(self.engine).title
                raise RecipeError(
                    f"widths: {bits} bits would be {described(refused)}, which {title} does not run; leave "
                    "them out, or search for another engine"
                )


def search(
    request: SearchRequest,
    cache: Path,
    progress: StageProgress | None = None,
    trial_progress: Progress | None = None,
) -> ExportResult:
    """Searches, and exports what was found: beside it the uniform widths, to compare with.

    Args:
        request: what to search.
        cache: where results of stages are kept.
        progress: called with every event of a stage.
        trial_progress: called after every trial.

    Raises:
        RecipeError: the budget cannot be met, or the study in `work` is of another search.
        StageError: something else stands at `out`.
        PocketVLError: something is wrong with the inputs.
    """
    from pocketvl.select.search import (
        Sampler,
        SearchSettings,
        best_first,
        enqueue,
        parse_budget,
        search_bits,
        starting_points,
    )

    settings = SearchSettings(
        parse_budget(request.budget), request.trials, Sampler(request.sampler), request.seed
    )
    check_replaceable(request.out, written_bundle, profiles_in(request.out))  # not after hours of search
    check_source(request.source)
    check_second_head(request.source, "search")
    check_graph_sizes(request.source, tuple(Engine))
    found = _Search(request, cache, progress)
    journal = request.work / f"{found.key}-{_STUDY_FILE}"
    overhead = found.overhead_bytes
    found.check_budget(settings.budget)
    enqueue(journal, found.groups, settings, starting_points(found.groups, settings.budget, overhead))
    trials = search_bits(
        found.groups, lambda widths: found.outcome(widths, settings.budget), settings, journal, trial_progress
    )
    chosen = found.first_that_fits(best_first(trials, settings.budget), settings.budget)
    return found.export(chosen, trials, settings)


@dataclass(frozen=True)
class _Search:
    request: SearchRequest
    cache: Path
    progress: StageProgress | None

    @cached_property
    def stages(self) -> VariantStages:
        recipe = replace(read_export_recipe(self.request.recipe), qat=None, products=None)
        return VariantStages(self.request.source, self.request.calibration, recipe, is_quantized=True)

    @cached_property
    def split(self) -> Result:
        """The data in two parts."""
        stage = SplitDataset(self.request.data, _MOST_CHOOSING)
        return run(plan([stage]), self.cache, self.progress)[stage]

    @cached_property
    def key(self) -> str:
        """Tells this search's study from another one's in the same folder."""
        stages = [self.quantized(name, bits) for name in self.components for bits in self.stored]
        lowered = [
            self.lowered_float(name) for name in self.components
        ]  # integers may fit another activation as well
        ingredients = [
            *(self.results[stage].digest for stage in (*stages, *lowered)),
            self.split.digest,
            self.request.budget,
            self.request.engine.value,
            self.request.widths,
            self.request.sampler,
        ]
        return hashlib.sha256(json.dumps(ingredients).encode()).hexdigest()[:12]

    @property
    def stored(self) -> tuple[int, ...]:
        """The widths that layers are quantized to; 8 is always among them, for what cannot be narrower."""
        return tuple(sorted({8, *(bits for bits in self.request.widths if bits < 32)}))

    @property
    def components(self) -> tuple[str, ...]:
        return self.stages.components

    def quantized(self, component: str, bits: int) -> QuantizeComponent:
        stage = self.stages.integers(component, _PRECISIONS[bits])
        assert isinstance(stage, QuantizeComponent)
        return stage

    def lowered_float(self, component: str) -> LowerGraph:
        return LowerGraph(self.stages.prepared(component), self.request.engine)

    @cached_property
    def results(self) -> Results:
        pairs = [(name, bits) for name in self.components for bits in self.stored]
        wanted = [self.quantized(name, bits) for name, bits in pairs]
        rankings = [self.stages.ranking(name, _PRECISIONS[bits]) for name, bits in pairs]
        lowered = [self.lowered_float(name) for name in self.components]
        return run(plan([*wanted, *rankings, *lowered]), self.cache, self.progress)

    @cached_property
    def contract(self) -> Contract:
        """The checkpoint's."""
        return read_contract(self.request.source)

    @cached_property
    def task(self) -> Task:
        """The task of the checkpoint."""
        return task_of(self.contract)

    @cached_property
    def runner(self) -> TorchRunner:
        """The prepared components in float."""
        from pocketvl.tasks.torch_runner import TorchRunner

        folders = {name: self.results[self.stages.prepared(name)].folder for name in self.components}
        components = {
            name: open_component(self.request.source, name, folder) for name, folder in folders.items()
        }
        encoder = replace(Encoder.of_contract(self.contract), held={})  # every trial reads the same images
        return TorchRunner(components, encoder, "simulated integers", _SIMULATED_BATCH)

    @cached_property
    def choices(self) -> Mapping[str, ComponentChoices]:
        """The components in every stored width, with their inputs."""
        from pocketvl.network.integers import QuantizedComponent
        from pocketvl.select.bit_trials import ComponentChoices

        found = {}
        for feed in self.task.feeds(self.runner.encoder, self.dataset):
            quantized = {
                bits: QuantizedComponent.load(self.results[self.quantized(feed.component, bits)].folder)
                for bits in self.stored
            }
            found[feed.component] = ComponentChoices(quantized, feed)
        return found

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset that choices are scored on."""
        return Dataset.open(self.split.folder / CHOOSING)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """The layers of all components that get the same bits, with what each width costs."""
        from pocketvl.quantize.ranking import layer_groups
        from pocketvl.select.search import Group

        found = []
        for component, choices in self.choices.items():
            quantized = choices.quantized
            losses = {bits: self._losses(component, bits) for bits in self.stored}
            for layers in layer_groups(quantized[8]):
                bytes_of, loss_of = {}, {}
                for bits in self.stored:
                    stored = [quantized[bits].layers[name] for name in layers]
                    if all(layer.spec.weights.bits == bits for layer in stored):
                        bytes_of[bits] = sum(_bytes_of(layer, self.request.engine) for layer in stored)
                        loss_of[bits] = sum(losses[bits].get(name, 0.0) for name in layers)
                if 32 in self.request.widths:
                    bytes_of[32] = 4 * sum(quantized[8].layers[name].weights.size for name in layers)
                    loss_of[32] = 0.0
                widths = tuple(b for b in sorted(bytes_of) if b in self.request.widths) or (8,)
                found.append(Group(component, layers, widths, bytes_of, loss_of))
        return tuple(found)

    def _losses(self, component: str, bits: int) -> dict[str, float]:
        """The sensitivity of each layer at a width."""
        ranking = self.stages.ranking(component, _PRECISIONS[bits])
        return loss_by_layer(read_ranking(self.results[ranking].folder))

    @cached_property
    def trials(self) -> BitTrials:
        """Answers by simulation."""
        from pocketvl.select.bit_trials import BitTrials

        return BitTrials(self.groups, self.choices, self.runner, self.task, self.dataset)

    @cached_property
    def overhead_bytes(self) -> int:
        """Bytes of graph files beside the weights and scales that are chosen."""
        from pocketvl.select.search import layers_bytes

        widths = (8,) * len(self.groups)
        files = self.lowered(widths)
        return sum(len(content) for content in files.values()) - layers_bytes(self.groups, widths)

    def check_budget(self, budget: Budget) -> None:
        """Say at once where no choice can be small enough."""
        from pocketvl.select.search import BudgetKind, layers_bytes

        narrowest = tuple(group.widths[0] for group in self.groups)
        least = self.overhead_bytes + layers_bytes(self.groups, narrowest)
        if budget.kind is BudgetKind.SIZE and budget.limit < least:
            raise RecipeError(
                f"budget: {budget.limit / 1e6:.2f} MB is less than {least / 1e6:.2f} MB, which is what every "
                f"layer in {self.request.widths[0]} bits takes"
            )

    def outcome(self, widths: Widths, budget: Budget) -> Outcome:
        """The outcome of a choice; its graphs are made and timed only where latency is limited."""
        from pocketvl.select.search import BudgetKind, Outcome, layers_bytes

        score = self.trials.score(widths)
        if budget.kind is BudgetKind.SIZE:
            return Outcome(score, self.overhead_bytes + layers_bytes(self.groups, widths))
        files = self.lowered(widths)
        return Outcome(score, sum(map(len, files.values())), self.latency_ms(files))

    def lowered(self, widths: Widths) -> dict[str, bytes]:
        """The graph files of a choice."""
        files = {}
        with tempfile.TemporaryDirectory(prefix="pocketvl-search-") as folder:
            for name, choices in self.choices.items():
                lowered = self.lowered_float(name)
                source = self.results[lowered].folder / lowered.file
                target = Path(folder) / f"{name}{source.suffix}"
                mixed = choices.mixed(self.trials.layer_widths(name, widths))
                backend_of(self.request.engine).write_quantized(source, mixed, target)
                files[name] = target.read_bytes()
        return files

    def latency_ms(self, files: Mapping[str, bytes]) -> float:
        """Median milliseconds of one run of every graph, measured here on two threads."""
        return sum(_median_ms(name, self.request.engine, content) for name, content in files.items())

    def first_that_fits(self, trials: Sequence[Trial], budget: Budget) -> Trial:
        """The best trial whose files, once written, are within the budget.

        Raises:
            RecipeError: none is.
        """
        from pocketvl.select.search import BudgetKind

        for trial in trials:
            if budget.kind is BudgetKind.LATENCY_MS:
                return trial
            size = sum(len(content) for content in self.lowered(trial.widths).values())
            if size <= budget.limit:
                return replace(trial, outcome=replace(trial.outcome, size_bytes=size))
        raise RecipeError("no trial was within the budget: allow more of it, or try more often")

    def export(self, chosen: Trial, trials: Sequence[Trial], settings: SearchSettings) -> ExportResult:
        """The bundle of what was chosen, with the uniform widths beside it, judged on unseen data."""
        request = self.request
        fallbacks = Fallbacks()
        for group, bits in zip(self.groups, chosen.widths, strict=True):
            if bits != 8:
                fallbacks = fallbacks.with_group(group.component, group.layers, _PRECISIONS[bits])
        grids = self.stages.recipe.grids
        uniform = [
            variant_name(engine, _PRECISIONS[bits])
            for engine in Engine
            for bits in self.stored
            if refused_layer(engine, _PRECISIONS[bits], grids) is None
        ]
        exporting = ExportSettings(
            request.source,
            request.out,
            request.calibration,
            self.split.folder / JUDGING,
            (*(f"{engine.value}-fp32" for engine in Engine), *uniform),
            request.gate,
            request.keep_failing,
            request.recipe,
        )
        report = self.report(chosen, trials, settings)
        result = export_chosen(exporting, fallbacks, report, self.cache, self.progress)
        # the uniform widths are there to be compared with: that they fail is no failure of the search
        failures = tuple(f for f in result.failures if f"-{Precision.MIXED.value}:" in f)
        return replace(result, failures=failures)

    def report(self, chosen: Trial, trials: Sequence[Trial], settings: SearchSettings) -> SearchReport:
        """The search section of report.json."""
        from pocketvl.evaluate.report import SearchReport, SearchTrial

        return SearchReport(
            engine=self.request.engine,
            budget=settings.budget.kind.value,
            limit=settings.budget.limit,
            samples=len(self.dataset),
            sampler=settings.sampler.value,
            trials=tuple(
                SearchTrial(t.number, t.outcome.score, t.outcome.size_bytes, t.outcome.latency_ms)
                for t in trials
            ),
            chosen=chosen.number,
            bits={group.name: bits for group, bits in zip(self.groups, chosen.widths, strict=True)},
        )


def _bytes_of(layer: QuantizedLayer, engine: Engine) -> int:
    """Weights, scales and zero points as an engine stores them, bits side by side."""
    bits = layer.spec.weights.bits
    zeros = 0 if layer.zero_point is None else layer.zero_point.size * bits // 8
    scale = backend_of(engine).block_scale_bytes if layer.scale.ndim == 2 else _CHANNEL_BYTES
    return layer.weights.size * bits // 8 + zeros + layer.scale.size * scale


def _median_ms(component: str, engine: Engine, content: bytes) -> float:
    """Median of one graph's runs, on two threads."""
    with tempfile.TemporaryDirectory(prefix="pocketvl-search-") as folder:
        path = Path(folder) / f"graph.{engine.value}"
        path.write_bytes(content)
        tensors = backend_of(engine).graph_io(path)
    spec = GraphSpec(
        component, engine, Precision.MIXED, f"graphs/{component}", tensors.inputs, tensors.outputs
    )
    backend = open_backend(spec, content, _THREADS)
    feed = {t.name: np.zeros(t.shape, t.dtype) for t in tensors.inputs}
    times = []
    for _ in range(_WARMUP + _RUNS):
        begin = time.perf_counter()
        backend.run(feed)
        times.append(1e3 * (time.perf_counter() - begin))
    return float(np.median(times[_WARMUP:]))
