"""Pruning cross-modal attention: what text reads from the picture, and the picture from text, head by head.

In a single-stream fusion model the attention over the whole sequence is made of blocks, one for each ordered
pair (segment of queries, segment of keys). A block of a head that carries little goes: its scores are never
computed, and the softmax runs over the keys that are left. The attention is split for that, not masked, so
that multiply-adds are saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from pocketvl.compress.settings import BlockScore, Grain
from pocketvl.compress.shrink import linear
from pocketvl.errors import DataError, RecipeError
from pocketvl.families.layers.blocks import Attention, attentions
from pocketvl.families.layers.segments import Segments
from pocketvl.families.layers.split_attention import Block, SplitAttention

_MASKED = -1.0
"""Additive masks are 0 where a token counts, and far below this where it does not."""


def block_scores(
    module: nn.Module,
    feeds: Iterable[tuple[torch.Tensor, ...]],
    segments: Segments,
    score: BlockScore = BlockScore.VALUE,
) -> dict[Block, float]:
    """Measures every block of every attention, those of a segment with itself too, on data.

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
        self._attention, self._segments, self._score = attention, segments, score
        self._parts = [linear(module, name) for name in attention.inward]
        self._output = linear(module, attention.output).weight.detach()
        self._sums: dict[tuple[str, str], torch.Tensor] = {}
        self.handle = module.get_submodule(attention.name).register_forward_pre_hook(
            self._look, with_kwargs=True
        )

    def sums(self) -> dict[Block, float]:
        """By block, over all samples so far."""
        return {
            Block(self._attention.name, *pair, head): float(value)
            for pair, values in self._sums.items()
            for head, value in enumerate(values)
        }

    def _look(self, owner: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
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
        places = self._segments.places()
        for gone in owner.removed if isinstance(owner, SplitAttention) else ():
            scores[:, gone.head, places[gone.queries], places[gone.keys]] = -torch.inf
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
            part = weights[:, :, places[queries], places[keys]].double().sum((-2, -1))  # [B, heads]
            asking = counts[:, places[queries]].sum(1).clamp(min=1)
            if self._score is BlockScore.POSITION:
                there = counts[:, places[keys]].sum(1).clamp(min=1)
                part = part * (tokens / (asking * there))[:, None]
            elif self._score is BlockScore.VALUE:
                part = part / asking[:, None]
            before = self._sums.get((queries, keys), 0.0)
            self._sums[queries, keys] = before + part.sum(0)
