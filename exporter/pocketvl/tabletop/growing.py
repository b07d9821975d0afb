"""A deeper CLIP that answers like the one it grew from, to be trained on.

Source: block expansion, Wu et al., 2024, "LLaMA Pro: Progressive LLaMA with Block Expansion" (arXiv
2401.02415), section 3.2: copies of blocks, spread over the depth, whose last linears are 0, so that each adds
nothing at first.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from transformers import CLIPModel

from pocketvl.errors import TrainingError

_ENCODERS = ("vision_model", "text_model")
_LAST_LINEARS = ("self_attn.out_proj", "mlp.fc2")


def grow_(model: CLIPModel, start: CLIPModel) -> None:
    """Give a model the weights of a shallower or equally deep one, and the answers of that.

    Args:
        model: changed in place; each of its encoders has a whole multiple of the other's layers.
        start: of the same widths, heads, vocabulary and picture size.

    Raises:
        TrainingError: the two differ in anything but depth.
    """
    state = dict(start.state_dict())
    for encoder in _ENCODERS:
        shallow, deep = (_layers(each, encoder) for each in (start, model))
        if not shallow or deep % shallow:
            raise TrainingError(f"{encoder} cannot grow from {shallow} to {deep} layers: only to a multiple")
        _expand_(state, f"{encoder}.encoder.layers.", deep // shallow)
    _check_shapes(model.state_dict(), state)
    model.load_state_dict(state)


def _layers(model: CLIPModel, encoder: str) -> int:
    layers = model.get_submodule(f"{encoder}.encoder.layers")
    assert isinstance(layers, nn.ModuleList)
    return len(layers)


def _expand_(state: dict[str, torch.Tensor], prefix: str, times: int) -> None:
    """Put in place of each layer itself, and then copies of it that add nothing."""
    old = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
    for name, value in old.items():
        index, _, inner = name.removeprefix(prefix).partition(".")
        silent = inner.startswith(_LAST_LINEARS)
        for copy in range(times):
            new = f"{prefix}{int(index) * times + copy}.{inner}"
            state[new] = torch.zeros_like(value) if silent and copy else value


def _check_shapes(wanted: Mapping[str, torch.Tensor], found: Mapping[str, torch.Tensor]) -> None:
    for name, value in wanted.items():
        shape = list(found[name].shape) if name in found else "missing"
        if shape != list(value.shape):
            raise TrainingError(f"cannot grow: {name} is {list(value.shape)} here, and {shape} at the start")
