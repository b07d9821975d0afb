"""Fallback: move layers to a higher precision, the most sensitive first, until a variant passes the gate.

A step moves so many groups of layers as cause, each by itself, what has to go; where that was too few, the
next asks for twice as much. So a variant that misses by little moves a group, one that misses by much is not
tried a dozen times, and one that misses by chance does not chase it group by group. What would make the
files too large, as a token table in float, is passed over. Of a last step that moved more than it had to, a
part is taken. Where nothing passes, the steps that came nearest are kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.lower.base import graph_files
from pocketvl.network.precisions import PLANS, QUANTIZED, weight_bits
from pocketvl.pipelines.moves import Move, fewest_that_pass, next_moves, worst_first
from pocketvl.pipelines.stages.bundling import AssembleBundle, MakeGoldenPack
from pocketvl.pipelines.stages.lowering import GraphStage
from pocketvl.pipelines.stages.measuring import CompareVariant, RunReference, RunVariant, read_comparison
from pocketvl.pipelines.stages.quantizing import RankLayers, loss_by_layer, read_ranking
from pocketvl.pipelines.variants import Fallbacks, Variants, VariantStages
from pocketvl.stage import Event, plan, run
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.manifest import Precision, Status

if TYPE_CHECKING:
    from pocketvl.evaluate.report import Fallback, VariantReport
    from pocketvl.quantize.ranking import LayerSensitivity
    from pocketvl.select.gate import GateSettings
    from pocketvl.select.shortfall import Shortfall

StageProgress = Callable[[Event], None]
_MOST_AT_ONCE = 0.5
_TRIMS = 2
"""Trials by which the last step is made smaller."""


@dataclass(frozen=True)
class Trial:
    """The inputs of a variant's trial runs.

    Attributes:
        base: the bundle without graphs.
        data: a dataset folder.
        is_task_data: whether answers are measured on it, or parity alone.
        gate: what a variant may lose.
        most_growth: how many times as large its files may become.
        others: graphs that the export needs whatever becomes of these variants: another process may make them
            beside the trials.
        cache: where results of stages are kept.
        progress: called with every event of a stage.
    """

    base: MakeGoldenPack
    data: Path
    is_task_data: bool
    gate: GateSettings
    most_growth: float
    others: tuple[GraphStage, ...]
    cache: Path
    progress: StageProgress | None


@dataclass(frozen=True)
class FallbackResult:
    """The fallbacks by precision.

    Attributes:
        layers: those that were moved to a higher precision.
        steps: what each group of them bought.
        rankings: the stages that ranked the layers, where any was asked.
    """

    layers: Mapping[Precision, Fallbacks] = field(default_factory=dict)
    steps: Mapping[Precision, tuple[Fallback, ...]] = field(default_factory=dict)
    rankings: tuple[RankLayers, ...] = ()


def variant_run(
    base: MakeGoldenPack, data: Path, variant: str, graphs: Iterable[GraphStage], most: int | None = None
) -> RunVariant:
    """The stage that runs a variant on a dataset, or on a part of it, in a bundle of its own."""
    reference, bundle = RunReference(base.source, data), AssembleBundle(base, tuple(graphs))
    return RunVariant(reference, bundle, data, variant, most)


def fall_back_until_accepted(stages: VariantStages, variants: Variants, trial: Trial) -> FallbackResult:
    """Try every quantized precision of the variants, and move layers of those that fail to a higher one.

    The engines of one precision carry the same integers, so that what fails in one is moved in all.
    """
    fallbacks: dict[Precision, Fallbacks] = {}
    steps: dict[Precision, tuple[Fallback, ...]] = {}
    rankings: list[RankLayers] = []
    for precision in QUANTIZED:
        mine = {name: pair for name, pair in variants.items() if pair[1] is precision}
        if mine:
            found = _Precision(stages, mine, precision, trial).settle()
            fallbacks[precision], steps[precision] = found.fallbacks, found.steps
            rankings += found.rankings
    return FallbackResult(fallbacks, steps, tuple(rankings))


@dataclass(frozen=True)
class _Settled:
    fallbacks: Fallbacks
    steps: tuple[Fallback, ...]
    rankings: tuple[RankLayers, ...]


@dataclass(frozen=True)
class State:
    """The variants after some steps.

    Attributes:
        fallbacks: all layers that were moved.
        steps: which moved them.
        reports: the variants, measured.
        missed: by how much they miss the gate; None: they pass.
    """

    fallbacks: Fallbacks
    steps: tuple[Fallback, ...]
    reports: Mapping[str, VariantReport]
    missed: Shortfall | None

    def is_nearer_than(self, other: State) -> bool:
        """Whether less has to go for the gate to accept it."""
        return other.missed is not None and (self.missed is None or self.missed.share < other.missed.share)


@dataclass(frozen=True)
class _Precision:
    """The variants of one precision."""

    stages: VariantStages
    variants: Variants
    precision: Precision
    trial: Trial

    def settle(self) -> _Settled:
        state = best = self._measured(Fallbacks(), ())
        most_bytes = int(self.trial.most_growth * _bytes(state.reports))
        ranked, waiting, moved = set[str](), list[Move](), list[Move]()
        times = 1
        while state.missed is not None:
            far = self.stages.with_read(state.missed.components)
            blamed = far or set(self.stages.components)
            if not blamed <= ranked:
                ranked |= blamed
                waiting = self._worst_first(ranked)
            waiting = [move for move in waiting if move not in moved]
            share = min(times * state.missed.share, _MOST_AT_ONCE)
            moves = next_moves(waiting, far, share, most_bytes - _bytes(state.reports))
            if not moves:
                break
            after = self._moved(state, moves)
            if _bytes(after.reports) > most_bytes:
                break
            state = self._trimmed(state, moves, after) if after.missed is None else after
            if state.is_nearer_than(best):
                best = state
            moved += moves
            times *= 2
        return _Settled(best.fallbacks, best.steps, self._rankings(self.precision, ranked))

    def _moved(self, state: State, moves: Sequence[Move]) -> State:
        """What a step makes of the variants."""
        from pocketvl.evaluate.report import Fallback

        component, precision = moves[0].component, moves[0].precision
        layers = tuple(layer for move in moves for layer in move.layers)
        after = self._measured(state.fallbacks.with_group(component, layers, precision), state.steps)
        added = _bytes(after.reports) - _bytes(state.reports)
        step = Fallback(layers, component, precision, added, _bounds(state.reports), _bounds(after.reports))
        return replace(after, steps=(*state.steps, step))

    def _trimmed(self, before: State, moves: Sequence[Move], passed: State) -> State:
        """What passes of fewer of a step's moves, the worst groups of layers."""

        def attempt(count: int) -> State | None:
            after = self._moved(before, moves[:count])
            return after if after.missed is None else None

        return fewest_that_pass(len(moves), passed, attempt, _TRIMS)

    def _measured(self, fallbacks: Fallbacks, steps: tuple[Fallback, ...]) -> State:
        from pocketvl.select.shortfall import shortfall

        reports = self._reports(fallbacks)
        return State(fallbacks, steps, reports, shortfall(reports.values(), self.trial.gate))

    def _rankings(self, precision: Precision, components: Collection[str]) -> tuple[RankLayers, ...]:
        return tuple(self.stages.ranking(name, precision) for name in sorted(components))

    def _worst_first(self, components: Collection[str]) -> list[Move]:
        """Groups of layers and where they may go, the worst first; at the end all of them to float.

        One in static int8 goes to dynamic int8 where that saves a good part of what it loses: its weights
        stay as small, but what comes out of it is on no grid any more.
        """
        fallback = PLANS[self.precision].fallback
        higher = fallback if fallback in QUANTIZED else None
        kept = (
            {name: loss_by_layer(groups) for name, groups in self._ranked(higher, components).items()}
            if higher
            else {}
        )
        ranked = [
            (name, group)
            for name, groups in self._ranked(self.precision, components).items()
            for group in groups
        ]
        ways = list[tuple[Move, Move | None]]()
        for name, group in ranked:
            float_bytes = self._bytes_added(name, group, Precision.FP32)
            to_float = Move(name, group.layers, Precision.FP32, group.loss, float_bytes)
            to_higher = None
            if higher is not None:
                remaining = sum(kept.get(name, {}).get(layer, math.inf) for layer in group.layers)
                added = self._bytes_added(name, group, higher)
                to_higher = Move(name, group.layers, higher, group.loss - remaining, added)
            ways.append((to_float, to_higher))
        return worst_first(ways)

    def _bytes_added(self, component: str, group: LayerSensitivity, precision: Precision) -> int:
        """Roughly, by which a graph grows where a group of layers goes to a higher precision."""
        parameters = self.stages.parameter_counts[component]
        weights = sum(parameters.get(f"{layer}.weight", 0) for layer in group.layers)
        return weights * (weight_bits(precision) - group.bits) // 8

    def _ranked(
        self, precision: Precision, components: Collection[str]
    ) -> dict[str, tuple[LayerSensitivity, ...]]:
        """The sensitivity of each group of layers in a precision, by component."""
        rankings = self._rankings(precision, components)
        results = run(plan(rankings), self.trial.cache, self.trial.progress)
        return {ranking.component: read_ranking(results[ranking].folder) for ranking in rankings}

    def _reports(self, fallbacks: Fallbacks) -> dict[str, VariantReport]:
        """The variants, measured."""
        from pocketvl.evaluate.report import VariantReport

        trial = self.trial
        reference = RunReference(self.stages.source, trial.data)
        graphs = {
            name: self.stages.graphs(engine, self.precision, fallbacks)
            for name, (engine, _) in self.variants.items()
        }
        compared = {
            name: CompareVariant(
                reference, variant_run(trial.base, trial.data, name, each), trial.data, trial.is_task_data
            )
            for name, each in graphs.items()
        }
        lowered = [graph for each in graphs.values() for graph in each]
        # First what is lowered, so that torch runs as the reference while another process lowers.
        results = run(plan([*lowered, *trial.others, *compared.values()]), trial.cache, trial.progress)
        reports = {}
        for name, stage in compared.items():
            found = read_comparison(results[stage].folder)
            reports[name] = VariantReport(
                engine=self.variants[name][0],
                precision=self.precision,
                status=Status.EXPERIMENTAL,
                size_bytes=sum(
                    file.stat().st_size
                    for graph in graphs[name]
                    for file in graph_files(results[graph].folder / graph.file)
                ),
                metrics=found.metrics,
                parity=found.parity,
            )
        return reports


def _bytes(reports: Mapping[str, VariantReport]) -> int:
    """Of the largest variant."""
    return max(report.size_bytes for report in reports.values())


def _bounds(reports: Mapping[str, VariantReport]) -> dict[Metric, float]:
    """By metric, the most that any of the variants may have lost, with 95 % confidence."""
    bounds: dict[Metric, float] = {}
    for report in reports.values():
        for metric, measured in report.metrics.items():
            if measured.drop_ci95 is not None:
                bounds[metric] = max(bounds.get(metric, -100.0), measured.drop_ci95[1])
    return bounds
