"""Checkpoints that become smaller: each stage makes a checkpoint of another."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from pocketvl.compress.costs import Cost, positions
from pocketvl.compress.settings import (
    BlockScore,
    Grain,
    LearningSettings,
    LossWeights,
    Measure,
    Scope,
    Score,
    Units,
)
from pocketvl.errors import RecipeError
from pocketvl.pipelines.stages.answering import QuestionData, read_questions
from pocketvl.pipelines.stages.costing import costs_of, tower_example
from pocketvl.pipelines.stages.learning import PairData, read_pairs
from pocketvl.pipelines.stages.towers import TORCH, example_inputs, this_machine
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Role

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.compress.structured import Group
    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.families.tower_shape import TowerShape

Feed = np.ndarray | tuple[np.ndarray, ...]
PRUNED_FILE = "pruned.json"
_SAMPLES = 256
_BATCH = 32
_GATED_SAMPLES, _GATED_BATCH = 512, 8


@dataclass(frozen=True)
class _Changing(Stage):
    """Of a stage that changes a checkpoint's shapes or weights, looking at some data."""

    tools: ClassVar[tuple[str, ...]] = (*TORCH, "scipy")

    source: Path | Stage
    data: PairData | QuestionData

    def environment(self) -> Mapping[str, str]:
        return this_machine()

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.families import open_checkpoint

        checkpoint = open_checkpoint(source["source"])
        before = costs_of(checkpoint)
        done = self.change(checkpoint, source)
        told = {
            "done": done,
            "before": {name: asdict(cost) for name, cost in before.items()},
            "after": {name: asdict(cost) for name, cost in costs_of(checkpoint).items()},
        }
        checkpoint.save(out)
        (out / PRUNED_FILE).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        """Changes the checkpoint in place, and says what was done."""
        raise NotImplementedError


@dataclass(frozen=True)
class PruneUnits(_Changing):
    """Neurons and heads that matter least are gone; what they gave on average goes on as a constant.

    Attributes:
        start: the checkpoint before the first round.
        units: neurons, heads, or both.
        towers: which.
        score: magnitude, taylor or gate.
        scope: with a ratio: in each layer, or among all of them.
        ratio: part of the original units that goes; or
        measure: of what costs
        limit: the most there may be
        way: once this part of the way there, from what `start` costs, has been gone.
    """

    version: ClassVar[int] = 2

    start: Path | Stage
    units: tuple[Units, ...]
    towers: tuple[Role, ...]
    score: Score
    scope: Scope
    ratio: float | None = None
    measure: Measure | None = None
    limit: float | None = None
    way: float = 1.0

    @property
    def title(self) -> str:
        return f"prune {' and '.join(self.units)}"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from pocketvl.compress.structured import groups_of, keep_, keep_by_ratio, keep_to_target
        from pocketvl.families import open_checkpoint
        from pocketvl.families.layers.blocks import feed_forwards

        if self.score is Score.TAYLOR:
            _gradients(checkpoint, source)
        groups: list[Group] = []
        original = checkpoint.original()
        for role in self.towers:
            tower, example = checkpoint.tower(role), tower_example(checkpoint, role)
            if len(feed_forwards(tower)) != len(feed_forwards(_tower_part(original, checkpoint, role))):
                raise RecipeError(f"{role.value} has factorised linears: prune before low-rank")
            rows = positions(tower, example, feed_forwards(tower)[0].up)
            score = Score.MAGNITUDE if self.score is Score.GATE else self.score
            groups += groups_of(tower, original, self.units, score, rows)
        if self.score is Score.GATE:
            groups = _gated(checkpoint, source, groups)
        if self.measure is None or self.limit is None:
            assert self.ratio is not None
            kept = keep_by_ratio(groups, self.ratio, self.scope)
        else:
            first = sum((cost for cost in costs_of(open_checkpoint(source["start"])).values()), Cost())
            most = first.of(self.measure) + self.way * (self.limit - first.of(self.measure))
            now = sum((cost for cost in costs_of(checkpoint).values()), Cost())
            keep_to_target(
                groups, now, self.measure, self.limit
            )  # unreachable, it says so in the first round
            kept = keep_to_target(groups, now, self.measure, most)
        checkpoint.model.zero_grad(set_to_none=True)
        means = {
            name: mean for role in self.towers for name, mean in _means(checkpoint, role, source).items()
        }
        for group, places in zip(groups, kept, strict=True):
            keep_(checkpoint.model, group, places, means)
        return {group.name: [len(places), group.original] for group, places in zip(groups, kept, strict=True)}


