"""open_clip's ViT as an image tower.

Source: Dosovitskiy et al., 2021, "An Image is Worth 16x16 Words", arXiv 2010.11929, as open_clip 3.3's
`VisionTransformer` computes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from pocketvl.families.base import LayerStack
from pocketvl.families.folders.open_clip import MODEL, VISION, ModelConfig
from pocketvl.families.layers.pooled import PoolsOnePosition, pool_last_layer_
from pocketvl.families.towers.base import VISUAL, ImageTower
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

_PROJECTION = f"{VISUAL}proj"


@dataclass(frozen=True)
class VitTower(ImageTower):
    """A ViT.

    Attributes:
        blocks: its layers.
        patch_size: in pixels.
        patches: a side.
        has_pre_norm: whether a LayerNorm comes before the layers.
        pools_patches: whether the patches' mean is pooled; else the class token.
        norms_pooled: whether the last LayerNorm comes after pooling.
        embed_dim: D.
    """

    blocks: BlockShape
    patch_size: int
    patches: int
    has_pre_norm: bool
    pools_patches: bool
    norms_pooled: bool
    embed_dim: int

    @property
    def num_hidden_layers(self) -> int:
        return self.blocks.layers

    @property
    def stack(self) -> LayerStack:
        return LayerStack(f"{VISUAL}{LAYERS}", (f"{MODEL}.{VISION}", "layers"), self.blocks.width)

    @property
    def identity(self) -> object:
        return [self.blocks.identity, self.pools_patches, self.norms_pooled]

    def build(self, initialised: bool) -> nn.Module:
        with no_initialisation(initialised):
            return VitModule(self, initialised)

    def unpack_(self, weights: dict[str, torch.Tensor]) -> None:
        unpack_blocks_(weights, VISUAL, self.blocks.has_scales)
        unpack_projection_(weights, _PROJECTION)

    def pack_(self, weights: dict[str, torch.Tensor]) -> None:
        pack_blocks_(weights, VISUAL, self.blocks.has_scales)
        pack_projection_(weights, _PROJECTION)


def vit_tower(model: ModelConfig) -> VitTower:
    """The ViT that a configuration describes."""
    vision = model.vision_cfg
    blocks = BlockShape(
        vision.width,
        vision.layers,
        vision.width // vision.head_width,
        int(vision.width * vision.mlp_ratio),
        activation_name(model.quick_gelu, vision.act_kwargs),
        norm_eps(vision.norm_kwargs),
        vision.ls_init_value is not None,
    )
    return VitTower(
        blocks,
        vision.patch_size,
        vision.side // vision.patch_size,
        not vision.no_ln_pre,
        vision.pool_type == "avg",
        vision.final_ln_after_pool,
        model.embed_dim,
    )


class VitModule(nn.Module, PoolsOnePosition):
    """float32 [B, 3, H, W] -> float32 [B, D]."""

    def __init__(self, tower: VitTower, initialised: bool) -> None:
        """Args: tower: its shape. initialised: whether weights are random, as open_clip draws them."""
        super().__init__()
        width, scale = tower.blocks.width, tower.blocks.width**-0.5
        self.conv1 = nn.Conv2d(3, width, tower.patch_size, tower.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + tower.patches**2, width))
        norm = tower.blocks.eps
        self.ln_pre = nn.LayerNorm(width, norm) if tower.has_pre_norm else nn.Identity()
        self.layers = build_blocks(tower.blocks, initialised)
        self.ln_post = nn.LayerNorm(width, norm)
        self.proj = nn.Linear(width, tower.embed_dim, bias=False)
        if initialised:
            for parameter in (self.class_embedding, self.positional_embedding, self.proj.weight):
                nn.init.normal_(parameter, std=scale)
        self.pools_patches, self.norms_pooled = tower.pools_patches, tower.norms_pooled

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        patches = self.conv1(values).flatten(2).transpose(1, 2)  # [B, patches, width]
        first = self.class_embedding.expand(len(values), 1, -1)
        hidden = self.ln_pre(torch.cat([first, patches], dim=1) + self.positional_embedding)
        for layer in self.layers:
            hidden = layer(hidden, None)
        if (
            not self.pools_patches
        ):  # LayerNorm works on each position alone, so that it may come after pooling
            pooled = self.ln_post(hidden[:, 0])
        elif self.norms_pooled:
            pooled = self.ln_post(hidden[:, 1:].mean(1))
        else:
            pooled = self.ln_post(hidden[:, 1:]).mean(1)
        found: torch.Tensor = self.proj(pooled)
        return found

    def pool_early_(self) -> None:
        if not self.pools_patches:
            pool_last_layer_(self.layers, 0)
