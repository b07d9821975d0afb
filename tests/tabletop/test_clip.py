"""Training a tiny tabletop CLIP: the recipe, what it teaches, and the folder it leaves."""

from __future__ import annotations

from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl.errors import RecipeError, StageError
from pocketvl.families import open_checkpoint
from pocketvl.families.clip import ClipImageEncoder
from pocketvl.tabletop.batches import Batch, TabletopBatches, statement_row
from pocketvl.tabletop.clip import (
    ClipPatchHeadEncoder,
    ClipSettings,
    EncoderSettings,
    ImageObjective,
    build_clip,
)
from pocketvl.tabletop.language import (
    FULL_FORMS,
    LABEL_FORM,
    SHORT_FORM,
    Statement,
    holds,
    sample_statement,
)
from pocketvl.tabletop.oracle import OracleObjective, TabletopOracle
from pocketvl.tabletop.pool import VOCABULARIES, PoolSettings, ScenePool, row_of, scene_of
from pocketvl.tabletop.scene import Look, Relation, sample_scene, scene_rng
from pocketvl.tabletop.tokenizer import EOS_ID, build_tokenizer
from pocketvl.tabletop.train import read_training_recipe
from pocketvl.tabletop.training import (
    PhaseSettings,
    TabletopClipSettings,
    corpus,
    preprocess_spec,
    train_tabletop_clip,
)
from pocketvl.train.settings import LoopSettings, Precision

PHASE = PhaseSettings(
    batch_size=8,
    negatives=3,
    loop=LoopSettings(steps=6, learning_rate=1e-3, warmup_steps=2, save_every=3),
)
TINY = TabletopClipSettings(
    model=ClipSettings(
        image_size=32,
        patch_size=8,
        image=EncoderSettings(32, 1, 2),
        text=EncoderSettings(32, 1, 2),
        text_length=32,
        vocab_size=512,
        embedding_dim=16,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
    ),
    scenes=PoolSettings(seed=1, count=40, paint_size=32),
    oracle=PHASE,
    text=PHASE,
    image=replace(PHASE, loop=replace(PHASE.loop, precision=Precision.BFLOAT16)),
)


def test_a_trained_folder_opens_as_a_source(tmp_path: Path) -> None:
    reports = train_tabletop_clip(TINY, tmp_path / "clip", tmp_path / "work")
    assert list(reports) == ["oracle", "text", "image"]
    source = open_checkpoint(tmp_path / "clip")
    assert source.preprocess.height == 32
    assert source.tokenizer.max_length == 32
    ids = torch.full((1, 32), source.tokenizer.pad_id, dtype=torch.int32)
    assert source.component("text_encoder").module(ids).shape == (1, 16)


@pytest.mark.parametrize("phase", ["text", "image"])
def test_a_training_stopped_in_any_phase_ends_in_the_same_bytes(tmp_path: Path, phase: str) -> None:
    train_tabletop_clip(TINY, tmp_path / "whole", tmp_path / "whole.work")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith(phase) and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tabletop_clip(TINY, tmp_path / "broken", tmp_path / "broken.work", stop)
    assert not (tmp_path / "broken").exists()
    train_tabletop_clip(TINY, tmp_path / "broken", tmp_path / "broken.work")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    with pytest.raises(StageError, match=r"notes\.txt"):
        train_tabletop_clip(TINY, tmp_path / "precious", tmp_path / "work")


def test_rows_hold_all_of_a_scene() -> None:
    for index in range(20):
        scene = sample_scene(scene_rng(8, index))
        again = scene_of(row_of(scene))
        assert [t.look for t in again.things] == [t.look for t in scene.things]
        assert np.allclose([t.x for t in again.things], [t.x for t in scene.things])


def test_a_statement_row_leaves_out_what_the_text_does_not_say() -> None:
    first, second = Look("circle", "orange", "small", "dotted"), Look("ring", "red", "large", "solid")
    related = Statement(first, second, Relation.RIGHT)
    assert statement_row(related, FULL_FORMS[0].tells) == [1, 2, 1, 3, 7, 1, 3, 1, 2]
    assert statement_row(related, SHORT_FORM.tells) == [1, 2, 0, 0, 7, 1, 0, 0, 2]
    assert statement_row(Statement(first), LABEL_FORM.tells) == [1, 0, 0, 0, 0, 0, 0, 0, 0]


