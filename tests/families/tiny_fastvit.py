"""A tiny seeded FastViT as MobileCLIP has them, with batch norms of which the channels differ widely."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn


def make_tiny_fastvit(seed: int = 0, large: bool = False, activation: type[nn.Module] = nn.GELU) -> Any:
    """timm's FastViT with branches, three stages, attention in the last; in eval mode, with outputs [B, 32].

    Args:
        seed: of all values.
        large: whether it has what MobileCLIP2-S3 and S4 have: LayerNorms before attention, and no
            squeeze-excite between stages, where the smaller ones have both otherwise.
        activation: of all layers.
    """
    from timm.layers import LayerNorm2d
    from timm.models.fastvit import FastVit, RepConditionalPosEnc

    trunk = FastVit(
        layers=(1, 1, 1),
        embed_dims=(16, 32, 64),
        mlp_ratios=(3, 3, 3),
        downsamples=(False, True, True),
        se_downsamples=(False, False, not large),
        pos_embs=(None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "repmixer", "attention"),
        lkc_use_act=True,
        num_classes=32,
        norm_layer=partial(LayerNorm2d, eps=1e-5) if large else nn.BatchNorm2d,
        stem_use_scale_branch=not large,
        act_layer=activation,
    )
    draw_fastvit_(trunk, seed)
    return trunk.eval()


def draw_fastvit_(trunk: nn.Module, seed: int, spread: float = 0.3) -> None:
    """Gives every parameter and statistic a value that matters.

    Args:
        trunk: changed in place.
        seed: of all values.
        spread: standard deviation of log(scale) of batch norms, and half that of log(variance).
    """
    generator = torch.Generator().manual_seed(seed)

    def noise(like: torch.Tensor) -> torch.Tensor:
        return torch.randn(like.shape, generator=generator)

    with torch.no_grad():
        for name, parameter in sorted(trunk.named_parameters()):
            if name.endswith(("bias", "beta")):
                parameter.copy_(0.1 * noise(parameter))
            elif name.endswith("gamma"):
                parameter.copy_(0.3 * torch.exp(0.5 * noise(parameter)))
            elif parameter.ndim > 1:
                parameter.copy_(noise(parameter) / parameter[0].numel() ** 0.5)
        for _, norm in sorted(trunk.named_modules()):
            if isinstance(norm, nn.BatchNorm2d):
                norm.weight.copy_(torch.exp(spread * noise(norm.weight)))
                norm.running_mean.copy_(0.2 * noise(norm.bias))  # type: ignore[union-attr]
                norm.running_var.copy_(torch.exp(2 * spread * noise(norm.bias)))  # type: ignore[union-attr]
