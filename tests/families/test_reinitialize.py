"""Students with randomly initialised components of other shapes in place of a checkpoint's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.component_shape import ComponentShape
from tests.families.tiny import IMAGE_SIZE, make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual

SHAPES: dict[str, ComponentShape] = {
    "image_encoder": ComponentShape(width=24, layers=3, heads=2),
    "text_encoder": ComponentShape(width=12, layers=1, heads=3, neurons=20),
}


def _fresh(folder: Path, seed: int = 0) -> Checkpoint:
    checkpoint = open_checkpoint(folder)
    checkpoint.reinitialize_(SHAPES, seed)
    return checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_clip(tmp_path / "clip")


def test_the_components_have_the_shapes_asked_for_and_keep_the_space(folder: Path) -> None:
    old, new = open_checkpoint(folder), _fresh(folder)
    state = new.model.state_dict()
    assert state["vision_model.encoder.layers.2.mlp.fc1.weight"].shape == (96, 24)
    assert state["text_model.encoder.layers.0.mlp.fc1.weight"].shape == (20, 12)
    assert "text_model.encoder.layers.1.mlp.fc1.weight" not in state
    assert {role: stack.width for role, stack in new.stacks.items()} == {
        "image_encoder": 24,
        "text_encoder": 12,
    }
    assert torch.equal(state["logit_scale"], old.model.state_dict()["logit_scale"])
    pixels = torch.full((2, IMAGE_SIZE, IMAGE_SIZE, 3), 100, dtype=torch.uint8)
    shapes = {each.component("image_encoder").module(pixels).shape for each in (old, new)}
    assert len(shapes) == 1


def test_weights_are_those_of_the_seed_whatever_was_drawn_before(folder: Path) -> None:
    first = _fresh(folder).model.state_dict()
    torch.rand(3)
    second, other = _fresh(folder).model.state_dict(), _fresh(folder, seed=1).model.state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    name = "vision_model.encoder.layers.0.mlp.fc1.weight"
    assert not torch.equal(first[name], other[name])
    assert 0 < float(first[name].std()) < 1


def test_it_is_saved_and_opened_like_any_other(folder: Path, tmp_path: Path) -> None:
    checkpoint = _fresh(folder)
    checkpoint.save(tmp_path / "fresh")
    again = open_checkpoint(tmp_path / "fresh")
    pixels = torch.full((2, IMAGE_SIZE, IMAGE_SIZE, 3), 100, dtype=torch.uint8)
    found, wanted = (each.component("image_encoder").module(pixels) for each in (again, checkpoint))
    torch.testing.assert_close(found, wanted)
    assert not (tmp_path / "fresh" / "compression.json").exists()


def test_a_family_without_such_shapes_says_so(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_dual(tmp_path / "dual"))
    with pytest.raises(RecipeError, match="cannot be reinitialised in other shapes"):
        checkpoint.reinitialize_(SHAPES, 0)
