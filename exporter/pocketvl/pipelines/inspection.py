"""`pocketvl inspect`: components, ports and costs of a checkpoint, and the commands that apply to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.compress.costs import Cost, costs_of
from pocketvl.families import open_checkpoint
from pocketvl.families.base import Component
from pocketvl.network.heads import Head, MatchHead
from pocketvl.network.ports import Port
from pocketvl.pipelines.variants import DEFAULT_VARIANTS
from pocketvl.recipes.compress_recipe import METHODS

if TYPE_CHECKING:
    from pocketvl.families.checkpoint import Checkpoint


@dataclass(frozen=True)
class ComponentInspection:
    """One component.

    Attributes:
        inputs: its ports; a graph takes a batch of 1.
        outputs: what it gives.
        layers: of its transformer stacks, by the name of the ModuleList.
        cost: parameters, multiply-adds of one input, bytes in int8.
        methods: compression methods by their kinds in recipes: why nothing of it can be changed so, in a
            clause, or None where it can.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    layers: Mapping[str, int]
    cost: Cost
    methods: Mapping[str, str | None]


@dataclass(frozen=True)
class Inspection:
    """A checkpoint's inspection.

    Attributes:
        name: of its folder.
        family: "clip".
        dtype: in which most of its weights are stored.
        head: how its components answer.
        reranker: a second head, which reranks; None: there is none.
        components: by name.
        variants: that `pocketvl export` makes of it by default.
        notes: what the user should know, one sentence each.
    """

    name: str
    family: str
    dtype: str
    head: Head
    reranker: MatchHead | None
    components: Mapping[str, ComponentInspection]
    variants: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def total(self) -> Cost:
        """All components together."""
        return sum((each.cost for each in self.components.values()), Cost())

    def to_json(self) -> dict[str, object]:
        """As plain values."""
        return {**asdict(self), "total": asdict(self.total)}


def inspect(source: Path) -> Inspection:
    """Open a checkpoint and say what it is.

    Raises:
        SourceError: it cannot be opened.
    """
    checkpoint = open_checkpoint(source)
    costs = costs_of(checkpoint)
    return Inspection(
        checkpoint.contract.name,
        checkpoint.contract.family,
        str(checkpoint.dtype).removeprefix("torch."),
        checkpoint.contract.head,
        checkpoint.contract.reranker,
        {name: _component(checkpoint, each, costs[name]) for name, each in checkpoint.components.items()},
        DEFAULT_VARIANTS,
        checkpoint.contract.notes,
    )


def _component(checkpoint: Checkpoint, component: Component, cost: Cost) -> ComponentInspection:
    return ComponentInspection(
        component.inputs,
        component.outputs,
        {stack.name: checkpoint.layer_count(stack) for stack in component.stacks},
        cost,
        {kind: method.refusal(checkpoint, component.name) for kind, method in METHODS.items()},
    )