@dataclass(frozen=True)
class PruneFilters(_Changing):
    """Filters of the image tower that matter least are gone; what it gives stays as long as it was.

    Attributes:
        score: magnitude or taylor.
        ratio: part of the original filters that goes, of every group of filters that can only go together.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = (*_Changing.tools, "torch-pruning")

    score: Score
    ratio: float

    @property
    def title(self) -> str:
        return f"prune {self.ratio:.0%} of filters"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from torch import nn

        from pocketvl.compress.filters import filter_groups, keep_filters_
        from pocketvl.quantize.structure import final_linear

        role = Role.IMAGE_ENCODER
        tower = checkpoint.tower(role)
        (example,) = example_inputs(checkpoint.contract.components[role])
        if sum(isinstance(each, nn.Conv2d) for each in tower.modules()) < 2:
            raise RecipeError(
                f"the {role.value} has no convolutions but its patch embedding, so there are no filters to "
                'prune; prune its neurons and heads instead (kind = "prune")'
            )
        if self.score is Score.TAYLOR:
            _gradients(checkpoint, source)
        projection = final_linear(tower, example)
        fixed = [] if projection is None else [projection]
        groups = filter_groups(tower, example, fixed, self.score)
        checkpoint.model.zero_grad(set_to_none=True)
        original = checkpoint.original()
        counts = {group.root: len(original.get_parameter(f"{group.root}.weight")) for group in groups}
        kept = {group.root: group.keep(self.ratio, counts[group.root]) for group in groups}
        keep_filters_(tower, example, kept, fixed)
        return {root: [len(places), counts[root]] for root, places in kept.items()}


@dataclass(frozen=True)
class SparsifyWeights(_Changing):
    """Single weights of all layers' linears are 0.

    Attributes:
        towers: which.
        score: magnitude or taylor.
        scope: in each layer, or among all of a tower.
        sparsity: part of the weights; None: two of every four.
    """

    version: ClassVar[int] = 1

    towers: tuple[Role, ...]
    score: Score
    scope: Scope
    sparsity: float | None

    @property
    def title(self) -> str:
        return (
            "prune two of four weights" if self.sparsity is None else f"prune {self.sparsity:.0%} of weights"
        )

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from pocketvl.compress.sparsity import hold_masks_, release_masks_, sparsity_masks, two_four_masks

        if self.score is Score.TAYLOR:
            _gradients(checkpoint, source)
        done: dict[str, object] = {}
        for role in self.towers:
            names = tuple(_layer_linears(checkpoint, role))
            if self.sparsity is None:
                masks = two_four_masks(checkpoint.model, names, self.score)
            else:
                masks = sparsity_masks(checkpoint.model, names, self.sparsity, self.scope, self.score)
            hold_masks_(checkpoint.model, masks)
            release_masks_(checkpoint.model, masks)
            done.update({name: float(1 - mask.float().mean()) for name, mask in masks.items()})
        checkpoint.model.zero_grad(set_to_none=True)
        return done


@dataclass(frozen=True)
class FreshStudent(_Changing):
    """A model of other shapes, with weights that know nothing yet.

    Attributes:
        shapes: of every tower.
        seed: of the weights.
    """

    version: ClassVar[int] = 1

    shapes: tuple[tuple[Role, TowerShape], ...]
    seed: int

    @property
    def title(self) -> str:
        return "begin with a fresh student"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        checkpoint.reinitialize_(dict(self.shapes), self.seed)
        return {role.value: asdict(shape) for role, shape in self.shapes}


@dataclass(frozen=True)
class DropLayers(_Changing):
    """Whole layers are gone, those that change their hidden states least.

    Attributes:
        keep: how many layers stay, by tower; towers that are not named keep theirs.
    """

    version: ClassVar[int] = 2

    keep: tuple[tuple[Role, int], ...]

    @property
    def title(self) -> str:
        return "drop layers"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from torch import nn

        from pocketvl.compress.depth import keep_layers_, layer_influence

        done: dict[str, object] = {}
        for role, count in self.keep:
            stack = checkpoint.stack(role)
            layers = checkpoint.model.get_submodule(stack.name)
            assert isinstance(layers, nn.ModuleList)
            if count > len(layers):
                raise RecipeError(f"{stack.name} has {len(layers)} layers; {count} of them cannot stay")
            feeds = (_tensors(feed) for feed in feeds_of(checkpoint, source, role))
            influence = layer_influence(checkpoint.tower(role), layers, feeds)
            best = influence.argsort(descending=True, stable=True)[:count]
            kept = sorted(best.tolist())
            keep_layers_(checkpoint.model, stack.name, kept)
            done[stack.name] = {"influence": influence.tolist(), "kept": kept}
            section, key = stack.config
            if not section:
                checkpoint.config[key] = count
                continue
            for part in (section, f"{section}_dict"):  # of old checkpoints; it would overrule the other
                if part == section or checkpoint.config.get(part):
                    checkpoint.config.setdefault(part, {})[key] = count
        return done


@dataclass(frozen=True)
class Factorise(_Changing):
    """Layers' linears have become two of a lower rank, where that saves weights.

    Attributes:
        towers: which.
        energy: part of the squared singular values that is kept; or
        ratio: part of each linear's weights that goes.
        whitened: by the inputs that the data gives.
    """

    version: ClassVar[int] = 2

    towers: tuple[Role, ...]
    energy: float | None
    ratio: float | None
    whitened: bool

    @property
    def title(self) -> str:
        return "factorise linears"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from pocketvl.compress.low_rank import factorise, factorise_
        from pocketvl.compress.shrink import linear

        done: dict[str, object] = {}
        for role in self.towers:
            names = list(_layer_linears(checkpoint, role))
            moments = _second_moments(checkpoint, role, source) if self.whitened else {}
            for place, name in enumerate(names):
                child = linear(checkpoint.model, name)
                factors = factorise(child.weight, moments.get(name))
                if self.energy is not None:
                    rank = factors.rank_for_energy(self.energy)
                else:
                    assert self.ratio is not None
                    weights = child.in_features * child.out_features
                    rank = max(1, int((1 - self.ratio) * weights / (child.in_features + child.out_features)))
                full = min(child.in_features, child.out_features)
                done[name] = [rank if factorise_(checkpoint.model, name, factors, rank) else full, full]
                source.progress(place + 1, len(names), "factorising")
        return done


@dataclass(frozen=True)
class PruneCrossModal(_Changing):
    """What text and picture read of each other, where that carries little, is gone.

    Attributes:
        ratio: part of all cross-modal blocks that is gone then, those counted that were before.
        score: what makes a block matter.
        grain: head by head, or all heads of a layer at once.
    """

    version: ClassVar[int] = 1

    ratio: float
    score: BlockScore
    grain: Grain

    @property
    def title(self) -> str:
        return "prune cross-modal attention"

    def change(self, checkpoint: Checkpoint, source: Inputs) -> dict[str, object]:
        from pocketvl.compress.cross_modal import block_scores, least_blocks
        from pocketvl.families.layers.split_attention import removed_blocks, split_attentions_

        segments = checkpoint.stack(Role.FUSION).segments
        assert segments is not None
        feeds = (_tensors(feed) for feed in _question_feeds(checkpoint, source, whole=True))
        scores = block_scores(checkpoint.tower(Role.FUSION), feeds, segments, self.score)
        split_attentions_(checkpoint.model, segments, least_blocks(scores, self.ratio, self.grain))
        told: dict[str, dict[str, list[float]]] = {}
        for block, value in scores.items():  # head after head
            pairs = told.setdefault(block.attention, {})
            pairs.setdefault(f"{block.queries}_{block.keys}", []).append(value)
        gone = removed_blocks(checkpoint.model)
        crossing = sum(block.is_cross_modal for block in scores)
        return {"removed": [asdict(block) for block in gone], "of": crossing, "scores": told}


def _tower_part(original: nn.Module, checkpoint: Checkpoint, role: Role) -> nn.Module:
    """The layers of a tower in the model before anything was changed."""
    return original.get_submodule(checkpoint.stack(role).name)


def _layer_linears(checkpoint: Checkpoint, role: Role) -> Iterator[str]:
    """The whole linears inside a tower's layers; projections and tables are left as they are."""
    from torch import nn

    from pocketvl.families.layers.compression import shape_of

    prefix = checkpoint.stack(role).name
    for name, child in checkpoint.model.named_modules():
        if name.startswith(f"{prefix}.") and isinstance(child, nn.Linear):
            pair = shape_of(checkpoint.model.get_submodule(name.rpartition(".")[0]))
            if pair is None:  # else it is one of two that stand for one
                yield name