def _painted(count: int) -> ScenePool:
    """Scenes whose pictures are noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (count, 32, 32, 3)).astype(np.uint8)
    return ScenePool(pixels, np.stack([row_of(sample_scene(scene_rng(2, k))) for k in range(count)]))


def test_a_batch_is_a_function_of_its_number() -> None:
    pool = _painted(16)
    tokenizer = build_tokenizer(corpus(1), 512)
    batches = TabletopBatches(pool, tokenizer, batch_size=8, negatives=3, seed=4)
    again = TabletopBatches(pool, tokenizer, batch_size=8, negatives=3, seed=4)
    for name, value in vars(batches(5)).items():
        assert torch.equal(value, getattr(again(5), name)), name
    assert not torch.equal(batches(5).pixels, batches(6).pixels)
    assert (batches(0).ids == EOS_ID).any(dim=1).all()


def test_a_batch_says_one_true_thing_a_scene_and_then_false_ones() -> None:
    batch = TabletopBatches(_painted(128), build_tokenizer(corpus(1), 512), 128, negatives=7, seed=0)(0)
    forms = set()
    for row, statements in zip(batch.rows.numpy(), batch.statements.view(128, 8, 9).tolist(), strict=True):
        scene = scene_of(row)
        for place, said in enumerate(statements):
            looks = [_look(said[:4]), _look(said[4:8])]
            tells = [kind for kind in FULL_FORMS[0].tells if getattr(looks[0], kind.value)]
            relation = list(Relation)[said[8] - 1] if said[8] else None
            statement = Statement(looks[0], looks[1] if relation else None, relation)
            assert holds(statement, scene, tells) == (place == 0)
            forms.add(len(tells))
    assert forms == {1, 2, 4}


def _look(row: list[int]) -> Look:
    return Look(*(("", *values)[number] for values, number in zip(VOCABULARIES, row, strict=True)))


def test_the_oracle_can_tell_a_relation_from_its_reverse() -> None:
    torch.manual_seed(0)
    oracle = TabletopOracle(32)
    optimizer = torch.optim.Adam(oracle.parameters(), 3e-3)
    batch = _relations(range(48))
    for step in range(120):
        losses = OracleObjective()(oracle, batch, step)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
    with torch.no_grad():
        scenes, statements, _ = oracle(batch.rows, batch.statements)
    similarity = torch.einsum("bd,bkd->bk", scenes, statements.unflatten(0, (len(scenes), 2)))
    assert (similarity[:, 0] > similarity[:, 1]).float().mean() > 0.9


def _relations(indices: range) -> Batch:
    """Scenes with a true relation and its reverse each, and nothing else said."""
    rows, statements = [], []
    for index in indices:
        scene = sample_scene(scene_rng(3, index))
        if len(scene.things) > 1:
            true = sample_statement(scene, np.random.default_rng(index))
            assert true.relation is not None
            rows.append(row_of(scene))
            said = (true, true._replace(relation=true.relation.reverse))
            statements += [statement_row(s, FULL_FORMS[0].tells) for s in said]
    empty = torch.zeros(0)
    return Batch(empty, empty, torch.from_numpy(np.stack(rows)), torch.tensor(statements))


def test_the_auxiliary_losses_are_gone_at_the_end() -> None:
    clip, oracle = build_clip(TINY.model), TabletopOracle(TINY.model.embedding_dim)
    batch = TabletopBatches(_painted(8), build_tokenizer(corpus(1), 512), 8, 3, 0)(0)
    objective = ImageObjective(oracle, steps=100)
    first, last = (
        objective(
            ClipPatchHeadEncoder(ClipImageEncoder(clip, preprocess_spec(TINY.model)), TINY.model.image.width),
            batch,
            step,
        )
        for step in (0, 100)
    )
    for name in ("patch", "scene"):
        assert first[name].item() > 0
        assert last[name].item() == 0
    assert last["contrast"].item() > 0


def test_the_shipped_recipe_is_valid() -> None:
    settings = read_training_recipe("tabletop-clip")
    assert isinstance(settings, TabletopClipSettings)
    assert settings.model.embedding_dim > 0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("scenes = { seed = 1, count = 9 }", "model: Field required"),
        ("[text]\nbatch_sice = 3", r"text\.batch_sice"),
        ("scenes =", "not TOML"),
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
    text = shipped.read_text("utf-8").replace("layers = 6", "layers = 'six'")
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=r"model\.image\.layers"):
        read_training_recipe(str(tmp_path / "bad.toml"))


SHIPPED = (resources.files("pocketvl.recipes") / "training" / "tabletop-clip.toml").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        ("steps = 1500", "steps = -1", r"oracle\.loop\.steps"),
        ("learning_rate = 3e-3", "learning_rate = -1.0", r"oracle\.loop\.learning_rate"),
        ("learning_rate = 3e-3", "learning_rate = false", r"oracle\.loop\.learning_rate"),
        ("text_length = 32", "text_length = -16", r"model\.text_length"),
        ("image_size = 80", "image_size = -80", r"model\.image_size"),
        ("patch_size = 10", "patch_size = 0", r"model\.patch_size"),
        ("patch_size = 10", "patch_size = 81", "patch_size: 81 pixels are more than the 80 of a picture"),
        ("count = 200000", "count = 0", r"scenes\.count"),
        ("seed = 1\n", "seed = -1\n", r"scenes\.seed"),
        ("seed = 1\n", f"seed = {2**32}\n", r"scenes\.seed"),
        ("batch_size = 256", "batch_size = 0", r"oracle\.batch_size"),
        ("batch_size = 256", 'batch_size = "8"', r"oracle\.batch_size"),
        ("batch_size = 256", "batch_size = 18446744073709551616", "more than 64 bits"),
        ("negatives = 7", "negatives = -7", r"oracle\.negatives"),
        ("negatives = 7", "negatives = 0", r"oracle\.negatives"),
        ("layers = 6", "layers = 0", r"model\.image\.layers"),
        ("heads = 6", "heads = 7", "7 heads do not divide a width of 192"),
        ("vocab_size = 512", "vocab_size = 1", r"model\.vocab_size: .* 260, not 1"),
        ("std = [0.5, 0.5, 0.5]", "std = [0.0, 0.5, 0.5]", r"model\.std\.0"),
        ("std = [0.5, 0.5, 0.5]", "std = [nan, 0.5, 0.5]", r"model\.std\.0"),
        ("mean = [0.5, 0.5, 0.5]", "mean = [0.5, inf, 0.5]", r"model\.mean\.1"),
    ],
)
def test_values_that_cannot_be_name_the_key(tmp_path: Path, old: str, new: str, key: str) -> None:
    assert old in SHIPPED
    (tmp_path / "bad.toml").write_text(SHIPPED.replace(old, new, 1))
    with pytest.raises(RecipeError, match=key):
        read_training_recipe(str(tmp_path / "bad.toml"))
