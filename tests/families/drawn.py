"""Parameters drawn from a seed, with outlier channels, and files that several tiny folders have."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]


def draw_(model: nn.Module, seed: int, outlier: float = 8.0, attended: float = 4.0) -> None:
    """Gives every parameter, biases and LayerNorms included, a value that matters.

    What attentions of BERT's kind add is large beside what they add it to: the first token of a few random
    layers would hardly depend on the text, and the least rounding would count as another text. A Swin's are
    of another kind.

    Args:
        model: changed in place.
        seed: of all values.
        outlier: what one channel of every LayerNorm in an encoder's layers is multiplied by.
        attended: what the weights of outputs of BERT's attentions are multiplied by.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.startswith("logit_scale"):
                parameter.fill_(2.5)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embedding" in name and "patch" not in name:
                parameter.copy_(0.5 * noise)
            else:
                attends = name.endswith("attention.output.dense.weight") and "audio_encoder" not in name
                gain = attended if attends else 1.0
                parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
        for name, norm in sorted(model.named_modules()):
            if isinstance(norm, nn.LayerNorm) and "encoder.layer" in name:
                channel = torch.randint(norm.weight.numel(), (1,), generator=generator)
                norm.weight[channel] *= outlier
                norm.bias[channel] *= outlier


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
