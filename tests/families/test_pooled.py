"""A last layer that is computed for the pooled position alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from pocketvl.families.layers.pooled import PooledLayer, PoolsOnePosition, pool_last_layer_
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip
from tests.lower.lowered import samples

CASES = (("clip", "image_encoder"), ("clip", "text_encoder"), ("siglip", "text_encoder"))


def opened(family: str, component: str, folder: Path) -> tuple[nn.Module, torch.Tensor]:
    """A tiny encoder and a batch of inputs; of texts, each ends at another position."""
    made = (make_tiny_clip if family == "clip" else make_tiny_siglip)(folder / family)
    found = open_checkpoint(made).component(component)
    length = found.inputs[0].shape[1]
    if family == "clip":
        data = np.concatenate([feed[found.inputs[0].name] for feed in samples(found.inputs[0].name, 6, 3)])
    else:
        data = np.random.default_rng(3).integers(0, 200, (6, int(length))).astype(np.int32)
    return found.module.eval(), torch.from_numpy(data)


@pytest.mark.parametrize(("family", "component"), CASES)
def test_one_position_gives_the_same_embedding(family: str, component: str, tmp_path: Path) -> None:
    module, data = opened(family, component, tmp_path)
    assert isinstance(module, PoolsOnePosition)
    names = sorted(name for name, _ in module.named_parameters())
    with torch.no_grad():
        expected = module(data)
        module.pool_early_()
        module.pool_early_()  # which changes nothing more
        found = module(data)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert sorted(name for name, _ in module.named_parameters()) == names


@pytest.mark.parametrize(("family", "component"), CASES)
def test_only_keys_and_values_are_of_all_positions(family: str, component: str, tmp_path: Path) -> None:
    module, data = opened(family, component, tmp_path)
    assert isinstance(module, PoolsOnePosition)
    module.pool_early_()
    (last,) = (child for child in module.modules() if isinstance(child, PooledLayer))
    positions: dict[str, int] = {}
    for name, child in last.named_modules():
        if isinstance(child, nn.Linear):
            child.register_forward_hook(
                lambda _, inputs, output, name=name: positions.update({name: output.shape[1]})
            )
    with torch.no_grad():
        module(data)
    whole = {name for name, count in positions.items() if count > 1}
    assert whole == {"self_attn.k_proj", "self_attn.v_proj"}
    assert len(positions) == 6


def test_an_encoder_without_layers_stays() -> None:
    layers = nn.ModuleList()
    pool_last_layer_(layers, 0)
    assert len(layers) == 0
