"""Components with their hidden states and attention maps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.split_attention import Block, split_attentions_
from pocketvl.train.features import FeatureExtractor
from tests.families.tiny import HIDDEN, IMAGE_SIZE, make_tiny_clip
from tests.families.vilt_folder import (
    HEAD_SIZE,
    HEADS,
    LAYER,
    PATCHES,
    TEXT_LENGTH,
    make_vilt_folder,
    vilt_inputs,
)

WIDTH, LENGTH = HEADS * HEAD_SIZE, TEXT_LENGTH + 1 + PATCHES


def test_layers_and_maps_of_an_image_encoder(tmp_path: Path) -> None:
    component = open_checkpoint(make_tiny_clip(tmp_path / "clip")).component("image_encoder").module
    pixels = torch.randint(0, 256, (2, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8)
    layers = ["vision_model.encoder.layers.0", "vision_model.encoder.layers.1"]
    names = [attentions(component)[1].name]
    extractor = FeatureExtractor(component, layers, names, [(HIDDEN, HIDDEN), (HIDDEN, 7)])
    found = extractor(pixels)
    assert [tuple(each.shape) for each in found.hidden] == [(2, 17, HIDDEN), (2, 17, 7)]
    assert torch.allclose(found.attention[0].sum(-1), torch.ones(2, 17), atol=1e-5)
    assert torch.equal(found.output, component(pixels))
    assert len(found.attention) == 1
    extractor.close()
    assert not any(child._forward_hooks for child in component.modules())


def test_layers_and_maps_of_text_and_image_in_one_sequence(tmp_path: Path) -> None:
    component = open_checkpoint(make_vilt_folder(tmp_path / "vilt")).component("fusion").module
    names = [each.name for each in attentions(component)]
    found = FeatureExtractor(component, [f"{LAYER}.1"], names)(*vilt_inputs(3))
    assert [tuple(each.shape) for each in found.hidden] == [(3, LENGTH, WIDTH)]
    assert [tuple(each.shape) for each in found.attention] == [(3, LENGTH, LENGTH)] * 2
    for each in found.attention:
        assert torch.allclose(each.sum(-1), torch.ones(3, LENGTH), atol=1e-5)
        assert each.std() > 1e-4


def test_a_split_attention_has_no_map(tmp_path: Path) -> None:
    opened = open_checkpoint(make_vilt_folder(tmp_path / "vilt"))
    segments = opened.stack("fusion").segments
    assert segments is not None
    name = f"{LAYER}.0.attention.attention"
    split_attentions_(opened.model, segments, [Block(name, "text", "image", 0)])
    extractor = FeatureExtractor(opened.component("fusion").module, attentions=[name])
    with pytest.raises(RecipeError, match=f"attention: {name} gives no attention map"):
        extractor(*vilt_inputs(2))
