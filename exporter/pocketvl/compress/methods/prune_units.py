"""Structured pruning of transformer components: neurons of feed-forward layers, heads of attentions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from pocketvl.compress.settings import Measure, Scope, Score, Units
from pocketvl.errors import RecipeError
from pocketvl.settings import Positive, Share
from pocketvl.train.method import ComponentwiseMethod, MethodInputs, Trait

if TYPE_CHECKING:
    from pocketvl.compress.structured import Group
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.train.samples import TrainingSamples

_GATE_SAMPLES, _GATE_BATCH = 512, 8


@dataclass(frozen=True)
class PruneUnits(ComponentwiseMethod):
    """Removes the neurons and heads that matter least; their mean output goes into the next layer's bias.

    One of `ratio`, `parameters`, `macs` and `int8_bytes` says how far.

    Attributes:
        units: neurons, heads, or both.
        ratio: part of the original units that goes.
        parameters: the most that all components together may have.
        macs: the most multiply-adds that one run of every component may take.
        int8_bytes: the most that all components may take with 8-bit weights, graphs not counted.
        score: magnitude, taylor or gate.
        scope: with a ratio: so much of each layer, or of all of them together.
    """

    kind: ClassVar[str] = "prune"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.FACTORIZED: "low-rank comes before prune: factorised linears have no neurons; prune first"
    }

    units: tuple[Units, ...] = (Units.NEURONS,)
    ratio: Share | None = None
    parameters: Positive | None = None
    macs: Positive | None = None
    int8_bytes: Positive | None = None
    score: Score = Score.MAGNITUDE
    scope: Scope = Scope.LAYER

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [v for v in (self.ratio, self.parameters, self.macs, self.int8_bytes) if v is not None]
        if len(given) != 1:
            raise RecipeError("say one of ratio, parameters, macs and int8_bytes")
        if not self.units or len(set(self.units)) < len(self.units):
            raise RecipeError("units: neurons, heads, or both, each once")

    @property
    def needs_labels(self) -> bool:
        return self.score is Score.TAYLOR

    @property
    def is_progressive(self) -> bool:
        return True

    @property
    def target(self) -> tuple[Measure, float] | None:
        """The cost target of the model, where no ratio is given."""
        for measure in Measure:
            limit = getattr(self, measure.value)
            if limit is not None:
                return measure, float(limit)
        return None

    def title(self, fraction: float) -> str:
        return f"prune {' and '.join(self.units)}"

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.compress.gradients import input_means, loss_gradients_
        from pocketvl.compress.structured import prune_units_

        names = self.changed(checkpoint)
        if self.score is Score.TAYLOR:
            loss_gradients_(checkpoint, inputs.data)
        groups = self._groups(checkpoint, names)
        if self.score is Score.GATE:
            groups = _gated(checkpoint, inputs.data, groups)
        keep = self._keep(checkpoint, groups, inputs)
        checkpoint.model.zero_grad(set_to_none=True)
        means = {
            linear: mean
            for name in names
            for linear, mean in input_means(checkpoint, inputs.data, name).items()
        }
        for group, indices in zip(groups, keep, strict=True):
            prune_units_(checkpoint.model, group, indices, means)
        return {g.name: [len(indices), g.original] for g, indices in zip(groups, keep, strict=True)}

    def _groups(self, checkpoint: Checkpoint, names: Sequence[str]) -> list[Group]:
        """The units of all layers, scored by their weights."""
        from pocketvl.compress.costs import positions
        from pocketvl.compress.structured import groups_of
        from pocketvl.families.base import example_inputs
        from pocketvl.families.layers.blocks import feed_forwards

        groups: list[Group] = []
        original = checkpoint.original()
        score = Score.MAGNITUDE if self.score is Score.GATE else self.score
        for name in names:
            checkpoint.stack(name)  # refuses a component that is none
            component = checkpoint.component(name)
            parts = {part for part, _ in component.module.named_modules()}
            found = [each.up for each in feed_forwards(component.module)]
            if found != [each.up for each in feed_forwards(original) if each.up in parts]:
                raise RecipeError(f"{name} has factorised linears: prune before low-rank")
            rows = positions(component.module, example_inputs(component))
            groups += groups_of(component.module, original, self.units, score, rows)
        return groups

    def _keep(self, checkpoint: Checkpoint, groups: list[Group], inputs: MethodInputs) -> list[list[int]]:
        """The indices of the units to keep, for each group."""
        from pocketvl.compress.costs import total_cost
        from pocketvl.compress.structured import select_by_ratio, select_to_target
        from pocketvl.families import open_checkpoint

        if self.ratio is not None:
            return select_by_ratio(groups, inputs.fraction * self.ratio, self.scope)
        assert self.target is not None
        measure, limit = self.target
        first, now = total_cost(open_checkpoint(inputs.start)).of(measure), total_cost(checkpoint)
        select_to_target(groups, now, measure, limit)  # so that the first round says what cannot be reached
        return select_to_target(groups, now, measure, first + inputs.fraction * (limit - first))


def _gated(checkpoint: Checkpoint, data: TrainingSamples, groups: Sequence[Group]) -> list[Group]:
    """The groups, scored by gates."""
    import torch

    from pocketvl.compress.gradients import loss_gradients_
    from pocketvl.compress.structured import gate_gradients

    sums = [torch.zeros_like(group.scores) for group in groups]

    def add() -> None:
        for total, group in zip(sums, groups, strict=True):
            total += gate_gradients(checkpoint.model, group).square()

    loss_gradients_(checkpoint, data, _GATE_SAMPLES, _GATE_BATCH, add)
    return [replace(group, scores=total) for group, total in zip(groups, sums, strict=True)]
