"""`pocketvl compress` of a ViLT: what a recipe may say, what is done, and what the log says of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketvl.data.dataset import write_samples
from pocketvl.errors import RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.split_attention import removed_blocks
from pocketvl.pipelines.compress import CompressRequest, compress
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import CompressCheckpoint
from pocketvl.pipelines.stages.training import TeacherOutputs, TrainingData, TrainStudent
from pocketvl.recipes.compress_recipe import read_compress_recipe
from pocketvl.stage import Stage
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime.errors import PocketVLError
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import (
    HEAD_SIZE,
    HEADS,
    LAYERS,
    PATCHES,
    TEXT_LENGTH,
    make_vilt_folder,
    vilt_inputs,
)

RECIPE = """
[[steps]]
kind = "prune-cross-modal"
ratio = 0.5
rounds = 2
schedule = "linear"
learn = { phases = [{ steps = 2 }], batch_size = 8, losses = { response = 1.0, answer = 0.5 } }

[[steps]]
kind = "prune"
units = ["neurons", "heads"]
ratio = 0.5
score = "gate"

[[steps]]
kind = "sparsify"
sparsity = 0.25
components = ["fusion"]
learn = { phases = [{ steps = 2 }], batch_size = 8, losses = { response = 0.0, answer = 1.0 } }
"""
SMALLER = """
[[steps]]
kind = "drop-layers"
keep = { fusion = 1 }

[[steps]]
kind = "low-rank"
ratio = 0.25

