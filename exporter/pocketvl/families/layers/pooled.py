"""The last transformer layer of an encoder that pools one position, computed for that position alone.

Nothing reads what a last layer gives at the other positions. Its keys and values are of all of them; its
queries, its attention's output and its feed-forward layer are not: of a CLIP's last layer 10 of 12 products.
The result is the same, up to the order of sums. `quantize/fold.py` puts it in the place of the layer, so that
training a checkpoint, and what it learns of a teacher's hidden states, sees whole layers.

Here are CLIP's and SigLIP's layers; BERT's is in `bert.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import cast

import torch
from torch import nn


class PoolsOnePosition(ABC):
    """Mixin of an encoder's module that reads its last layer's output at one position."""

    @abstractmethod
    def pool_early_(self) -> None:
        """Compute the last layer for that position alone, in place; the output stays the same."""


def pooled_position(
    ids: torch.Tensor, wanted: torch.Tensor | int, positions: torch.Tensor, length: int
) -> torch.Tensor:
    """One-hot float32 [B, T] of the first position of an id, or of position 0 where it is nowhere.

    In comparisons, since argmax over int64 and gathers do not lower to TFLite; and of integers, since an
    engine that computes in bf16 or fp16 cannot tell 49,407 from 49,408.

    Args:
        ids: int [B, T].
        wanted: the id, or one for each text, [B, 1].
        positions: int32 [length], ascending from 0.
        length: the largest T.
    """
    # one that is not wanted comes after every one that is; without any, position 0 is the least
    known = positions if ids.shape[1] == length else positions[: ids.shape[1]]
    order = known + (ids != wanted).to(torch.int32) * length
    return (order == order.amin(-1, keepdim=True)).to(torch.float32)


def attend(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    head_size: int,
    scale: float,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Multi-head attention of linears' outputs.

    Args:
        queries: float [B, Q, heads x head size].
        keys: float [B, T, heads x head size].
        values: float [B, T, heads x head size].
        head_size: columns of a head.
        scale: of the scores.
        mask: float [B, 1, Q or 1, T], added to the scores.

    Returns:
        float [B, Q, heads x head size].
    """
    query, key, value = (_by_head(each, head_size) for each in (queries, keys, values))
    scores = query @ key.transpose(-1, -2) * scale
    shares = (scores if mask is None else scores + mask).softmax(-1)
    return (shares @ value).transpose(1, 2).flatten(2)


def _by_head(values: torch.Tensor, head_size: int) -> torch.Tensor:
    batch, length, _ = values.shape
    return values.view(batch, length, -1, head_size).transpose(1, 2)  # [B, heads, length, head size]


class PooledAttention(nn.Module):
    """Self-attention of CLIP's or SigLIP's layers with queries of some positions; it shares the linears."""

    def __init__(self, owner: nn.Module) -> None:
        """Args: owner: in whose place it comes."""
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            owner.get_submodule(name) for name in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        self.head_dim = cast(int, owner.head_dim)
        self.scale = cast(float, owner.scale)

    def forward(
        self, rows: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Attend.

        Args:
            rows: float [B, Q, width], what asks.
            hidden: float [B, T, width], what is asked.
            mask: float [B, 1, Q, T], added to the scores.

        Returns:
            float [B, Q, width].
        """
        asked = self.q_proj(rows), self.k_proj(hidden), self.v_proj(hidden)
        found: torch.Tensor = self.out_proj(attend(*asked, self.head_dim, self.scale, mask))
        return found


class PooledLayer(nn.Module):
    """A layer of CLIP or SigLIP for one position; it shares the layer's modules, under their names."""

    def __init__(self, owner: nn.Module, position: int | None) -> None:
        """Args: owner: in whose place it comes. position: which; None where each sample has its own."""
        super().__init__()
        self.layer_norm1, self.layer_norm2, self.mlp = (
            owner.get_submodule(name) for name in ("layer_norm1", "layer_norm2", "mlp")
        )
        self.self_attn = PooledAttention(owner.get_submodule("self_attn"))
        self.position = position

    def forward(
        self,
        hidden: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        chosen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The layer's output at one position.

        Args:
            hidden: float [B, T, width].
            attention_mask: float [1, 1, T, T], added to the scores.
            chosen: one-hot float [B, T] of the position, where each sample has its own.

        Returns:
            float [B, 1, width].
        """
        if chosen is None:
            row = hidden[:, self.position][:, None]
            mask = None if attention_mask is None else attention_mask[:, :, self.position][:, :, None]
        else:
            row = (chosen[:, :, None] * hidden).sum(1, keepdim=True)
            mask = None
            if attention_mask is not None:  # [B, T, T] -> [B, 1, 1, T]
                mask = (chosen[:, :, None] * attention_mask[:, 0]).sum(1)[:, None, None]
        # of rows and of all positions by itself, so that nothing but linears reads a LayerNorm
        row = row + self.self_attn(self.layer_norm1(row), self.layer_norm1(hidden), mask)
        found: torch.Tensor = row + self.mlp(self.layer_norm2(row))
        return found


def pool_last_layer_(layers: nn.ModuleList, position: int | None) -> None:
    """Compute the last of CLIP's or SigLIP's layers for one position, in place.

    Args:
        layers: all of them; there may be none.
        position: which; None where each sample has its own.
    """
    if len(layers) and not isinstance(layers[-1], PooledLayer):
        layers[-1] = PooledLayer(layers[-1], position)