def feeds_of(checkpoint: Checkpoint, source: Inputs, role: Role) -> Iterator[Feed]:
    """Some samples of a tower, spread over the data; texts one by one, without what only fills them up."""
    if role is Role.FUSION:
        yield from _question_feeds(checkpoint, source)
        return
    data = read_pairs(source["data"])
    rows = data.images if role is Role.IMAGE_ENCODER else data.ids
    places = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLES)).round().astype(int)
    if role is Role.TEXT_ENCODER:
        for place in places:
            said = np.flatnonzero(rows[place] != checkpoint.tokenizer.pad_id)
            # where the last token of a text is also the one that fills up, the first of them is its last
            yield np.array(rows[place : place + 1, : 2 + int(said.max(initial=0))])
        return
    for start in range(0, len(places), _BATCH):
        yield np.array(rows[places[start : start + _BATCH]])


def _question_feeds(checkpoint: Checkpoint, source: Inputs, whole: bool = False) -> Iterator[Feed]:
    """Some questions with their pictures, one by one, and without what only fills them up.

    Args:
        checkpoint: what they are shown to.
        source: of the stage.
        whole: with what fills them up, too; as it has to be where attention is split.
    """
    from pocketvl.families.layers.split_attention import SplitAttention

    data = read_questions(source["data"])
    whole = whole or any(isinstance(child, SplitAttention) for child in checkpoint.model.modules())
    for place in np.linspace(0, len(data.ids) - 1, min(len(data.ids), _SAMPLES)).round().astype(int):
        ids = data.ids[place : place + 1]
        said = ids.shape[1] if whole else int((ids != checkpoint.tokenizer.pad_id).sum())
        yield np.array(data.images[data.pictures[place]][None]), ids[:, :said]


