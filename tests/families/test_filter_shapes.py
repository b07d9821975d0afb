"""Checkpoints with fewer filters: saved, opened again, refused where compression.json makes no sense."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pocketvl.compress.methods.prune_filters import filter_groups, prune_filters_
from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.folders.files import COMPRESSION_FILE
from pocketvl.families.layers.compression import (
    Compression,
    ConvolutionShape,
    compression_of,
    read_compression,
    reshape_,
)
from tests.families.tiny_dual import IMAGE_SIZE, make_tiny_dual

PROJECTION = "visual_projection"
STAGE = "vision_model.encoder.stages"
LAYER = f"{STAGE}.0.layers.0"
NEURONS = f"{LAYER}.pwconv1"


def _pixels(count: int) -> torch.Tensor:
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _embed(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = checkpoint.component("image_encoder").module(_pixels(3))
    return found


def _halved(folder: Path) -> Checkpoint:
    """Of every group of filters half is gone: stages' channels, their layers' neurons."""
    checkpoint = open_checkpoint(folder)
    component = checkpoint.component("image_encoder").module
    groups = filter_groups(component, _pixels(1), [PROJECTION])
    kept = {group.root: group.select(0.5, len(group)) for group in groups}
    prune_filters_(component, _pixels(1), kept, [PROJECTION])
    return checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dual(tmp_path_factory.mktemp("dual") / "tiny")


@pytest.fixture
def small(folder: Path, tmp_path: Path) -> Path:
    _halved(folder).save(tmp_path / "small")
    return tmp_path / "small"


def test_dead_filters_go_without_a_trace(folder: Path, tmp_path: Path) -> None:
    """Neurons that give 0, for whatever reads them, through a file and back, in both ways of opening it."""
    checkpoint = open_checkpoint(folder)
    component = checkpoint.component("image_encoder").module
    dead = [k for k in range(64) if k % 3 == 0]
    up = checkpoint.model.get_submodule(NEURONS)
    assert isinstance(up, nn.Linear)
    with torch.no_grad():
        up.weight[dead], up.bias[dead] = 0, 0  # and GELU(0) is 0
    expected = _embed(checkpoint)
    kept = {NEURONS: [k for k in range(64) if k not in dead]}
    prune_filters_(component, _pixels(1), kept, [PROJECTION])
    assert (_embed(checkpoint) - expected).abs().max() < 1e-5
    checkpoint.save(tmp_path / "small")
    assert read_compression(tmp_path / "small").linears[NEURONS].outputs == 64 - len(dead)
    assert (_embed(open_checkpoint(tmp_path / "small")) - expected).abs().max() < 1e-5
    assert (
        open_checkpoint(tmp_path / "small").component("image_encoder").module(_pixels(3)) - expected
    ).abs().max() < 1e-5


def test_saved_and_opened_again_it_is_the_same(folder: Path, small: Path, tmp_path: Path) -> None:
    checkpoint, again = _halved(folder), open_checkpoint(small)
    assert torch.equal(_embed(checkpoint), _embed(again))
    assert not torch.allclose(_embed(open_checkpoint(folder)), _embed(again), atol=1e-2)
    torch.testing.assert_close(
        open_checkpoint(small).component("image_encoder").module(_pixels(3)), _embed(again), atol=1e-5, rtol=0
    )
    told = read_compression(small)
    assert told.convolutions["vision_model.embeddings.patch_embeddings"] == ConvolutionShape(3, 8)
    assert told.convolutions[f"{LAYER}.dwconv"] == ConvolutionShape(8, 8)
    assert told.convolutions[f"{STAGE}.1.downsampling_layer.1"] == ConvolutionShape(8, 12)
    assert told.channels[f"{LAYER}.layernorm"] == told.channels[f"{LAYER}.layer_scale_parameter"] == 8
    assert told.linears[PROJECTION].inputs == 12
    again.save(tmp_path / "twice")
    for path in small.iterdir():
        assert path.read_bytes() == (tmp_path / "twice" / path.name).read_bytes(), path.name


def test_without_filters_the_file_is_as_it_was_before_they_were_known(folder: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(folder)
    component = checkpoint.component("image_encoder").module
    prune_filters_(component, _pixels(1), {NEURONS: list(range(32))}, [PROJECTION])
    checkpoint.save(tmp_path / "small")
    assert json.loads((tmp_path / "small" / COMPRESSION_FILE).read_text()) == {
        "linears": {
            NEURONS: {"inputs": 16, "outputs": 32, "rank": None},
            f"{LAYER}.pwconv2": {"inputs": 32, "outputs": 16, "rank": None},
        },
        "schema_version": 1,
    }


def test_batch_norms_and_plain_convolutions_take_other_channels() -> None:
    def built(width: int) -> nn.Sequential:
        layers = (nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Conv2d(width, 2 * width, 1, bias=False))
        return nn.Sequential(*layers)

    small = built(5)
    told = compression_of(small, built(7))
    assert told == Compression(
        convolutions={"0": ConvolutionShape(3, 5), "2": ConvolutionShape(5, 10)}, channels={"1": 5}
    )
    again = built(7)
    reshape_(again, told, Path())
    again.load_state_dict(small.state_dict())
    pixels = torch.rand(2, 3, 8, 8)
    assert torch.equal(small.train(False)(pixels), again.train(False)(pixels))


def test_what_the_file_cannot_say_is_refused() -> None:
    with pytest.raises(SourceError, match="0 has become something that compression.json cannot say"):
        compression_of(nn.Sequential(nn.Conv2d(4, 4, 1, groups=2)), nn.Sequential(nn.Conv2d(4, 4, 1)))
    with pytest.raises(SourceError, match="0.weight has become something"):
        compression_of(nn.Sequential(nn.Embedding(4, 3)), nn.Sequential(nn.Embedding(4, 4)))


def _set(*keys: str, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        for key in keys[:-1]:
            document = document[key]
        document[keys[-1]] = to

    return change


SHAPE = {"inputs": 8, "outputs": 8}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_set("convolutions", f"{LAYER}.dwconv", "inputs", to="8"), r"dwconv\.inputs"),
        (_set("convolutions", f"{LAYER}.dwconv", "groups", to=8), r"dwconv\.groups"),
        (_set("convolutions", f"{LAYER}.dwconv", "inputs", to=0), "has a size below 1"),
        (
            _set("convolutions", f"{LAYER}.dwconv", "outputs", to=7),
            "8 groups, which do not divide 8 .* and 7",
        ),
        (_set("convolutions", f"{LAYER}.dwconv", to={"inputs": 9, "outputs": 9}), r"dwconv\.\w+ is \[8"),
        (_set("convolutions", NEURONS, to=SHAPE), "pwconv1 is no convolution of this model"),
        (_set("convolutions", "nothing", to=SHAPE), "nothing is no convolution of this model"),
        (_set("channels", f"{LAYER}.layernorm", to=0), "has a size below 1"),
        (_set("channels", f"{LAYER}.layernorm", to=[8]), "layernorm"),
        (_set("channels", f"{LAYER}.layernorm", to=9), r"layernorm\.\w+ is \[8\]"),
        (_set("channels", "nothing", to=8), "nothing is neither a norm nor a vector"),
        (_set("channels", f"{NEURONS}.bias", to=8), "bias is neither a norm nor a vector"),
        (_set("channels", "logit_scale", to=8), "logit_scale is neither a norm nor a vector"),
        (_set("channels", NEURONS, to=8), "pwconv1 is neither a norm nor a vector"),
    ],
)
def test_shapes_that_make_no_sense_are_refused(
    small: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    path = small / COMPRESSION_FILE
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(small)
    assert "\n" not in str(caught.value)
