"""Tiny seeded open_clip folders, written as open_clip's `push_to_hf_hub` would write real ones."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from tests.families.drawn import MEAN, STD, write_json

IMAGE_SIZE, PATCH_SIZE, TEXT_LENGTH, WIDTH = 32, 8, 16, 32
EMBEDDING_DIM = 24
TEXT: dict[str, Any] = {
    "context_length": TEXT_LENGTH,
    "vocab_size": 49408,
    "width": WIDTH,
    "heads": 2,
    "layers": 2,
}
VIT: dict[str, Any] = {
    "embed_dim": EMBEDDING_DIM,
    "vision_cfg": {
        "image_size": IMAGE_SIZE,
        "layers": 2,
        "width": WIDTH,
        "head_width": 16,
        "patch_size": PATCH_SIZE,
        "mlp_ratio": 2.0,
    },
    "text_cfg": {**TEXT, "mlp_ratio": 2.0},
}
CONVNEXT: dict[str, Any] = {
    "embed_dim": EMBEDDING_DIM,
    "vision_cfg": {
        "timm_model_name": "test_convnext",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "timm_drop": 0.0,
        "timm_drop_path": 0.1,
        "image_size": 64,
    },
    "text_cfg": {**TEXT, "mlp_ratio": 2.0},
}
PREPROCESS: dict[str, Any] = {
    "mean": MEAN,
    "std": STD,
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def draw_open_clip_(model: nn.Module, seed: int, outlier: float = 8.0) -> None:
    """Gives every parameter, biases and LayerNorms included, a value that matters.

    Args:
        model: open_clip's; changed in place.
        seed: of all values.
        outlier: what one channel of every LayerNorm in a tower's layers is multiplied by.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            last = name.rpartition(".")[2]
            if name == "logit_scale":
                parameter.fill_(2.5)
            elif name == "logit_bias":
                parameter.fill_(-3.0)
            elif last == "gamma":
                parameter.copy_(0.5 + 0.1 * noise)
            elif parameter.ndim == 1 and last == "weight":
                parameter.copy_(1 + 0.1 * noise)
            elif last in ("bias", "in_proj_bias"):
                parameter.copy_(0.1 * noise)
            elif "embedding" in name:
                parameter.copy_(0.5 * noise)
            elif last in ("proj", "text_projection"):  # multiplied from the right
                parameter.copy_(noise / len(parameter) ** 0.5)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
        for name, norm in sorted(model.named_modules()):
            if isinstance(norm, nn.LayerNorm) and ("blocks." in name):
                channel = torch.randint(norm.weight.numel(), (1,), generator=generator)
                norm.weight[channel] *= outlier
                norm.bias[channel] *= outlier


def open_clip_model(model_cfg: dict[str, Any]) -> nn.Module:
    """open_clip's own model of a configuration, as its `create_model` builds it."""
    from open_clip.model import CLIP, CustomTextCLIP

    given = deepcopy(model_cfg)
    kind = CustomTextCLIP if given.pop("custom_text", False) else CLIP
    made: nn.Module = kind(**given)
    return made.train(False)


def make_tiny_open_clip(
    folder: Path,
    seed: int = 0,
    *,
    model_cfg: dict[str, Any] | None = None,
    preprocess_cfg: dict[str, Any] | None = None,
    outlier: float = 8.0,
    dtype: torch.dtype = torch.float32,
) -> Path:
    """Writes a whole folder; by default a ViT of 32 x 32 pictures, both towers of two layers of 32, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights.
        model_cfg: of another model.
        preprocess_cfg: of another preprocessing.
        outlier: what one channel of each of the layers' LayerNorms is multiplied by.
        dtype: of the stored weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    described = VIT if model_cfg is None else model_cfg
    model = open_clip_model(described)
    draw_open_clip_(model, seed, outlier)
    state = {name: value.to(dtype).contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors", {"format": "pt"})
    preprocess = PREPROCESS if preprocess_cfg is None else preprocess_cfg
    write_json(folder / "open_clip_config.json", {"model_cfg": described, "preprocess_cfg": preprocess})
    return folder
