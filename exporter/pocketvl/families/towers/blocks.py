"""The transformer layers of open_clip's towers: transformers' CLIP layers, and the names of their tensors.

In a folder, queries, keys and values are one tensor; here they are three linears, which calibration,
quantization and compression look for, and one tensor again where a checkpoint is saved. What open_clip
multiplies a layer's branches by (`ls_init_value`) is multiplied into their last linears, and saved as ones.
"""

from __future__ import annotations

import math
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from pocketvl.families.folders.open_clip import ActivationOptions, NormOptions

_NAMES = (
    ("ln_1.", "layer_norm1."),
    ("ln_2.", "layer_norm2."),
    ("attn.", "self_attn."),
    ("mlp.c_fc.", "mlp.fc1."),
    ("mlp.c_proj.", "mlp.fc2."),
)
_IN_PROJ = re.compile(r"attn\.in_proj_(weight|bias)")
_SCALES = {"ls_1": "self_attn.out_proj", "ls_2": "mlp.fc2"}
LAYERS = "layers"


@dataclass(frozen=True)
class BlockShape:
    """The layers of a tower.

    Attributes:
        width: of the hidden states.
        layers: how many.
        heads: of each attention.
        neurons: of each feed-forward layer.
        activation: as transformers calls it.
        eps: of every LayerNorm.
        has_scales: whether a folder's layers multiply their branches.
    """

    width: int
    layers: int
    heads: int
    neurons: int
    activation: str
    eps: float
    has_scales: bool

    @property
    def identity(self) -> object:
        """What outputs depend on and no tensor's shape tells."""
        return [self.heads, self.activation, self.eps]


def activation_name(quick_gelu: bool, options: ActivationOptions | None) -> str:
    """transformers' name of an open_clip tower's activation."""
    if quick_gelu:
        return "quick_gelu"
    return "gelu_pytorch_tanh" if options is not None and options.approximate == "tanh" else "gelu"


def norm_eps(options: NormOptions | None) -> float:
    """The epsilon of an open_clip tower's LayerNorms."""
    return (options or NormOptions()).eps


def mlp_ratio(width: int, neurons: int) -> float:
    """What open_clip's configuration says, of which it takes the integer part times the width."""
    ratio = neurons / width
    return ratio if int(width * ratio) == neurons else math.nextafter(ratio, math.inf)


def no_initialisation(initialised: bool) -> AbstractContextManager[None]:
    """Where modules are made without random weights, unless they are to have them."""
    from transformers.initialization import no_init_weights

    if initialised:
        return nullcontext()
    found: AbstractContextManager[None] = no_init_weights()
    return found


def build_blocks(shape: BlockShape, initialised: bool) -> nn.ModuleList:
    """The layers, with open_clip's initialisation of a text tower."""
    from transformers import CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPEncoderLayer

    config = CLIPVisionConfig(
        hidden_size=shape.width,
        intermediate_size=shape.neurons,
        num_attention_heads=shape.heads,
        num_hidden_layers=shape.layers,
        hidden_act=shape.activation,
        layer_norm_eps=shape.eps,
    )
    # eager: plain MatMul and Softmax, which both engines fuse themselves
    config._attn_implementation = "eager"
    layers = nn.ModuleList(CLIPEncoderLayer(config) for _ in range(shape.layers))
    if initialised:
        branch = (2 * shape.layers * shape.width) ** -0.5
        stds = {"q_proj": shape.width**-0.5, "k_proj": shape.width**-0.5, "v_proj": shape.width**-0.5}
        stds |= {"out_proj": branch, "fc1": (2 * shape.width) ** -0.5, "fc2": branch}
        for name, child in layers.named_modules():
            if isinstance(child, nn.Linear):
                nn.init.normal_(child.weight, std=stds[name.rpartition(".")[2]])
                nn.init.zeros_(child.bias)
    return layers