def _tensors(feed: Feed) -> tuple[torch.Tensor, ...]:
    import torch

    return tuple(torch.from_numpy(np.array(each)) for each in (feed if isinstance(feed, tuple) else (feed,)))


def _means(checkpoint: Checkpoint, role: Role, source: Inputs) -> dict[str, torch.Tensor]:
    """What goes into each linear on average, float64 [inputs]."""
    import torch

    from pocketvl.observe.calibrate import calibrate

    seen = calibrate(checkpoint.tower(role), feeds_of(checkpoint, source, role))
    return {name: torch.from_numpy(layer.input_mean) for name, layer in seen.layers.items()}


def _second_moments(checkpoint: Checkpoint, role: Role, source: Inputs) -> dict[str, np.ndarray]:
    """The mean of x x^T of what goes into each linear, float64 [inputs, inputs]."""
    from pocketvl.observe.calibrate import calibrate
    from pocketvl.observe.settings import CalibrationSettings

    seen = calibrate(
        checkpoint.tower(role), feeds_of(checkpoint, source, role), CalibrationSettings(second_moments=True)
    )
    return {
        name: layer.second_moment for name, layer in seen.layers.items() if layer.second_moment is not None
    }


def _gated(checkpoint: Checkpoint, source: Inputs, groups: Sequence[Group]) -> list[Group]:
    """The groups, scored by gates."""
    import torch

    from pocketvl.compress.structured import gate_gradients

    sums = [torch.zeros_like(group.scores) for group in groups]

    def add() -> None:
        for whole, group in zip(sums, groups, strict=True):
            whole += gate_gradients(checkpoint.model, group).square()

    _gradients(checkpoint, source, _GATED_SAMPLES, _GATED_BATCH, add)
    return [replace(group, scores=whole) for group, whole in zip(groups, sums, strict=True)]


def _gradients(
    checkpoint: Checkpoint,
    source: Inputs,
    samples: int = _SAMPLES,
    batch: int = _BATCH,
    each: Callable[[], None] | None = None,
) -> None:
    """Leaves in the parameters the gradient of the labels' loss on some batches."""
    from pocketvl.compress.answering import answer_gradients_
    from pocketvl.compress.distil import label_gradients_

    if checkpoint.roles == (Role.FUSION,):
        settings = LearningSettings(joint_steps=samples // batch, batch_size=batch, losses=_ANSWERS)
        answer_gradients_(checkpoint, read_questions(source["data"]), settings, each)
        return
    settings = LearningSettings(joint_steps=samples // batch, batch_size=batch, losses=_LABELS)
    label_gradients_(checkpoint, read_pairs(source["data"]), settings, each)


_LABELS = LossWeights(response=0.0, embedding=0.0, contrast=1.0)
_ANSWERS = LossWeights(response=0.0, embedding=0.0, answer=1.0)
