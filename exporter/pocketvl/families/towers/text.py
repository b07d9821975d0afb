"""open_clip's own text transformer.

Source: Radford et al., 2021, arXiv 2103.00020, as open_clip 3.3's `TextTransformer` computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pocketvl.families.base import LayerStack
from pocketvl.families.folders.open_clip import MODEL, TEXT, ModelConfig
from pocketvl.families.layers.plain import MASKED
from pocketvl.families.layers.pooled import PooledLayer, PoolsOnePosition, pool_last_layer_, pooled_position
from pocketvl.families.towers.blocks import (
    LAYERS,
    BlockShape,
    activation_name,
    build_blocks,
    no_initialisation,
    norm_eps,
    pack_blocks_,
    pack_projection_,
    unpack_blocks_,
    unpack_projection_,
)

OWNER = "text."
"""What the names of the text tower's tensors begin with, here and in a folder of a custom text tower."""
_OWN = ("positional_embedding", "token_embedding.", "transformer.", "ln_final.", "text_projection")
_PROJECTION = f"{OWNER}text_projection"
_FIXED = {"first": 0, "last": -1}


@dataclass(frozen=True)
class TextTower:
    """A text tower, of shapes that are checked.

    Attributes:
        blocks: its layers.
        length: T, tokens of a text.
        vocab_size: rows of the token table.
        is_causal: whether a token attends to those before it alone.
        pool: "argmax", the highest id; "eos", the first `eos_id`; "first"; or "last".
        eos_id: of pool "eos".
        embed_dim: D; 0 where hidden states are not projected.
        has_bias: whether the projection has one, and is a linear in a folder, too.
        is_custom: whether a folder's tensors are named after a tower of their own.
    """

    blocks: BlockShape
    length: int
    vocab_size: int
    is_causal: bool
    pool: str
    eos_id: int
    embed_dim: int
    has_bias: bool
    is_custom: bool

    @property
    def num_hidden_layers(self) -> int:
        """How many layers there are."""
        return self.blocks.layers

    @property
    def stack(self) -> LayerStack:
        """Its transformer layers."""
        return LayerStack(f"{OWNER}{LAYERS}", (f"{MODEL}.{TEXT}", "layers"), self.blocks.width)

    @property
    def identity(self) -> object:
        """What outputs depend on and no tensor's shape tells; as JSON."""
        return [self.blocks.identity, self.is_causal, self.pool, self.eos_id if self.pool == "eos" else None]

    def build(self, initialised: bool) -> TextModule:
        """Its module, with open_clip's initialisation where weights are random."""
        with no_initialisation(initialised):
            return TextModule(self, initialised)

    def unpack_(self, weights: dict[str, torch.Tensor]) -> None:
        """Change, in place, a folder's tensors into those of the module."""
        for name in sorted(weights):
            if name.startswith(_OWN):
                weights[OWNER + name] = weights.pop(name)
        unpack_blocks_(weights, OWNER, self.blocks.has_scales)
        if not self.has_bias:
            unpack_projection_(weights, _PROJECTION)

    def pack_(self, weights: dict[str, torch.Tensor]) -> None:
        """Change, in place, the module's tensors, which may be compressed, into those of a folder."""
        pack_blocks_(weights, OWNER, self.blocks.has_scales)
        if not self.has_bias:
            pack_projection_(weights, _PROJECTION)
        for name in () if self.is_custom else sorted(weights):
            if name.startswith(OWNER):
                weights[name.removeprefix(OWNER)] = weights.pop(name)


def text_tower(model: ModelConfig) -> TextTower:
    """The text tower that a configuration describes."""
    text = model.text_cfg
    blocks = BlockShape(
        text.width,
        text.layers,
        text.heads,
        int(text.width * text.mlp_ratio),
        activation_name(model.quick_gelu, text.act_kwargs),
        norm_eps(text.norm_kwargs),
        text.ls_init_value is not None,
    )
    return TextTower(
        blocks,
        text.context_length,
        text.vocab_size,
        not text.no_causal_mask,
        text.pool_type,
        text.eos_id,
        0 if text.proj_type == "none" else model.embed_dim,
        text.proj_bias and text.proj_type != "none",
        model.custom_text,
    )


