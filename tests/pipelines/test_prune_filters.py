"""Pruning a dual encoder by a recipe: filters of its ConvNeXt, neurons and heads of its BERT."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.compress import Compressed, CompressRequest, compress
from pocketvl.tabletop.folder import write_tabletop
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import EMBEDDING_DIM, IMAGE_SIZE, make_tiny_dual

RECIPE = """
[[steps]]
kind = "prune-filters"
ratio = 0.5
rounds = 2
score = "taylor"
learn = { phases = [{ components = ["image_encoder"], steps = 2 }], batch_size = 8 }

[[steps]]
kind = "prune"
units = ["neurons", "heads"]
ratio = 0.5
components = ["text_encoder"]
learn.phases = [{ components = ["text_encoder"], steps = 2 }, { steps = 2 }]
learn.batch_size = 8
learn.losses = { contrast = 0.5 }

[[steps]]
kind = "drop-layers"
keep = { text_encoder = 1 }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("dual")
    (root / "data").mkdir()
    write_tabletop(root / "data", 22, 24, size=40)
    make_tiny_dual(root / "dual")
    make_tiny_clip(root / "clip")
    return root


def _compress(folder: Path, source: str, text: str, out: Path) -> Compressed:
    recipe = out.with_suffix(".toml")
    recipe.write_text(text)
    request = CompressRequest(folder / source, str(recipe), folder / "data", out)
    return compress(request, out.with_suffix(".cache"))


def test_filters_neurons_heads_and_layers_go(folder: Path, tmp_path: Path) -> None:
    done = _compress(folder, "dual", RECIPE, tmp_path / "small")
    assert done.after.parameters < 0.6 * done.before.parameters
    assert done.after.macs < 0.6 * done.before.macs
    model = open_checkpoint(tmp_path / "small").model
    stage = "vision_model.encoder.stages.1"
    assert model.get_parameter(f"{stage}.layers.0.pwconv1.weight").shape == (48, 12)
    assert model.get_parameter(f"{stage}.layers.0.layer_scale_parameter").shape == (12,)
    assert model.get_parameter("visual_projection.weight").shape == (EMBEDDING_DIM, 12)
    text = "text_model.encoder.layer.0"
    assert model.get_parameter(f"{text}.intermediate.dense.weight").shape == (32, 32)
    assert model.get_parameter(f"{text}.attention.self.query.weight").shape == (16, 32)
    source = open_checkpoint(tmp_path / "small")
    pixels = torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    assert source.component("image_encoder").module(pixels).norm().item() == pytest.approx(1, abs=1e-5)
    log = json.loads((tmp_path / "small" / "compress.json").read_text())["steps"]
    assert [each["step"] for each in log] == [
        "prune 44% of filters",
        "distil from the teacher",
        "prune 50% of filters",
        "distil from the teacher",
        "prune neurons and heads",
        "distil from the teacher",
        "drop layers",
    ]
    assert log[2]["done"]["vision_model.encoder.stages.0.layers.1.pwconv2"] == [8, 16]


@pytest.mark.parametrize(
    ("source", "step", "complaint"),
    [
        ("clip", 'kind = "prune-filters"\nratio = 0.5', "no convolutions but its patch embedding"),
        (
            "dual",
            'kind = "drop-layers"\nkeep = { image_encoder = 1 }',
            "the image_encoder is no stack of transformer layers",
        ),
        ("dual", 'kind = "prune"\nratio = 0.5', "the image_encoder is no stack of transformer layers"),
        ("dual", 'kind = "low-rank"\nratio = 0.5', "the image_encoder is no stack of transformer layers"),
        ("dual", 'kind = "sparsify"\nsparsity = 0.5', "the image_encoder is no stack of transformer layers"),
        (
            "dual",
            'kind = "learn"\nlearn = { phases = [{ steps = 2 }], batch_size = 8, losses = { hidden = 1.0 } }',
            "the image_encoder is no stack of transformer layers",
        ),
    ],
)
def test_what_a_component_is_not_made_for_is_one_clear_line(
    folder: Path, tmp_path: Path, source: str, step: str, complaint: str
) -> None:
    with pytest.raises(RecipeError, match=complaint) as caught:
        _compress(folder, source, f"[[steps]]\n{step}\n", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