def unpack_blocks_(weights: dict[str, torch.Tensor], owner: str, has_scales: bool) -> None:
    """Change, in place, open_clip's layers into transformers'.

    Args:
        weights: of a folder.
        owner: what the names of the tower's tensors begin with, "visual.".
        has_scales: whether branches are multiplied; of a factor that is missing the linear's weight goes.
    """
    stored = re.compile(re.escape(owner) + r"transformer\.resblocks\.(\d+)\.(.+)")
    layers = set()
    for name in sorted(weights):
        found = stored.fullmatch(name)
        if found is None:
            continue
        layer, rest = f"{owner}{LAYERS}.{found[1]}.", found[2]
        layers.add(layer)
        value, whole = weights.pop(name), _IN_PROJ.fullmatch(rest)
        if whole is not None and value.ndim and len(value) % 3 == 0:
            for letter, part in zip("qkv", value.chunk(3), strict=True):
                weights[f"{layer}self_attn.{letter}_proj.{whole[1]}"] = part
        else:
            weights[layer + _renamed(rest, 0)] = value
    for layer in layers if has_scales else ():
        for scale, linear in _SCALES.items():
            _scale_(weights, f"{layer}{scale}.gamma", f"{layer}{linear}")


def _scale_(weights: dict[str, torch.Tensor], scale: str, linear: str) -> None:
    """Multiply a branch's last linear, of two that stand for one the second."""
    last = linear if f"{linear}.weight" in weights else f"{linear}.1"
    weight, bias = weights.get(f"{last}.weight"), weights.get(f"{last}.bias")
    if weight is None or bias is None:
        return
    factor = weights.pop(scale, None)
    if factor is None or factor.shape != bias.shape:
        del weights[f"{last}.weight"]  # told as missing; without its factor it would be another layer
        return
    weights[f"{last}.weight"] = (weight.float() * factor.float()[:, None]).to(weight.dtype)
    weights[f"{last}.bias"] = (bias.float() * factor.float()).to(bias.dtype)


def pack_blocks_(weights: dict[str, torch.Tensor], owner: str, has_scales: bool) -> None:
    """Change, in place, transformers' layers, which may be compressed, into open_clip's."""
    ours = re.compile(re.escape(owner) + LAYERS + r"\.(\d+)\.(.+)")
    for name in sorted(weights):
        found = ours.fullmatch(name)
        if found is None or name not in weights:
            continue
        here, there = f"{owner}{LAYERS}.{found[1]}.", f"{owner}transformer.resblocks.{found[1]}."
        rest = found[2]
        if has_scales and rest == "layer_norm1.weight":
            for scale in _SCALES:
                weights[f"{there}{scale}.gamma"] = torch.ones_like(weights[name])
        kind = rest.rpartition(".")[2]
        parts = [f"{here}self_attn.{letter}_proj.{kind}" for letter in "qkv"]
        if name in parts and all(part in weights for part in parts):  # else they are of a lower rank
            weights[f"{there}attn.in_proj_{kind}"] = torch.cat([weights.pop(part) for part in parts])
        else:
            weights[there + _renamed(rest, 1)] = weights.pop(name)


def _renamed(rest: str, direction: int) -> str:
    for names in _NAMES:
        if rest.startswith(names[direction]):
            return names[1 - direction] + rest.removeprefix(names[direction])
    return rest


def unpack_projection_(weights: dict[str, torch.Tensor], name: str) -> None:
    """Turn a matrix that is multiplied from the right into a linear's weight, in place."""
    value = weights.get(name)
    if value is not None and value.ndim == 2:
        del weights[name]
        weights[f"{name}.weight"] = value.T


def pack_projection_(weights: dict[str, torch.Tensor], name: str) -> None:
    """Turn it back; of a lower rank it stays two linears."""
    value = weights.pop(f"{name}.weight", None)
    if value is not None:
        weights[name] = value.T.contiguous()
