"""Layers that change nothing go first, and without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from pocketvl.compress.methods.drop_layers import drop_layers_, layer_influence
from pocketvl.errors import DataError, RecipeError
from pocketvl.families import open_checkpoint
from tests.families.tiny import IMAGE_SIZE

STACK = "vision_model.encoder.layers"


def test_a_layer_that_adds_nothing_has_no_influence_and_goes_without_a_trace(clip_folder: Path) -> None:
    checkpoint = open_checkpoint(clip_folder)
    layers = checkpoint.model.get_submodule(STACK)
    assert isinstance(layers, nn.ModuleList)
    with torch.no_grad():
        for name in ("self_attn.out_proj", "mlp.fc2"):
            for parameter in layers[0].get_submodule(name).parameters():
                parameter.zero_()
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (4, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    component = checkpoint.component("image_encoder").module
    with torch.no_grad():
        expected = component(pixels)
    influence = layer_influence(component, layers, [(pixels[:3],), (pixels[3:],)])
    assert influence[0] == pytest.approx(0, abs=1e-9)
    assert influence[1] > 1e-3
    drop_layers_(checkpoint.model, STACK, [1])
    with torch.no_grad():
        assert torch.allclose(checkpoint.component("image_encoder").module(pixels), expected, atol=1e-6)


def test_influence_does_not_depend_on_how_samples_are_batched(clip_folder: Path) -> None:
    checkpoint = open_checkpoint(clip_folder)
    layers = checkpoint.model.get_submodule(STACK)
    assert isinstance(layers, nn.ModuleList)
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (5, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    component = checkpoint.component("image_encoder").module
    whole, parts = (
        layer_influence(component, layers, [(pixels,)]),
        layer_influence(component, layers, [(pixels[:2],), (pixels[2:],)]),
    )
    assert torch.allclose(whole, parts, atol=1e-6)
    with pytest.raises(DataError, match="no samples"):
        layer_influence(component, layers, [])


def test_one_layer_has_to_stay(clip_folder: Path) -> None:
    with pytest.raises(RecipeError, match="at least one has to stay"):
        drop_layers_(open_checkpoint(clip_folder).model, STACK, [])
