"""Compression recipes: what they may say, and that a wrong word is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.compress.settings import Measure
from pocketvl.errors import RecipeError
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import PruneUnits, SparsifyWeights
from pocketvl.pipelines.stages.training import TrainStudent
from pocketvl.recipes.compress_recipe import (
    FOLDER,
    LearnStep,
    PruneStep,
    SparsifyStep,
    read_compress_recipe,
)
from pocketvl.recipes.toml import shipped_recipes
from tests.families.tiny import make_tiny_clip

LEARN = "learn = { phases = [{ steps = 2 }] }"


def _read(tmp_path: Path, text: str) -> Path:
    (tmp_path / "recipe.toml").write_text(text)
    return tmp_path / "recipe.toml"


def _step(kind: str, *lines: str) -> str:
    return "\n".join(["[[steps]]", f'kind = "{kind}"', *lines, ""])


FRESH = (
    "image = { width = 16, layers = 1, heads = 2 }",
    "text = { width = 12, layers = 1, heads = 2, neurons = 20 }",
)


def test_every_shipped_recipe_is_valid() -> None:
    assert shipped_recipes(FOLDER)
    for name in shipped_recipes(FOLDER):
        assert read_compress_recipe(name).steps


def test_steps_come_in_their_order(tmp_path: Path) -> None:
    text = (
        _step("prune", "macs = 5e6", "rounds = 3")
        + _step("learn", LEARN)
        + _step("sparsify", "sparsity = 0.5")
    )
    steps = read_compress_recipe(str(_read(tmp_path, text))).steps
    assert [type(step) for step in steps] == [PruneStep, LearnStep, SparsifyStep]
    assert isinstance(steps[0], PruneStep)
    assert steps[0].target == (Measure.MACS, 5e6)


def test_rounds_are_stages_with_training_after_each_and_zeros_are_held_from_then_on(tmp_path: Path) -> None:
    text = _step("prune", "ratio = 0.5", "rounds = 2", LEARN) + _step("sparsify", "two_of_four = true", LEARN)
    source = make_tiny_clip(tmp_path / "clip")
    stages = stages_of(source, tmp_path, read_compress_recipe(str(_read(tmp_path, text))))
    assert [type(stage) for stage in stages] == [
        PruneUnits,
        TrainStudent,
        PruneUnits,
        TrainStudent,
        SparsifyWeights,
        TrainStudent,
    ]
    first, second = (stage for stage in stages if isinstance(stage, PruneUnits))
    assert first.ratio == pytest.approx(0.875 * 0.5)
    assert second.ratio == 0.5
    assert second.start == source
    assert second.source == stages[1]
    assert [stage.hold_zeros for stage in stages if isinstance(stage, TrainStudent)] == [False, False, True]


@pytest.mark.parametrize(
    ("first", "then", "complaint"),
    [
        (("low-rank", "ratio = 0.5"), ("prune", "ratio = 0.5"), "low-rank comes before prune"),
        (("sparsify", "sparsity = 0.5"), ("low-rank", "ratio = 0.5"), "sparsify comes before low-rank"),
        (("low-rank", "ratio = 0.5"), ("sparsify", "sparsity = 0.5"), "low-rank comes before sparsify"),
        (("drop-layers", "image = 1"), ("fresh", *FRESH), "has to be the first step"),
    ],
)
def test_an_impossible_order_is_refused_before_anything_runs(
    tmp_path: Path, first: tuple[str, str], then: tuple[str, str], complaint: str
) -> None:
    recipe = read_compress_recipe(str(_read(tmp_path, _step(*first) + _step(*then))))
    with pytest.raises(RecipeError, match=complaint):
        stages_of(make_tiny_clip(tmp_path / "clip"), tmp_path, recipe)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"at least one \[\[steps\]\]"),
        ("step = 3", "step: there is no such key"),
        ("steps = [3]", r"at least one \[\[steps\]\]"),
        (_step("prume"), r"steps\[0\]\.kind: 'prume' is none of .*prune, prune-filters, sparsify"),
        (_step("prune", "ratoi = 0.5"), r"steps\[0\]\.ratoi: there is no such key"),
        (_step("prune"), "say one of ratio, parameters, macs and int8_bytes"),
        (_step("prune", "ratio = 0.5", "macs = 3"), "say one of ratio"),
        (_step("prune", "ratio = 1.5"), r"steps\[0\]\.ratio: .*less than 1, not 1\.5"),
        (_step("prune", "ratio = 0.5", "rounds = 0"), r"steps\[0\]\.rounds: .* 1, not 0"),
        (_step("prune", "ratio = 0.5", 'units = ["heads", "heads"]'), "units: .* each once"),
        (_step("prune", "ratio = 0.5", 'towers = ["image", "image"]'), "towers: each once, not image, image"),
        (_step("low-rank", "ratio = 0.5", 'towers = ["text", "text"]'), "towers: each once"),
        (_step("sparsify", "sparsity = 0.5", 'towers = ["text", "text"]'), "towers: each once"),
        (_step("prune", "macs = nan"), r"steps\[0\]\.macs: .*finite"),
        (_step("prune", "macs = inf"), r"steps\[0\]\.macs: .*finite"),
        (_step("prune", "ratio = 0.5", "units = []"), "units: neurons, heads, or both"),
        (_step("prune", "ratio = 0.5", 'units = ["filters"]'), r"steps\[0\]\.units\.0"),
        (
            _step("prune", "ratio = 0.5", 'towers = ["sound"]'),
            "towers: some of image, text, fusion; not sound",
        ),
        (
            _step("prune", "ratio = 0.5", "learn = { image_stesp = 3 }"),
            r"learn\.image_stesp: there is no such key",
        ),
        (_step("learn", LEARN) + _step("prune", "macs = -1"), r"steps\[1\]\.macs: .*greater than 0, not -1"),
        (_step("prune-filters"), r"steps\[0\]\.ratio: Field required"),
        (_step("prune-filters", "ratio = 1"), r"steps\[0\]\.ratio: .*less than 1, not 1"),
        (_step("prune-filters", "ratio = 0.5", "rounds = 0"), r"steps\[0\]\.rounds: .* 1, not 0"),
        (_step("prune-filters", "ratio = 0.5", 'towers = ["image"]'), "towers: there is no such key"),
        (_step("sparsify"), "say either sparsity or two_of_four"),
        (_step("sparsify", "sparsity = 0.5", 'score = "gate"'), "a gate is for neurons and heads"),
        (_step("prune-filters", "ratio = 0.5", 'score = "gate"'), "a gate is for neurons and heads"),
        (_step("sparsify", "two_of_four = true", "rounds = 2"), "reached in one round"),
        (_step("drop-layers"), "say how many layers stay"),
        (_step("drop-layers", "image = 0"), r"steps\[0\]\.image: .* 1, not 0"),
        (_step("low-rank"), "say either energy or ratio"),
        (_step("low-rank", "energy = 1.0"), r"steps\[0\]\.energy: .*less than 1, not 1"),
        (_step("fresh", FRESH[0]), r"steps\[0\]\.text: Field required"),
        (_step("fresh", FRESH[0], FRESH[1], "seed = -1"), r"steps\[0\]\.seed: .* 0, not -1"),
        (_step("fresh", "image = { width = 20, layers = 1, heads = 3 }", FRESH[1]), "3 heads do not divide"),
        (
            _step("learn", "learn = { image_steps = 3 }"),
            r"learn\.image_steps: a training is a list of phases",
        ),
        (
            _step("qat", "learn = { phases = [], tower_weight = 1 }"),
            r"learn\.tower_weight: .* list of phases",
        ),
        (_step("learn", "learn = { phases = [] }"), "phases: a training has at least one"),
        (_step("learn", "learn = { phases = [{ steps = 0 }] }"), r"learn\.phases\.0\.steps: .* 1, not 0"),
        (
            _step("learn", 'learn = { phases = [{ steps = 1, components = ["a", "a"] }] }'),
            "components: each once, not a, a",
        ),
        (_step("qat"), r"steps\[0\]\.learn: Field required"),
        (_step("learn"), r"steps\[0\]\.learn: Field required"),
    ],
)
def test_what_a_recipe_cannot_say(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        read_compress_recipe(str(_read(tmp_path, text)))


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no compressing recipe 'nothing'"):
        read_compress_recipe("nothing")
