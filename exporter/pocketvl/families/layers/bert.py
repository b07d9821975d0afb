"""What the forwards of BERT-like text encoders share.

Source: Devlin et al., 2019, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding", arXiv 1810.04805.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from pocketvl.families.layers.plain import MASKED
from pocketvl.families.layers.pooled import attend


def embed_tokens(tables: nn.Module, ids: torch.Tensor, first: int = 0) -> torch.Tensor:
    """The first layer's input, float [B, T, width].

    Args:
        tables: of words and positions, and of token types, where there are any, of which texts are the first.
        ids: int [B, T].
        first: the row of the table of positions that is the first token's.
    """
    words, positions = cast(nn.Module, tables.word_embeddings), cast(nn.Embedding, tables.position_embeddings)
    kinds = getattr(tables, "token_type_embeddings", None)
    hidden = words(ids) if kinds is None else words(ids) + kinds.weight[0]
    hidden = cast(nn.Module, tables.LayerNorm)(hidden + positions.weight[first : first + ids.shape[1]])
    if tables.training:
        hidden = cast(nn.Module, tables.dropout)(hidden)
    found: torch.Tensor = hidden
    return found


def padding_mask(ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """What is added to attention scores so that padding is not attended to, float32 [B, 1, 1, T]."""
    return (ids == pad_id).to(torch.float32)[:, None, None, :] * MASKED


def adds_and_normalizes(module: nn.Module) -> bool:
    """Whether a module is BERT's sum: the LayerNorm of what its linear gives and what that is added to."""
    children = {name for name, _ in module.named_children()}
    return {"dense", "LayerNorm"} <= children <= {"dense", "LayerNorm", "dropout"}


class ScaledSum(nn.Module):
    """BERT's sum, of which what is added to comes with its channels divided; it shares the sum's modules."""

    def __init__(self, owner: nn.Module, factors: torch.Tensor) -> None:
        """Args: owner: in whose place it comes. factors: float [width], by which it was divided."""
        super().__init__()
        self.dense, self.LayerNorm = owner.get_submodule("dense"), owner.get_submodule("LayerNorm")
        self.dropout = getattr(owner, "dropout", nn.Identity())
        self.factors: torch.Tensor
        self.register_buffer("factors", factors.float(), persistent=False)

    def forward(self, hidden: torch.Tensor, divided: torch.Tensor) -> torch.Tensor:
        """Float [B, T, width].

        Args:
            hidden: float [B, T, inputs], of which the linear is added.
            divided: float [B, T, width], what it is added to.
        """
        found: torch.Tensor = self.LayerNorm(self.dropout(self.dense(hidden)) + divided * self.factors)
        return found


class PooledSelfAttention(nn.Module):
    """BERT's self-attention with queries of some positions; it shares the linears."""

    def __init__(self, owner: nn.Module) -> None:
        """Args: owner: in whose place it comes."""
        super().__init__()
        self.query, self.key, self.value = (owner.get_submodule(name) for name in ("query", "key", "value"))
        self.attention_head_size = cast(int, owner.attention_head_size)
        self.scale = self.attention_head_size**-0.5  # under the name that `quantize/fold.py` looks for

    def forward(self, rows: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Attend; float [B, Q, heads x head size].

        Args:
            rows: float [B, Q, width], what asks.
            hidden: float [B, T, width], what is asked.
            mask: float [B, 1, 1, T], added to the scores.
        """
        asked = self.query(rows), self.key(hidden), self.value(hidden)
        return attend(*asked, self.attention_head_size, self.scale, mask)


class PooledBertLayer(nn.Module):
    """A layer of BERT's for the first position; it shares the layer's modules, under their names."""

    def __init__(self, owner: nn.Module) -> None:
        """Args: owner: in whose place it comes, with or without a cross-attention."""
        super().__init__()
        self.attention = nn.Module()
        self.attention.add_module("self", PooledSelfAttention(owner.get_submodule("attention.self")))
        self.attention.add_module("output", owner.get_submodule("attention.output"))
        self.intermediate, self.output = owner.get_submodule("intermediate"), owner.get_submodule("output")
        if hasattr(owner, "crossattention"):
            self.crossattention = owner.get_submodule("crossattention")

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The layer's output at the first position, float [B, 1, width].

        Args:
            hidden: float [B, T, width].
            mask: float [B, 1, 1, T], added to the scores.
            seen: float [B, S, width], what its cross-attention reads, which it must have then.
        """
        row = hidden[:, :1]
        attended = self.attention.get_submodule("output")(
            self.attention.get_submodule("self")(row, hidden, mask), row
        )
        if seen is not None:
            attended = self.crossattention(attended, encoder_hidden_states=seen)[0]
        found: torch.Tensor = self.output(self.intermediate(attended), attended)
        return found


def pool_last_bert_layer_(layers: nn.ModuleList) -> None:
    """Compute the last of BERT's layers for the first position, in place.

    Args:
        layers: all of them; there may be none.
    """
    if len(layers) and not isinstance(layers[-1], PooledBertLayer):
        layers[-1] = PooledBertLayer(layers[-1])
