"""Training a tiny tabletop ViLT: what it is asked, what it is shown, and the folder it leaves."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from pocketvl.errors import RecipeError, StageError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.vilt import ViltFusion
from pocketvl.tabletop.clip import under_patches
from pocketvl.tabletop.language import ANSWERS
from pocketvl.tabletop.pool import PoolSettings, ScenePool, row_of, scene_of
from pocketvl.tabletop.questions import QUESTION_TYPES, AnswerBatches, Questions, ask, mentions
from pocketvl.tabletop.scene import COLOURS, SHAPES, Look, Scene, Thing, sample_scene, scene_rng
from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer
from pocketvl.tabletop.train import read_training_recipe, train
from pocketvl.tabletop.training import corpus, preprocess_spec
from pocketvl.tabletop.vilt import (
    AnswerObjective,
    AnswerPhase,
    FusionWithPatchHeads,
    TabletopViltSettings,
    build_vilt,
    things_meant,
    train_tabletop_vilt,
)
from pocketvl.train.settings import LoopSettings, Precision
from tests.families.vilt_folder import IMAGE_SIZE, SHAPE, TEXT_LENGTH

PHASE = AnswerPhase(
    batch_size=8,
    rounds=1,
    naming_layer=1,
    referring_layer=1,
    loop=LoopSettings(steps=6, learning_rate=1e-3, warmup_steps=2, save_every=3),
)
TINY = TabletopViltSettings(SHAPE, PoolSettings(seed=1, count=24, paint_size=32), PHASE)


@pytest.fixture(scope="module")
def pool() -> ScenePool:
    """Scenes whose pictures are noise."""
    pixels = np.random.default_rng(0).integers(0, 255, (160, IMAGE_SIZE, IMAGE_SIZE, 3)).astype(np.uint8)
    return ScenePool(pixels, np.stack([row_of(sample_scene(scene_rng(2, k))) for k in range(160)]))


@pytest.fixture(scope="module")
def questions(pool: ScenePool) -> Questions:
    return ask(pool.rows, seed=0, rounds=2)


@cache
def _tokenizer() -> Tokenizer:
    return build_tokenizer(corpus(1), 512)


def _batches(
    pool: ScenePool, questions: Questions, size: int = 64, length: int = TEXT_LENGTH
) -> AnswerBatches:
    return AnswerBatches(pool, questions, _tokenizer(), length, size, seed=4)


def test_a_training_stopped_midway_ends_in_the_same_bytes_and_opens(tmp_path: Path) -> None:
    settings = replace(TINY, answer=replace(PHASE, loop=replace(PHASE.loop, precision=Precision.BFLOAT16)))
    report = train_tabletop_vilt(settings, tmp_path / "whole", tmp_path / "whole.work")
    assert len(report.losses) == 6

    shutil.copytree(tmp_path / "whole.work" / "scenes", tmp_path / "broken.work" / "scenes")

    def stop(done: int, total: int, what: str) -> None:
        if what.startswith("answer") and done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_tabletop_vilt(settings, tmp_path / "broken", tmp_path / "broken.work", stop)
    assert not (tmp_path / "broken").exists()
    train_tabletop_vilt(settings, tmp_path / "broken", tmp_path / "broken.work")
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
    assert weights[0] == weights[1]
    opened = open_checkpoint(tmp_path / "whole")
    assert isinstance(opened, Checkpoint)
    assert opened.contract.label_head.labels == ANSWERS
    other = replace(settings, answer=replace(settings.answer, referring=1.0))
    with pytest.raises(TrainingError, match="holds a training of another model"):
        train_tabletop_vilt(other, tmp_path / "broken", tmp_path / "broken.work")


def test_a_folder_that_is_no_checkpoint_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "notes.txt").write_text("mine")
    with pytest.raises(StageError, match=r"notes\.txt"):
        train_tabletop_vilt(TINY, tmp_path / "precious", tmp_path / "work")


def test_a_batch_asks_what_is_true_of_its_pictures(pool: ScenePool, questions: Questions) -> None:
    """Whatever is mirrored, the answer is right of the rows, and the pixels are of that scene."""
    batch = _batches(pool, questions)(3)
    assert 0 < batch.mirrored.sum() < len(batch.mirrored)
    checked = 0
    for k, row in enumerate(batch.rows.numpy()):
        meant = batch.mentions[k].tolist()
        scene, answer = scene_of(row), ANSWERS[batch.answers[k]]
        if meant[2]:
            first, second = (_find(scene, *meant[at : at + 2]) for at in (0, 2))
            side = {"left": second.x - first.x, "right": first.x - second.x}
            side |= {"above": second.y - first.y, "below": first.y - second.y}
            assert side[answer] > 0.1
            checked += 1
        source = pool.images[_scene_of(pool, row, bool(batch.mirrored[k]))]
        assert np.array_equal(batch.pixels[k].numpy(), source)
    assert checked > 5


def _scene_of(pool: ScenePool, row: np.ndarray, mirrored: bool) -> int:
    row = row.copy()
    if mirrored:
        row[:, 4] = 1 - row[:, 4]
    return int(np.abs(pool.rows - row).max((1, 2)).argmin())


def _find(scene: Scene, shape: int, colour: int) -> Thing:
    wanted = (SHAPES[shape - 1], COLOURS[colour - 1])
    return next(t for t in scene.things if (t.look.shape, t.look.colour) == wanted)


def test_types_come_up_alike_and_no_answer_is_always_right(pool: ScenePool, questions: Questions) -> None:
    batches = _batches(pool, questions, size=256)
    texts = {tuple(row): text for row, text in zip(batches.ids.tolist(), questions.texts, strict=True)}
    kinds = {questions.texts[row[1]]: QUESTION_TYPES[row[3]] for row in questions.asked.tolist()}
    seen = Counter[tuple[str, str]]()
    for step in range(8):
        batch = batches(step)
        for ids, answer in zip(batch.ids.tolist(), batch.answers.tolist(), strict=True):
            seen[kinds[texts[tuple(ids)]], ANSWERS[answer]] += 1
    total = sum(seen.values())
    for kind in QUESTION_TYPES:
        counts = [count for (own, _), count in seen.items() if own == kind]
        assert 0.15 < sum(counts) / total < 0.25
        assert max(counts) / sum(counts) < 0.65
    asked = [int(row[2]) for row in questions.asked if QUESTION_TYPES[row[3]] == "count"]
    natural = asked.count(ANSWERS.index("one")) / len(asked)
    drawn = [count for (own, _), count in seen.items() if own == "count"]
    assert seen["count", "one"] / sum(drawn) < natural - 0.05


def test_a_batch_is_a_function_of_its_number(pool: ScenePool, questions: Questions) -> None:
    batches, again = _batches(pool, questions), _batches(pool, questions)
    for name, value in vars(batches(5)).items():
        assert torch.equal(value, getattr(again(5), name)), name
    assert not torch.equal(batches(5).ids, batches(6).ids)
    with pytest.raises(TrainingError, match="a question has 14 tokens, and the model reads 9"):
        _batches(pool, questions, length=9)


@pytest.mark.parametrize(
    ("question", "meant"),
    [
        ("what colour is the triangle?", [3, 0, 0, 0]),
        ("what shape is the red object?", [0, 1, 0, 0]),
        ("how many objects are there?", [0, 0, 0, 0]),
        ("how many blue objects are there?", [0, 6, 0, 0]),
        ("is there an orange ring?", [7, 2, 0, 0]),
        ("where is the pink star, seen from the green circle?", [4, 8, 1, 4]),
    ],
)
def test_what_a_question_is_about(question: str, meant: list[int]) -> None:
    assert mentions(question) == meant


def test_the_patches_that_a_question_is_about() -> None:
    looks = (Look("circle", "red", "large", "solid"), Look("ring", "red", "large", "solid"))
    scene = Scene((Thing(looks[0], 0.25, 0.25, 0.2, 0.0), Thing(looks[1], 0.75, 0.75, 0.2, 0.0)))
    rows = torch.from_numpy(row_of(scene))[None].expand(3, -1, -1)
    asked = torch.tensor([[1, 1, 7, 1], [0, 1, 0, 0], [2, 2, 0, 0]])  # both; all red; what is not there
    assert things_meant(rows, asked)[:, :2].tolist() == [
        [[True, False], [False, True]],
        [[True, False], [True, False]],
        [[False, False], [False, False]],
    ]
    covered, which = under_patches(rows, 16)
    assert {int(place) for place in which[0][covered[0]]} == {0, 1}


def test_it_learns_colours_it_is_shown(pool: ScenePool, questions: Questions) -> None:
    """Of pictures that are of one colour as a whole: better than the same answer to everything."""
    asked = questions.asked[questions.asked[:, 3] == QUESTION_TYPES.index("colour")]
    images = np.zeros_like(pool.images)
    asked = asked[np.unique(asked[:, 0], return_index=True)[1]]
    for scene, _, answer, _ in asked.tolist():
        images[scene] = np.random.default_rng(answer).integers(0, 255, 3)
    batches = _batches(ScenePool(images, pool.rows), Questions(questions.texts, asked), size=32)
    torch.manual_seed(0)
    phase = replace(PHASE, naming=0.1, referring=0.1, loop=replace(PHASE.loop, steps=80))
    spec = preprocess_spec(SHAPE)
    module = FusionWithPatchHeads(ViltFusion(build_vilt(SHAPE), spec, PAD_ID), SHAPE, phase)
    optimizer = torch.optim.AdamW(module.parameters(), 3e-3)
    found = []
    for step in range(phase.loop.steps):
        losses = AnswerObjective(phase)(module, batches(step), step)
        optimizer.zero_grad()
        torch.autograd.backward(torch.stack(list(losses.values())).sum())
        optimizer.step()
        found.append(losses["answer"].item())
    assert np.mean(found[-10:]) < 1.2 < np.mean(found[:10])  # always the same: 2.0


def test_what_helps_has_faded_at_the_end(pool: ScenePool, questions: Questions) -> None:
    module = FusionWithPatchHeads(ViltFusion(build_vilt(SHAPE), preprocess_spec(SHAPE), PAD_ID), SHAPE, PHASE)
    batch = _batches(pool, questions, size=8)(0)
    first, last = (AnswerObjective(PHASE)(module, batch, step) for step in (0, 6))
    for name in ("naming", "referring"):
        assert first[name].item() > 0
        assert last[name].item() == 0
    assert last["answer"].item() > 0


def test_the_shipped_recipe_is_valid() -> None:
    assert isinstance(read_training_recipe("tabletop-vilt"), TabletopViltSettings)


RECIPE = """
scenes = { seed = 1, count = 9 }
[model]
kind = "vilt"
image_size = 32
patch_size = 8
width = 32
layers = 1
heads = 2
text_length = 16
vocab_size = 512
mean = [0.5, 0.5, 0.5]
std = [0.5, 0.5, 0.5]
[answer]
batch_size = 4
loop = { steps = 2, learning_rate = 1e-3 }
"""


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (RECIPE, "naming_layer and referring_layer are 1 to 1"),
        (RECIPE.replace('"vilt"', '"guess"'), r"model\.kind: 'guess' is none of clip, dual-encoder, vilt"),
        (RECIPE.replace("heads = 2", "heads = 3"), "3 heads do not divide a width of 32"),
        (RECIPE.replace("patch_size = 8", "patch_size = 33"), "patch_size: 33 pixels are more"),
        (RECIPE.replace("batch_size = 4", "batch_size = 4\nfade_from = 1.0"), r"answer\.fade_from"),
        (RECIPE.replace("batch_size", "batch_sice"), r"answer\.batch_sice: there is no such key"),
    ],
)
def test_a_bad_recipe_names_the_key(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(RecipeError, match=complaint):
        read_training_recipe(str(tmp_path / "bad.toml"))


def test_it_starts_from_nothing(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="leave --from out"):
        train("tabletop-vilt", tmp_path / "vilt", tmp_path / "work", start=tmp_path)
