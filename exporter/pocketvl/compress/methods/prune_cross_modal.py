"""Pruning cross-modal attention: from text to image and from image to text, head by head.

In a single-stream fusion model the attention over the whole sequence is made of blocks, one for each ordered
pair (segment of queries, segment of keys). A block of a head that carries little goes: its scores are never
computed, and the softmax runs over the keys that are left. The attention is split for that, not masked, so
that multiply-adds are saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from pocketvl.compress.settings import BlockScore, Grain
from pocketvl.errors import DataError, RecipeError
from pocketvl.train.method import CompressionMethod, MethodInputs, Trait

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint
    from pocketvl.families.layers.blocks import Attention
    from pocketvl.families.layers.segments import Segments
    from pocketvl.families.layers.split_attention import Block

_MASKED = -1.0
"""Additive masks are 0 where a token counts, and far below this where it does not."""


@dataclass(frozen=True)
class PruneCrossModal(CompressionMethod):
    """Removes the attention between text and image where it carries little.

    Attributes:
        ratio: part of the cross-modal blocks that goes, those counted that were there originally.
        score: value, sum or position.
        grain: head by head, or all heads of a layer at once.
        component: which is pruned.
    """

    kind: ClassVar[str] = "prune-cross-modal"
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.FACTORIZED: (
            "low-rank comes before prune-cross-modal, which measures whole linears: factorise last"
        )
    }

    ratio: Annotated[float, Field(gt=0, le=1)]
    score: BlockScore = BlockScore.VALUE
    grain: Grain = Grain.HEAD
    component: str = "fusion"

    @property
    def is_progressive(self) -> bool:
        return True

    @classmethod
    def obstacle(cls, checkpoint: Checkpoint, component: str) -> str | None:
        if any(stack.segments is not None for stack in checkpoint.component(component).stacks):
            return None
        return "has no text and image in one sequence"

    def title(self, fraction: float) -> str:
        return "prune cross-modal attention"

    def check(self, components: Sequence[str]) -> None:
        if self.component not in components:
            raise RecipeError(
                "prune-cross-modal is for models in which text and image meet in attention, as in ViLT; "
                f"the components of this one: {', '.join(components)}"
            )

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.families.layers.split_attention import removed_blocks, split_attentions_
        from pocketvl.observe.feeds import feeds_of, tensors_of

        segments = checkpoint.stack(self.component).segments
        if segments is None:
            raise RecipeError(f"the {self.component} has no text and image in one sequence")
        feeds = feeds_of(checkpoint, inputs.data, self.component, padded=True)
        module = checkpoint.component(self.component).module
        scores = block_scores(module, map(tensors_of, feeds), segments, self.score)
        going = least_blocks(scores, inputs.fraction * self.ratio, self.grain)
        split_attentions_(checkpoint.model, segments, going)
        listed: dict[str, dict[str, list[float]]] = {}
        for block, value in scores.items():  # head after head
            pairs = listed.setdefault(block.attention, {})
            pairs.setdefault(f"{block.queries}_{block.keys}", []).append(value)
        removed = [asdict(block) for block in removed_blocks(checkpoint.model)]
        return {"removed": removed, "of": sum(b.is_cross_modal for b in scores), "scores": listed}


def block_scores(
    module: nn.Module,
    feeds: Iterable[tuple[torch.Tensor, ...]],
    segments: Segments,
    score: BlockScore = BlockScore.VALUE,
) -> dict[Block, float]:
    """Measure every block of every attention, those of a segment with itself too, on data.

    Args:
        module: in eval mode.
        feeds: inputs of the module.
        segments: of its sequence.
        score: what makes a block matter.

    Returns:
        The mean over samples, by block; 0 where a block is gone already.

    Raises:
        DataError: no samples, or no attention over such a sequence ran.
    """
    import torch

    from pocketvl.families.layers.blocks import attentions

    watches = [_Watch(module, attention, segments, score) for attention in attentions(module)]
    samples = 0
    try:
        with torch.no_grad():
            for feed in feeds:
                module(*feed)
                samples += len(feed[0])
    finally:
        for watch in watches:
            watch.handle.remove()
    if samples == 0:
        raise DataError("no samples to measure cross-modal attention on")
    found = {block: value / samples for watch in watches for block, value in watch.sums().items()}
    if not found:
        raise DataError(
            f"no attention over {segments.total} tokens ran: are the segments those of the sequence?"
        )
    return found


def least_blocks(scores: Mapping[Block, float], ratio: float, grain: Grain = Grain.HEAD) -> tuple[Block, ...]:
    """The cross-modal blocks that go when a part of them goes, those with the lowest scores.

    Args:
        scores: of all blocks; those of a segment with itself always stay.
        ratio: part of the cross-modal blocks, 0 to 1.
        grain: head by head, or all heads of a layer at once, by the sum of their scores.

    Raises:
        RecipeError: such a ratio there is not.
    """
    if not 0 <= ratio <= 1:
        raise RecipeError(f"ratio must be 0 to 1, not {ratio}")
    groups: dict[tuple[object, ...], list[Block]] = {}
    for block in scores:
        if block.is_cross_modal:
            key: tuple[object, ...] = (block.attention, block.queries, block.keys)
            groups.setdefault(key if grain is Grain.LAYER else (*key, block.head), []).append(block)
    ranked = sorted(groups.values(), key=lambda group: sum(scores[block] for block in group))
    return tuple(block for group in ranked[: round(ratio * len(ranked))] for block in group)


class _Watch:
    """Adds up the scores of one attention's blocks while the module runs."""

    def __init__(
        self, module: nn.Module, attention: Attention, segments: Segments, score: BlockScore
    ) -> None:
        from pocketvl.compress.shrink import linear

        self._attention, self._segments, self._score = attention, segments, score
        self._parts = [linear(module, name) for name in attention.inward]
        self._output = linear(module, attention.output).weight.detach()
        self._sums: dict[tuple[str, str], torch.Tensor] = {}
        self.handle = module.get_submodule(attention.name).register_forward_pre_hook(
            self._look, with_kwargs=True
        )

    def sums(self) -> dict[Block, float]:
        """By block, over all samples so far."""
        from pocketvl.families.layers.split_attention import Block

        return {
            Block(self._attention.name, *pair, head): float(value)
            for pair, values in self._sums.items()
            for head, value in enumerate(values)
        }

    def _look(self, owner: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        import torch

        from pocketvl.families.layers.split_attention import SplitAttention

        hidden = args[0] if args else kwargs["hidden_states"]
        mask = args[1] if len(args) > 1 else kwargs.get("attention_mask")
        if hidden.shape[1] != self._segments.total:
            return
        size = self._attention.head_size
        query, key, value = (
            part(hidden).unflatten(-1, (-1, size)).transpose(1, 2) for part in self._parts
        )  # [B, heads, T, size]
        scores = query @ key.transpose(-1, -2) / math.sqrt(size)
        counts = torch.ones(hidden.shape[:2], dtype=torch.bool)  # tokens that are not padding, [B, T]
        slices = self._segments.slices()
        for gone in owner.removed if isinstance(owner, SplitAttention) else ():
            scores[:, gone.head, slices[gone.queries], slices[gone.keys]] = -torch.inf
        if mask is not None:
            scores = scores + mask
            counts = (mask[:, 0, 0] > _MASKED).expand(len(hidden), -1)
        weights = scores.softmax(-1).abs() * counts[:, None, :, None]  # [B, heads, T, T]
        if self._score is BlockScore.VALUE:
            carried = torch.stack(
                [
                    (each @ self._output[:, head * size : (head + 1) * size].T).norm(dim=-1)
                    for head, each in enumerate(value.unbind(1))
                ],
                dim=1,
            )  # [B, heads, T]
            weights = weights * carried[:, :, None, :]
        tokens = counts.sum(1).clamp(min=1)
        for queries, keys in self._segments.pairs():
            part = weights[:, :, slices[queries], slices[keys]].double().sum((-2, -1))  # [B, heads]
            asking = counts[:, slices[queries]].sum(1).clamp(min=1)
            if self._score is BlockScore.POSITION:
                there = counts[:, slices[keys]].sum(1).clamp(min=1)
                part = part * (tokens / (asking * there))[:, None]
            elif self._score is BlockScore.VALUE:
                part = part / asking[:, None]
            before = self._sums.get((queries, keys), 0.0)
            self._sums[queries, keys] = before + part.sum(0)
