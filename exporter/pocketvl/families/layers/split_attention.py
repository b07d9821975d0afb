"""Attention over segments, of which some heads do not read some: split, not masked, so that work is saved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from pocketvl.errors import RecipeError
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.segments import Segments

_LINEARS = ("query", "key", "value")


@dataclass(frozen=True)
class Block:
    """One head's attention from one segment to another.

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


def split_attentions_(module: nn.Module, segments: Segments, removed: Sequence[Block]) -> None:
    """Replace the attentions that lose blocks by split ones; they share the linears.

    What an attention that is split already has lost before stays lost.

    Args:
        module: changed in place.
        segments: of its sequence.
        removed: cross-modal blocks.

    Raises:
        RecipeError: a block is of a segment with itself, or there is no such attention, head or segment; or
            an attention is split by other segments.
    """
    known = {attention.name for attention in attentions(module)}
    lost: dict[str, list[Block]] = {}
    for block in removed:
        if block.attention not in known:
            raise RecipeError(f"{block.attention} is no attention of this model")
        lost.setdefault(block.attention, []).append(block)
    for name, blocks in lost.items():
        module.set_submodule(name, SplitAttention(module.get_submodule(name), segments, blocks))


def removed_blocks(module: nn.Module) -> tuple[Block, ...]:
    """The blocks that a module's attentions do without."""
    return tuple(
        replace(block, attention=name)
        for name, child in module.named_modules()
        if isinstance(child, SplitAttention)
        for block in child.removed
    )


class SegmentAttention(nn.Module):
    """ViLT's own linears, shared under their names, for an attention that computes by segments."""

    def __init__(self, owner: nn.Module, segments: Segments) -> None:
        """Args: owner: the attention in whose place it comes, with linears query, key and value. segments: of
        the sequence."""
        super().__init__()
        self.query, self.key, self.value = (getattr(owner, part) for part in _LINEARS)
        self.attention_head_size = int(getattr(owner, "attention_head_size"))  # noqa: B009 (not nn.Module's)
        self.segments = segments
        self.training = owner.training

    def project(self, hidden_states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values, each [B, heads, T, size], of hidden states [B, T, width]."""
        query, key, value = (
            part(hidden_states).unflatten(-1, (-1, self.attention_head_size)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        return query, key, value


def has_linears(owner: nn.Module) -> bool:
    """Whether an attention has the linears of ViLT's own."""
    return all(hasattr(owner, part) for part in _LINEARS)


class SplitAttention(SegmentAttention):
    """Self-attention over segments, of which some heads do not read some.

    Takes and gives what ViLT's own attention does, and keeps the names of its linears.
    """

    def __init__(
        self,
        owner: nn.Module,
        segments: Segments,
        removed: Sequence[Block],
    ) -> None:
        """Build it.

        Args:
            owner: the attention in whose place it comes: ViLT's own, or one that is split already.
            segments: of the sequence.
            removed: its blocks that go, beside those that have gone.

        Raises:
            RecipeError: a block is of a segment with itself, or there is no such head or segment; or the
                attention is split by other segments.
        """
        if not has_linears(owner):
            raise RecipeError(f"{type(owner).__name__} is no attention over text and picture, as ViLT's is")
        super().__init__(owner, segments)
        self.num_attention_heads = int(getattr(owner, "num_attention_heads"))  # noqa: B009
        self.all_head_size = self.num_attention_heads * self.attention_head_size
        before: tuple[Block, ...] = getattr(owner, "removed", ())
        lengths, wanted = dict(getattr(owner, "segments", segments).lengths), dict(segments.lengths)
        if list(lengths.items()) != list(wanted.items()):
            raise RecipeError(
                f"this attention is split by segments of {lengths} already, and cannot be by {wanted}"
            )
        self.removed: tuple[Block, ...] = tuple(dict.fromkeys((*before, *removed)))
        self.plan = _plan(segments, self.num_attention_heads, self.removed)

    def keep_heads_(self, kept: Sequence[int]) -> None:
        """Renumbers the blocks after all heads but these have gone from the linears."""
        self.num_attention_heads = len(kept)
        self.all_head_size = len(kept) * self.attention_head_size
        self.removed = tuple(
            replace(block, head=kept.index(block.head)) for block in self.removed if block.head in kept
        )
        self.plan = _plan(self.segments, len(kept), self.removed)

    @property
    def least_products(self) -> int:
        """Pairs of positions that the head which reads least multiplies."""
        lengths = self.segments.lengths
        heads = [0] * self.num_attention_heads
        for segment, groups in self.plan.items():
            for members, read in groups:
                for head in members:
                    heads[head] += lengths[segment] * sum(lengths[name] for name in read)
        return min(heads)

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
        query, key, value = self.project(hidden_states)
        slices, rows = self.segments.slices(), []
        for segment, groups in self.plan.items():
            mask = attention_mask
            if mask is not None and mask.shape[2] > 1:
                mask = mask[:, :, slices[segment]]
            asking = query[:, :, slices[segment]]
            found = [
                self._attend(_picked(asking, heads), _picked(key, heads), _picked(value, heads), read, mask)
                for heads, read in groups
            ]
            order = [head for heads, _ in groups for head in heads]
            rows.append(_picked(torch.cat(found, dim=1), [order.index(head) for head in range(len(order))]))
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
        slices = self.segments.slices()

        def of(values: torch.Tensor, dim: int) -> torch.Tensor:
            parts = [values[(slice(None),) * dim + (slices[name],)] for name in read]
            return parts[0] if len(parts) == 1 else torch.cat(parts, dim=dim)

        scores = query @ of(key, 2).transpose(-1, -2) / math.sqrt(self.attention_head_size)
        if mask is not None:
            scores = scores + of(mask, 3)
        return scores.softmax(-1) @ of(value, 2)


def _picked(values: torch.Tensor, heads: Sequence[int]) -> torch.Tensor:
    """Heads of [B, heads, T, size], as slices side by side: engines gather slowly, LiteRT without XNNPACK."""
    starts = [i for i, head in enumerate(heads) if i == 0 or head != heads[i - 1] + 1]
    parts = [
        values[:, heads[start] : heads[end - 1] + 1]
        for start, end in zip(starts, [*starts[1:], len(heads)], strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


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
