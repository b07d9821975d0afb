"""Training a tiny tabletop CLIP: the recipe, what it teaches, and the folder it leaves."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.data.tabletop.language import Statement
from pocketvl.data.tabletop.scene import Relation, sample_scene, scene_rng
from pocketvl.errors import RecipeError, TrainingError
from pocketvl.families import open_source
from pocketvl.recipes.train import read_training_recipe
from pocketvl.train.loop import LoopSettings
from pocketvl.train.tabletop import TabletopClipSettings, _corpus, train_tabletop_clip
from pocketvl.train.tabletop_batches import ROLES, TabletopBatches, _said, _scene_roles
from pocketvl.train.tabletop_clip import ClipSettings, TabletopClip, TabletopObjective, TowerSettings
from pocketvl.train.tabletop_pool import PoolSettings, ScenePool, row_of, scene_of
from pocketvl.train.tokenizer import EOS_ID, build_tokenizer

TINY = TabletopClipSettings(
    model=ClipSettings(
        image_size=32,
        patch_size=8,
        image=TowerSettings(32, 1, 2),
        text=TowerSettings(32, 1, 2),
        text_length=32,
        vocab_size=512,
        embedding_dim=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    scenes=PoolSettings(seed=1, count=40, paint_size=32),
    loop=LoopSettings(steps=6, learning_rate=1e-3, warmup_steps=2, save_every=3),
    batch_size=8,
    negatives=3,
)


def test_a_trained_folder_opens_as_a_source_and_can_be_trained_on(tmp_path: Path) -> None:
    train_tabletop_clip(TINY, tmp_path / "clip", tmp_path / "work")
    source = open_source(tmp_path / "clip")
    assert source.preprocess.height == 32
    assert source.tokenizer.length == 32
    ids = torch.full((1, 32), source.tokenizer.pad_id, dtype=torch.int32)
    assert source.text_encoder(ids).shape == (1, 16)
    on = replace(TINY, start_from=tmp_path / "clip", loop=replace(TINY.loop, steps=1))
    train_tabletop_clip(on, tmp_path / "more", tmp_path / "work2")
    assert (tmp_path / "more" / "model.safetensors").stat().st_size > 0


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    with pytest.raises(TrainingError, match="not a checkpoint folder"):
        train_tabletop_clip(TINY, tmp_path / "precious", tmp_path / "work")


def test_rows_hold_all_of_a_scene() -> None:
    for index in range(20):
        scene = sample_scene(scene_rng(8, index))
        again = scene_of(row_of(scene))
        assert [t.look for t in again.things] == [t.look for t in scene.things]
        assert np.allclose([t.x for t in again.things], [t.x for t in scene.things])


def test_roles_say_who_is_left_of_whom() -> None:
    scene = next(s for s in (sample_scene(scene_rng(8, k)) for k in range(50)) if len(s.things) == 2)
    roles = _scene_roles(scene)
    assert roles[0, :2].tolist() == [0.5, 0.5]
    assert roles.sum(axis=1).max() == 1.0
    first, second = scene.things
    said = _said(Statement(first.look, second.look, Relation.LEFT))
    assert said[ROLES.index("left")].tolist() == [1.0, 0.0]
    assert said[ROLES.index("right")].tolist() == [0.0, 1.0]
    assert said[ROLES.index("above")].sum() == 0


def test_a_batch_is_a_function_of_its_number() -> None:
    rng = np.random.default_rng(0)
    scenes = [sample_scene(scene_rng(2, k)) for k in range(16)]
    pool = ScenePool(
        rng.integers(0, 255, (16, 32, 32, 3)).astype(np.uint8), np.stack([row_of(s) for s in scenes])
    )
    tokenizer = build_tokenizer(_corpus(1), 512)
    batches = TabletopBatches(pool, tokenizer, batch_size=8, negatives=3, seed=4)
    again = TabletopBatches(pool, tokenizer, batch_size=8, negatives=3, seed=4)
    for name, value in vars(batches(5)).items():
        assert torch.equal(value, getattr(again(5), name)), name
    assert not torch.equal(batches(5).pixels, batches(6).pixels)
    assert (batches(0).ids == EOS_ID).any(dim=1).all()


def test_the_auxiliary_losses_are_gone_at_the_end() -> None:
    module = TabletopClip(TINY.model)
    scenes = [sample_scene(scene_rng(2, k)) for k in range(8)]
    pool = ScenePool(np.zeros((8, 32, 32, 3), np.uint8), np.stack([row_of(s) for s in scenes]))
    tokenizer = build_tokenizer(_corpus(1), 512)
    batch = TabletopBatches(pool, tokenizer, 8, 3, 0)(0)
    first, last = (TabletopObjective(100)(module, batch, step) for step in (0, 100))
    for name in ("patch", "image_roles", "text_roles"):
        assert float(first[name]) > 0
        assert float(last[name]) == 0
    assert float(last["contrast"]) > 0


def test_the_shipped_recipe_is_valid() -> None:
    assert read_training_recipe("tabletop-clip").model.embedding_dim > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("batch_size = 3", "model: Field required"),
        ("batch_sice = 3", "batch_sice"),
        ("batch_size =", "not TOML"),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=complaint):
        read_training_recipe(str(tmp_path / "bad.toml"))


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match="tabletop-clip"):
        read_training_recipe("nothing")


def test_a_value_of_the_wrong_type_names_the_key(tmp_path: Path) -> None:
    shipped = resources.files("pocketvl.recipes") / "training" / "tabletop-clip.toml"
    text = shipped.read_text("utf-8").replace("layers = 5", "layers = 'five'")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"model\.image\.layers"):
        read_training_recipe(str(tmp_path / "bad.toml"))
