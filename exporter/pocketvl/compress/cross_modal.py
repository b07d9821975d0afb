"""Pruning cross-modal attention: what text reads from the picture, and the picture from text, head by head.

In a single-stream fusion model the attention over the whole sequence is made of blocks, one for each ordered
pair (segment of queries, segment of keys). A block of a head that carries little goes: its scores are never
computed, and the softmax runs over the keys that are left. The attention is split for that, not masked, so
that multiply-adds are saved.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import nn

from pocketvl.compress.shrink import linear
from pocketvl.errors import DataError, RecipeError
from pocketvl.families.blocks import Attention, attentions
from pocketvl.families.segments import Segments

_MASKED = -1.0
"""Additive masks are 0 where a token counts, and far below this where it does not."""


class BlockScore(StrEnum):
    """What makes a block matter.

    With attention weights a_kl of query position k and key position l:

    sum: the sum over k and l of |a_kl|. Each row of a softmax sums to one, so that this mostly counts
    positions: a segment of more queries, or of more keys, scores more with the very same attention.

    position: that, divided by what it were if every token were looked at alike; 1 is as much as that.

    value: the sum of a_kl |W_o v_l|, a query: how far the block moves what comes out, were all that it reads
    to point the same way. The default, for it alone sees that a block can look hard at tokens that say
    nothing. (Kobayashi et al., 2020, "Attention is Not Only a Weight", arXiv 2004.10102,
    section 3.)
    """

    SUM = "sum"
    POSITION = "position"
    VALUE = "value"


class Grain(StrEnum):
    """What goes at a time: a block of one head, or of all heads of a layer."""

    HEAD = "head"
    LAYER = "layer"


@dataclass(frozen=True)
class Block:
    """What one head of an attention does for an ordered pair of segments.

    Attributes:
        attention: name of the attention.
        queries: segment that reads.
        keys: segment that is read.
        head: which.
    """

    attention: str
    queries: str
    keys: str
    head: int

    @property
    def is_cross_modal(self) -> bool:
        """Whether one segment reads another."""
        return self.queries != self.keys


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
        The mean over samples, by block.

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


def split_attentions_(module: nn.Module, segments: Segments, removed: Sequence[Block]) -> None:
    """Puts split attentions in the place of those that lose blocks; they share the linears.

    Args:
        module: changed in place.
        segments: of its sequence.
        removed: cross-modal blocks.

    Raises:
        RecipeError: a block is of a segment with itself, or there is no such attention, head or segment.
    """
    by_name = {attention.name: attention for attention in attentions(module)}
    lost: dict[str, list[Block]] = {}
    for block in removed:
        if block.attention not in by_name:
            raise RecipeError(f"{block.attention} is no attention of this model")
        lost.setdefault(block.attention, []).append(block)
    for name, blocks in lost.items():
        attention = by_name[name]
        owner = module.get_submodule(name)
        parts = [linear(module, part) for part in attention.inward]
        module.set_submodule(name, SplitAttention(owner, parts, attention.head_size, segments, blocks))


class SplitAttention(nn.Module):
    """Self-attention over segments, of which some heads do not read some.

    Takes and gives what ViLT's own attention does, and keeps the names of its linears.
    """

    def __init__(
        self,
        owner: nn.Module,
        parts: Sequence[nn.Linear],
        head_size: int,
        segments: Segments,
        removed: Sequence[Block],
    ) -> None:
        """Builds it.

        Args:
            owner: the attention in whose place it comes.
            parts: its queries', keys' and values' linears.
            head_size: outputs of a query for one head.
            segments: of the sequence.
            removed: its blocks that go.

        Raises:
            RecipeError: a block is of a segment with itself, or there is no such head or segment.
        """
        super().__init__()
        self.query, self.key, self.value = parts
        self.attention_head_size = head_size
        self.num_attention_heads = self.query.out_features // head_size
        self.all_head_size = self.query.out_features
        self.segments = segments
        self.removed = tuple(removed)
        self.plan = _plan(segments, self.num_attention_heads, removed)
        self.training = owner.training

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_attentions: bool = False,
    ) -> tuple[torch.Tensor]:
        """Attends.

        Args:
            hidden_states: float [B, T, width].
            attention_mask: float [B, 1, 1, T] or [B, 1, T, T], added to the scores.
            output_attentions: refused.

        Returns:
            float [B, T, heads * head size], in a tuple.
        """
        if output_attentions:
            raise ValueError("a split attention has no whole maps to give")
        query, key, value = (
            part(hidden_states).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )  # [B, heads, T, size]
        places, rows = self.segments.places(), []
        for segment, groups in self.plan.items():
            mask = attention_mask
            if mask is not None and mask.shape[2] > 1:
                mask = mask[:, :, places[segment]]
            found = [
                self._attend(query[:, heads, places[segment]], key[:, heads], value[:, heads], read, mask)
                for heads, read in groups
            ]
            order = [head for heads, _ in groups for head in heads]
            back = sorted(range(len(order)), key=order.__getitem__)
            whole = torch.cat(found, dim=1)
            rows.append(whole if back == list(range(len(back))) else whole[:, back])
        return (torch.cat(rows, dim=2).transpose(1, 2).flatten(2),)

    def _attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        read: tuple[str, ...],
        mask: torch.Tensor | None,
    ) -> torch.Tensor:
        """Some heads' queries [B, h, K, size] over the segments that they read -> [B, h, K, size]."""
        places = self.segments.places()

        def of(values: torch.Tensor, dim: int) -> torch.Tensor:
            parts = [values[(slice(None),) * dim + (places[name],)] for name in read]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)

        scores = query @ of(key, 2).transpose(-1, -2) / math.sqrt(self.attention_head_size)
        if mask is not None:
            scores = scores + of(mask, 3)
        return scores.softmax(-1) @ of(value, 2)


def _plan(
    segments: Segments, heads: int, removed: Sequence[Block]
) -> dict[str, list[tuple[list[int], tuple[str, ...]]]]:
    """For each segment of queries: which heads read which segments."""
    gone: dict[str, dict[int, set[str]]] = {name: {} for name in segments.lengths}
    for block in removed:
        if not block.is_cross_modal:
            raise RecipeError(f"{block}: what a segment reads of itself always stays")
        if not {block.queries, block.keys} <= set(segments.lengths) or not 0 <= block.head < heads:
            raise RecipeError(
                f"{block}: there are {heads} heads and the segments {', '.join(segments.lengths)}"
            )
        gone[block.queries].setdefault(block.head, set()).add(block.keys)
    plan: dict[str, list[tuple[list[int], tuple[str, ...]]]] = {}
    for segment in segments.lengths:
        groups: dict[tuple[str, ...], list[int]] = {}
        for head in range(heads):
            lost = gone[segment].get(head, set())
            groups.setdefault(tuple(name for name in segments.lengths if name not in lost), []).append(head)
        plan[segment] = [(members, read) for read, members in groups.items()]
    return plan


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
        places = self._segments.places()
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
