"""Checkpoints whose shapes config.json cannot say: saved, opened again, refused where they make no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketvl.compress.heads import prune_heads_
from pocketvl.compress.methods.low_rank import factorise, factorise_
from pocketvl.compress.neurons import prune_neurons_
from pocketvl.compress.shrink import linear
from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.folders.files import COMPRESSION_FILE
from pocketvl.families.layers.blocks import attentions, feed_forwards
from pocketvl.families.layers.compression import read_compression
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip

ROLES = ("image_encoder", "text_encoder")
LAYER = "vision_model.encoder.layers.1"
NAME = "vision_model.encoder.layers.0.mlp.fc1"


def _inputs(role: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    if role == "image_encoder":
        return torch.randint(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(0, 380, (3, TEXT_LENGTH), dtype=torch.int32, generator=generator)
    ids[:, -2:] = 381
    return ids


def _embed(checkpoint: Checkpoint) -> list[torch.Tensor]:
    with torch.no_grad():
        return [checkpoint.component(role).module(_inputs(role)) for role in ROLES]


def _shrunk(folder: Path) -> Checkpoint:
    """Neurons in one layer, a head in another, a rank in a third."""
    checkpoint = open_checkpoint(folder)
    model = checkpoint.model
    prune_neurons_(model, next(each for each in feed_forwards(model) if each.up == NAME), list(range(5, 60)))
    prune_heads_(model, next(each for each in attentions(model) if each.query.startswith(LAYER)), [1])
    name = "text_model.encoder.layers.1.mlp.fc2"
    assert factorise_(model, name, factorise(linear(model, name).weight), 7)
    return checkpoint


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_clip(tmp_path / "clip")


def test_a_trainable_answers_like_the_source(folder: Path) -> None:
    checkpoint, source = open_checkpoint(folder), open_checkpoint(folder)
    for role, found in zip(ROLES, _embed(checkpoint), strict=True):
        component = source.component(role).module
        assert torch.allclose(found, component(_inputs(role)), atol=1e-5)


def test_saved_and_opened_again_it_is_the_same(folder: Path, tmp_path: Path) -> None:
    checkpoint = _shrunk(folder)
    checkpoint.save(tmp_path / "small")
    again = open_checkpoint(tmp_path / "small")
    assert all(map(torch.equal, _embed(checkpoint), _embed(again)))
    assert read_compression(tmp_path / "small").linears.keys() == {
        NAME,
        "vision_model.encoder.layers.0.mlp.fc2",
        *(f"{LAYER}.self_attn.{part}_proj" for part in ("q", "k", "v", "out")),
        "text_model.encoder.layers.1.mlp.fc2",
    }
    source = open_checkpoint(tmp_path / "small")  # as export and verify open it
    for role, found in zip(ROLES, _embed(again), strict=True):
        component = source.component(role).module
        assert torch.allclose(found, component(_inputs(role)), atol=1e-5)
    again.save(tmp_path / "twice")
    for path in (tmp_path / "small").iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes(), path.name


def test_unchanged_it_has_no_compression_file_and_keeps_its_type(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "half", dtype=torch.float16)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.dtype is torch.float16
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / COMPRESSION_FILE).write_text("stale")
    checkpoint.save(tmp_path / "copy")
    assert not (tmp_path / "copy" / COMPRESSION_FILE).exists()
    assert open_checkpoint(tmp_path / "copy").space() == open_checkpoint(folder).space()


def test_values_that_the_stored_type_cannot_hold_are_refused(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_clip(tmp_path / "half", dtype=torch.float16))
    with torch.no_grad():
        linear(checkpoint.model, NAME).weight[0, 0] = 1e6
    with pytest.raises(SourceError, match=r"fc1\.weight holds values that float16 cannot"):
        checkpoint.save(tmp_path / "copy")


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("schema_version", to=2), "is of version 2, and 1 is known"),
        (_set("linears", NAME, "inputs", to="32"), rf"linears\.{NAME}\.inputs"),
        (_set("linears", NAME, "outputs", to=0), "has a size below 1"),
        (_set("linears", NAME, "rank", to=0), "has a size below 1"),
        (_set("linears", NAME, "width", to=3), "width"),
        (
            _set("linears", "vision_model.nothing", to={"inputs": 2, "outputs": 2}),
            "is no linear of this model",
        ),
        (
            _set("linears", "vision_model.encoder", to={"inputs": 2, "outputs": 2}),
            "is no linear of this model",
        ),
        (_set("linears", NAME, "outputs", to=54), r"fc1\.(weight|bias) is \[55"),
        (
            _set("linears", "vision_model.encoder.layers.1.self_attn.q_proj", "outputs", to=9),
            "which heads of 16 do not divide",
        ),
    ],
)
def test_shapes_that_make_no_sense_are_refused(
    folder: Path, tmp_path: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    small = tmp_path / "small"
    _shrunk(folder).save(small)
    path = small / COMPRESSION_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(small)
    assert "\n" not in str(caught.value)


def test_weights_without_their_compression_file_are_refused(folder: Path, tmp_path: Path) -> None:
    _shrunk(folder).save(tmp_path / "small")
    (tmp_path / "small" / COMPRESSION_FILE).unlink()
    with pytest.raises(SourceError, match="the weights lack"):
        open_checkpoint(tmp_path / "small")