[[steps]]
kind = "qat"
precision = "int4"
training = { phases = [{ steps = 2 }], batch_size = 8, save_every = 1 }
"""
BLOCKS = 2 * LAYERS * HEADS


@dataclass(frozen=True)
class World:
    """A tiny ViLT, questions for it, and what compressing it left."""

    source: Path
    data: Path
    small: Path
    cache: Path
    log: list[dict[str, Any]]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    root = tmp_path_factory.mktemp("compress-vilt")
    source = make_vilt_folder(root / "vilt")
    (root / "data").mkdir()
    write_tabletop(root / "data", seed=3, count=8, size=32)
    (root / "recipe.toml").write_text(RECIPE)
    request = CompressRequest(source, str(root / "recipe.toml"), root / "data", root / "small")
    compress(request, root / "cache")
    log = json.loads((root / "small" / "compress.json").read_text())["steps"]
    return World(source, root / "data", root / "small", root / "cache", log)


def test_what_went_and_why_is_in_the_log(world: World) -> None:
    titles = [step["step"] for step in world.log]
    assert titles == [
        "prune cross-modal attention",
        "distil from the teacher",
        "prune cross-modal attention",
        "distil from the teacher",
        "prune neurons and heads",
        "prune 25% of weights",
        "train on labels",
    ]
    for step, gone in ((world.log[0], BLOCKS // 4), (world.log[2], BLOCKS // 2)):
        done = step["done"]
        assert len(done["removed"]) == gone
        assert done["of"] == BLOCKS
        assert {len(heads) for pairs in done["scores"].values() for heads in pairs.values()} == {HEADS}
        for block in done["removed"]:
            scores = done["scores"][block["attention"]]
            assert set(scores) == {f"{a}_{b}" for a in ("text", "image") for b in ("text", "image")}
    first = world.log[0]
    saved = first["before"]["fusion"]["macs"] - first["after"]["fusion"]["macs"]
    assert saved == BLOCKS // 4 * 2 * TEXT_LENGTH * (1 + PATCHES) * HEAD_SIZE
    assert {(b["attention"], b["queries"], b["head"]) for b in first["done"]["removed"]} <= {
        (b["attention"], b["queries"], b["head"]) for b in world.log[2]["done"]["removed"]
    }
    assert set(world.log[1]["losses"]["1-fusion"]) == {"response", "answer"}
    assert set(world.log[-1]["losses"]["1-fusion"]) == {"answer"}


def test_a_compressed_vilt_can_be_compressed_again(world: World, tmp_path: Path) -> None:
    (tmp_path / "more.toml").write_text(SMALLER)
    request = CompressRequest(world.small, str(tmp_path / "more.toml"), world.data, tmp_path / "smaller")
    done = compress(request, world.cache)
    assert done.after.macs < done.before.macs
    small, smaller = open_checkpoint(world.small), open_checkpoint(tmp_path / "smaller")
    assert isinstance(smaller, Checkpoint)
    assert smaller.config["num_hidden_layers"] == 1
    assert {block.attention for block in removed_blocks(smaller.model)} <= {
        "vilt.encoder.layer.0.attention.attention"
    }
    with torch.no_grad():
        for each in (small, smaller):
            assert torch.isfinite(each.component("fusion").module(*vilt_inputs())).all()
    assert len(removed_blocks(small.model)) >= 1


def _steps(tmp_path: Path, source: Path, *texts: str) -> tuple[Stage, ...]:
    (tmp_path / "recipe.toml").write_text("\n".join(f"[[steps]]\n{text}" for text in texts))
    return stages_of(source, tmp_path, read_compress_recipe(str(tmp_path / "recipe.toml")))


def test_rounds_go_further_and_only_a_response_runs_the_teacher(world: World, tmp_path: Path) -> None:
    learn = "learn = { phases = [{ steps = 1 }], losses = { response = 0, answer = 1 } }"
    step = 'kind = "prune-cross-modal"\nratio = 0.8\nrounds = 2\ngrain = "layer"\nscore = "position"\n'
    stages = _steps(
        tmp_path, world.source, step + learn, 'kind = "learn"\nlearn = { phases = [{ steps = 1 }] }'
    )
    assert [type(stage) for stage in stages] == [
        CompressCheckpoint, TrainStudent, CompressCheckpoint, TrainStudent, TrainStudent,
    ]  # fmt: skip
    pruned = [stage for stage in stages if isinstance(stage, CompressCheckpoint)]
    assert [stage.fraction for stage in pruned] == [0.875, 1]
    learned = [stage for stage in stages if isinstance(stage, TrainStudent)]
    assert [len(stage.outputs) for stage in learned] == [0, 0, 1]
    assert isinstance(learned[0].data, TrainingData)
    assert isinstance(learned[2].outputs[0], TeacherOutputs)
    assert learned[2].outputs[0].mirrored


LOSSES = "losses = { response = 0, answer = 0 }"


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        (
            ('kind = "prune"\nratio = 0.5\ncomponents = ["text_encoder"]',),
            "no component 'text_encoder', only fusion",
        ),
        (('kind = "drop-layers"\nkeep = { text_encoder = 1 }',), "no component 'text_encoder', only fusion"),
        (
            ('kind = "qat"\ntraining.phases = [{ components = ["image_encoder"], steps = 1 }]',),
            "no component 'image_encoder', only fusion",
        ),
        (
            ('kind = "qat"\ntraining = { phases = [{ steps = 1 }], losses = { contrast = 1 } }',),
            "losses.contrast is for another kind of model",
        ),
        (
            ('kind = "learn"\nlearn = { phases = [{ components = ["image_encoder"], steps = 3 }] }',),
            "this model has no component 'image_encoder', only fusion",
        ),
        (
            ('kind = "learn"\nlearn = { phases = [{ steps = 3 }], losses = { contrast = 1 } }',),
            r"losses\.contrast is for another kind of model",
        ),
        (
            (f'kind = "learn"\nlearn = {{ phases = [{{ steps = 3 }}], {LOSSES} }}',),
            "learns from response, hidden, attention or answer",
        ),
        (
            (
                'kind = "low-rank"\nratio = 0.5',
                'kind = "prune-cross-modal"\nratio = 0.5',
            ),
            "low-rank comes before prune-cross-modal",
        ),
        (('kind = "prune-cross-modal"\nratio = 1.5',), r"steps\[0\]\.ratio: .*equal to 1, not 1\.5"),
        (
            ('kind = "prune-cross-modal"\nratio = 0.5\nrounds = 0',),
            r"steps\[0\]\.rounds: .*equal to 1, not 0",
        ),
        (('kind = "prune-cross-modal"\nratio = 0.5\nscore = "taylor"',), r"steps\[0\]\.score"),
    ],
)
def test_what_makes_no_sense_for_a_vilt(
    world: World, tmp_path: Path, steps: tuple[str, ...], complaint: str
) -> None:
    with pytest.raises(RecipeError, match=complaint):
        _steps(tmp_path, world.source, *steps)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        ('kind = "prune-cross-modal"\nratio = 0.5', "in which text and image meet in attention"),
        (
            'kind = "prune"\nratio = 0.5\ncomponents = ["fusion"]',
            "'fusion', only image_encoder, text_encoder",
        ),
        (
            'kind = "learn"\nlearn = { phases = [{ steps = 1 }], losses = { answer = 1 } }',
            r"losses\.answer is for another kind",
        ),
    ],
)
def test_what_makes_no_sense_for_two_encoders(tmp_path: Path, step: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        _steps(tmp_path, make_tiny_clip(tmp_path / "clip"), step)


@pytest.mark.parametrize(
    ("qa", "complaint"),
    [
        ({"question": "is it so?", "answer": "maybe"}, "the answer 'maybe' is none of those that the model"),
        ({"question": "is it so?"}, "needs a question and an answer"),
        (None, r"training needs questions with answers \(qa\)"),
    ],
)
def test_data_that_cannot_be_asked_about(
    world: World, tmp_path: Path, qa: dict[str, str] | None, complaint: str
) -> None:
    root = tmp_path / "data"
    root.mkdir()
    (root / "0.jpg").write_bytes((world.data / "images" / "0000.jpg").read_bytes())
    write_samples(root, [{"image": "0.jpg", "qa": [] if qa is None else [qa, qa]}])
    (tmp_path / "recipe.toml").write_text('[[steps]]\nkind = "prune-cross-modal"\nratio = 0.5\n')
    request = CompressRequest(world.source, str(tmp_path / "recipe.toml"), root, tmp_path / "out")
    with pytest.raises(PocketVLError, match=complaint):
        compress(request, tmp_path / "cache")
    assert not (tmp_path / "out").exists()
