"""A tiny seeded FastViT as MobileCLIP has them, with batch norms of which the channels differ widely."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.families import tiny_open_clip

NAME = "pocketvl_tiny_fastvit"
"""By which timm knows the tiny FastViT once `register_tiny_fastvit` was called."""
MOBILECLIP: dict[str, Any] = {
    "embed_dim": 32,
    "custom_text": True,
    "vision_cfg": {
        "timm_model_name": NAME,
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": None,
        "timm_drop": 0.0,
        "timm_drop_path": 0.0,
        "image_size": 64,
    },
    "text_cfg": {**tiny_open_clip.TEXT, "no_causal_mask": True},
}
PREPROCESS = {**tiny_open_clip.PREPROCESS, "mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bilinear"}


def make_tiny_fastvit(seed: int = 0, large: bool = False, outputs: int = 32) -> Any:
    """timm's FastViT with branches, three stages, attention in the last; in eval mode.

    Args:
        seed: of all values.
        large: whether it has what MobileCLIP2-S3 and S4 have: LayerNorms before attention, and no
            squeeze-excite between stages, where the smaller ones have both otherwise.
        outputs: how many.
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
        num_classes=outputs,
        norm_layer=partial(LayerNorm2d, eps=1e-5) if large else nn.BatchNorm2d,
        stem_use_scale_branch=not large,
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


def register_tiny_fastvit() -> None:
    """Let timm, in this process, know `NAME`."""
    from timm.models import is_model, register_model

    def pocketvl_tiny_fastvit(pretrained: bool = False, num_classes: int = 32, **_: object) -> Any:
        return make_tiny_fastvit(outputs=num_classes)

    pocketvl_tiny_fastvit.__module__ = __name__
    if not is_model(NAME):
        register_model(pocketvl_tiny_fastvit)


def make_tiny_mobileclip(folder: Path, seed: int = 0) -> Path:
    """Writes a folder as open_clip would write one of MobileCLIP, whose image tower is the tiny FastViT."""
    from safetensors.torch import load_file, save_file

    register_tiny_fastvit()
    tiny_open_clip.make_tiny_open_clip(folder, seed, model_cfg=MOBILECLIP, preprocess_cfg=PREPROCESS)
    path, trunk = folder / "open_clip_model.safetensors", make_tiny_fastvit(seed)
    drawn = {f"visual.trunk.{name}": value.contiguous() for name, value in trunk.state_dict().items()}
    save_file(load_file(path) | drawn, path, {"format": "pt"})
    return folder
