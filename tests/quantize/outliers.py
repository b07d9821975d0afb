"""Plants outlier channels in a CLIP component's residual stream, as large models have them."""

from __future__ import annotations

import torch
from torch import nn

from pocketvl.quantize.fold import norm_readers

_STREAM_ENTRANCES = ("token_embedding", "position_embedding", "class_embedding")
_STREAM_WRITERS = ("patch_embedding", "pre_layrnorm", "out_proj", "fc2")


def plant_outliers_(module: nn.Module, example: torch.Tensor, channels: list[int], times: float) -> None:
    """Scales channels of what is added to the residual stream, and divides the weights that read them.

    Args:
        module: a component of which the LayerNorms are folded.
        example: an input of it.
        channels: which.
        times: by how much.
    """
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if any(part in name for part in _STREAM_ENTRANCES):
                parameter[..., channels] *= times
            elif any(part in name for part in _STREAM_WRITERS):
                parameter[channels] *= times
        for readers in norm_readers(module, example):
            for name in readers.linears:
                module.get_submodule(name).get_parameter("weight")[:, channels] /= times
