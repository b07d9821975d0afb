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
from pocketvl.tabletop.language import ANSWERS, NUMBERS
from pocketvl.tabletop.pool import PoolSettings, ScenePool, row_of, scene_of
from pocketvl.tabletop.questions import QUESTION_TYPES, AnswerBatches, QuestionMix, Questions, ask, mentions
from pocketvl.tabletop.scene import COLOURS, SHAPES, Look, Scene, Thing, sample_scene, scene_rng
from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer
from pocketvl.tabletop.train import read_training_recipe
from pocketvl.tabletop.training import corpus, preprocess_spec
from pocketvl.tabletop.vilt import (
    TabletopViltSettings,
    build_vilt,
    train_tabletop_vilt,
)
from pocketvl.tabletop.vilt_objective import (
    AnswerObjective,
    AnswerPhase,
    FusionWithHeads,
    locating_loss,
    looking_loss,
    things_meant,
)
from pocketvl.train.batches import mirror
from pocketvl.train.settings import LoopSettings, Precision
from tests.families.vilt_folder import IMAGE_SIZE, SHAPE, TEXT_LENGTH

PHASE = AnswerPhase(
    batch_size=8,
    rounds=1,
    naming_layer=1,
    referring_layer=1,
    locating_layer=2,
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


def test_a_relation_is_right_of_the_pixels_that_are_shown_mirrored_or_not() -> None:
    """Two things, a column of pixels each, whose colours say which is which."""
    looks = (Look("circle", "red", "small", "solid"), Look("ring", "blue", "small", "solid"))
    scene = Scene(tuple(Thing(look, x, 0.5, 0.1, 0.0) for look, x in zip(looks, (0.2, 0.8), strict=True)))
    pixels = np.zeros((1, IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    pixels[:, :, round(0.2 * IMAGE_SIZE), 0] = pixels[:, :, round(0.8 * IMAGE_SIZE), 2] = 255
    few = ScenePool(pixels, row_of(scene)[None])
    mix = QuestionMix(0, 0, 0, 0, relation=1)
    batch = AnswerBatches(few, ask(few.rows, 0, 9), _tokenizer(), TEXT_LENGTH, 64, seed=4, mix=mix)(0)
    shown = mirror(batch.pixels, batch.mirrored)
    columns = shown.amax(dim=1)[..., [0, 2]].argmax(dim=1)  # [B, 2], of red and of blue
    red_first = batch.mentions[:, 1] == 1 + COLOURS.index("red")
    first_is_left = (columns[:, 0] < columns[:, 1]) == red_first
    answers = [ANSWERS[answer] for answer in batch.answers]
    assert answers == ["left" if left else "right" for left in first_is_left]
    for kind in (batch.mirrored, ~batch.mirrored):
        assert {answer for answer, is_so in zip(answers, kind, strict=True) if is_so} == {"left", "right"}


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


def test_a_mix_says_how_often_types_come_up(pool: ScenePool, questions: Questions) -> None:
    mix = QuestionMix(colour=0, shape=0, count=1, existence=0, relation=3)
    batch = AnswerBatches(pool, questions, _tokenizer(), TEXT_LENGTH, 256, seed=4, mix=mix)(0)
    answers = Counter(ANSWERS[answer] for answer in batch.answers)
    relations = sum(answers[side] for side in ("left", "right", "above", "below"))
    assert relations + sum(answers[number] for number in NUMBERS) == 256
    assert 0.65 < relations / 256 < 0.85
    with pytest.raises(RecipeError, match="mix: all weights are 0"):
        QuestionMix(0, 0, 0, 0, 0)


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


def test_the_first_token_is_to_look_at_what_is_meant() -> None:
    wanted = torch.tensor(
        [[[1.0, 0.0], [1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0]] * 3]
    )  # the first of one question
    looked = torch.tensor([[[0.2, 0.3, 0.1], [0.9, 0.0, 0.0]], [[0.1, 0.1, 0.1]] * 2])
    assert looking_loss(looked, wanted).item() == pytest.approx(-np.log(0.5))
    assert looking_loss(looked, torch.zeros_like(wanted)).item() == 0


def test_the_first_token_is_to_know_where_each_thing_lies_of_which_there_is_one() -> None:
    looks = (Look("circle", "red", "large", "solid"), Look("ring", "red", "large", "solid"))
    scene = Scene((Thing(looks[0], 0.25, 0.25, 0.2, 0.0), Thing(looks[1], 0.75, 0.5, 0.2, 0.0)))
    rows = torch.from_numpy(row_of(scene))[None].expand(2, -1, -1)
    meant = things_meant(rows, torch.tensor([[1, 1, 7, 1], [0, 1, 0, 0]]))  # both, one by one; all red
    located = torch.tensor([[[0.25, 0.25], [0.75, 0.1]], [[0.9, 0.9], [0.9, 0.9]]])
    assert locating_loss(located, rows, meant).item() == pytest.approx((0 + 0.4 / 2) / 2)
    assert locating_loss(located[1:], rows[1:], meant[1:]).item() == 0


def test_patches_begin_with_where_they_lie() -> None:
    """Column and row are linear in the position embeddings, and no patch is preferred."""
    positions = build_vilt(SHAPE).vilt.embeddings.position_embeddings.detach()[0, 1:]  # [16, 32]
    assert positions.mean(dim=0).abs().max() < 1e-6
    assert positions.std() > 0.1
    places = torch.stack([torch.arange(16) % 4, torch.arange(16) // 4], dim=1).float()
    seen = torch.cat([positions, torch.ones(16, 1)], dim=1)
    read = seen @ torch.linalg.lstsq(seen, places, driver="gelsd").solution
    assert (read - places).abs().max() < 0.05


def test_it_learns_colours_it_is_shown(pool: ScenePool, questions: Questions) -> None:
    """Of pictures that are of one colour as a whole: better than the same answer to everything."""
    asked = questions.asked[questions.asked[:, 3] == QUESTION_TYPES.index("colour")]
    images = np.zeros_like(pool.images)
    asked = asked[np.unique(asked[:, 0], return_index=True)[1]]
    for scene, _, answer, _ in asked.tolist():
        images[scene] = np.random.default_rng(answer).integers(0, 255, 3)
    batches = _batches(ScenePool(images, pool.rows), Questions(questions.texts, asked), size=32)
    torch.manual_seed(0)
    phase = replace(
        PHASE, naming=0.1, referring=0.1, looking=0.0, locating=0.0, loop=replace(PHASE.loop, steps=80)
    )
    spec = preprocess_spec(SHAPE)
    module = FusionWithHeads(ViltFusion(build_vilt(SHAPE), spec, PAD_ID), SHAPE.width, phase)
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
    module = FusionWithHeads(
        ViltFusion(build_vilt(SHAPE), preprocess_spec(SHAPE), PAD_ID), SHAPE.width, PHASE
    )
    batch = _batches(pool, questions, size=8)(0)
    first, last = (AnswerObjective(PHASE)(module, batch, step) for step in (0, 6))
    for name in ("naming", "referring", "looking", "locating"):
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
        (RECIPE, "naming_layer, referring_layer and locating_layer are 1 to 1"),
        (RECIPE.replace("heads = 2", "heads = 1"), "heads: at least 2"),
        (RECIPE.replace("[answer]", "[answer]\nmix = { colour = -1 }"), r"answer\.mix\.colour"),
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


def test_a_training_starts_from_a_checkpoint_of_its_shape(tmp_path: Path) -> None:
    start, out, work = tmp_path / "start", tmp_path / "out", tmp_path / "work"
    train_tabletop_vilt(TINY, start, work / "first")
    still = replace(TINY, answer=replace(PHASE, loop=replace(PHASE.loop, steps=0, seed=7)))
    train_tabletop_vilt(still, out, work / "second", start=start)
    for name in ("model.safetensors", "tokenizer.json"):
        assert (out / name).read_bytes() == (start / name).read_bytes()
    other = replace(still, model=replace(SHAPE, layers=3))
    with pytest.raises(TrainingError, match=r"start is not of the shape that the recipe's \[model\] says"):
        train_tabletop_vilt(other, out, work / "third", start=start)
    with pytest.raises(TrainingError, match="holds a training of another model"):
        train_tabletop_vilt(still, out, work / "second")
    with pytest.raises(TrainingError, match="choose another place"):
        train_tabletop_vilt(still, start, work / "third", start=start)