class TextModule(nn.Module, PoolsOnePosition):
    """int ids [B, T], or fewer, -> float32 [B, D], not normalised."""

    def __init__(self, tower: TextTower, initialised: bool) -> None:
        """Args: tower: its shape. initialised: whether weights are random, as open_clip draws them."""
        super().__init__()
        width = tower.blocks.width
        self.token_embedding = nn.Embedding(tower.vocab_size, width)
        self.positional_embedding = nn.Parameter(torch.empty(tower.length, width))
        self.layers = build_blocks(tower.blocks, initialised)
        self.ln_final = nn.LayerNorm(width, tower.blocks.eps)
        self.text_projection: nn.Module = nn.Identity()
        if tower.embed_dim:
            self.text_projection = nn.Linear(width, tower.embed_dim, tower.has_bias)
        if initialised:
            nn.init.normal_(self.token_embedding.weight, std=0.02)
            nn.init.normal_(self.positional_embedding, std=0.01)
            if isinstance(self.text_projection, nn.Linear):
                nn.init.normal_(self.text_projection.weight, std=width**-0.5)
                if self.text_projection.bias is not None:
                    nn.init.zeros_(self.text_projection.bias)
        self.length, self.pool, self.eos_id = tower.length, tower.pool, tower.eos_id
        self.mask: torch.Tensor | None
        self.positions: torch.Tensor
        later = torch.ones(tower.length, tower.length).triu(1)
        self.register_buffer(
            "mask", (later * MASKED)[None, None] if tower.is_causal else None, persistent=False
        )
        self.register_buffer("positions", torch.arange(tower.length, dtype=torch.int32), persistent=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        length = ids.shape[1]
        hidden = self.token_embedding(ids) + self.positional_embedding[:length]
        mask = self.mask if self.mask is None or length == self.length else self.mask[:, :, :length, :length]
        chosen, early = self._chosen(ids), False
        for layer in self.layers:
            early = isinstance(layer, PooledLayer)
            hidden = layer(hidden, mask, chosen) if early else layer(hidden, mask)
        if early:
            pooled = hidden[:, 0]
        elif chosen is None:
            pooled = hidden[:, _FIXED[self.pool]]
        else:
            pooled = (chosen[:, :, None] * hidden).sum(1)  # [B, width]
        # LayerNorm works on each position alone, so that it may come after pooling
        found: torch.Tensor = self.text_projection(self.ln_final(pooled))
        return found

    def shorten_(self, length: int) -> None:
        """Read no more than so many tokens of a text from now on, in place."""
        self.length = length
        self.positional_embedding = nn.Parameter(self.positional_embedding.detach()[:length].clone())
        self.positions = self.positions[:length].clone()
        if self.mask is not None:
            self.mask = self.mask[:, :, :length, :length].clone()

    def _chosen(self, ids: torch.Tensor) -> torch.Tensor | None:
        """One-hot float32 [B, T] of the position that is pooled; None where that is always the same."""
        if self.pool in _FIXED:
            return None
        wanted = ids.amax(-1, keepdim=True) if self.pool == "argmax" else self.eos_id
        return pooled_position(ids, wanted, self.positions, self.length)

    def read_lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Where attention is causal, up to the position that is pooled, else all: padding is not masked."""
        chosen = self._chosen(ids)
        if chosen is None or self.mask is None:
            return torch.full((len(ids),), ids.shape[1])
        return 1 + chosen.argmax(-1)

    def pool_early_(self) -> None:
        pool_last_layer_(self.layers, _FIXED.get(self.pool))
