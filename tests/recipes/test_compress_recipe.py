"""Compression recipes: what they may say, and that a wrong word is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.compress.methods.sparsify import Sparsify
from pocketvl.compress.settings import Measure
from pocketvl.errors import RecipeError
from pocketvl.pipelines.compress_chain import stages_of
from pocketvl.pipelines.stages.compressing import CompressByTraining, CompressCheckpoint
from pocketvl.pipelines.stages.training import TrainStudent
from pocketvl.recipes.compress_recipe import FOLDER, METHODS, Step, read_compress_recipe
from pocketvl.recipes.toml import shipped_recipes
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.train.settings import Phase, TrainingSettings
from tests.families.tiny import make_tiny_clip

LEARN = "learn = { phases = [{ steps = 2 }] }"
QAT = "training = { phases = [{ steps = 2 }] }"


def _read(tmp_path: Path, text: str) -> Path:
    (tmp_path / "recipe.toml").write_text(text)
    return tmp_path / "recipe.toml"


def _step(kind: str, *lines: str) -> str:
    return "\n".join(["[[steps]]", f'kind = "{kind}"', *lines, ""])


SHAPE = "{ width = 16, layers = 1, heads = 2 }"
SHAPES = f"shapes = {{ image_encoder = {SHAPE}, text_encoder = {SHAPE} }}"


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
    prune = PruneUnits(macs=5e6)
    learn = TrainingSettings((Phase(2),))
    assert steps == (Step(prune, rounds=3), Step(learn=learn), Step(Sparsify(sparsity=0.5)))
    assert prune.target == (Measure.MACS, 5e6)


def test_rounds_are_stages_with_training_after_each_and_zeros_are_held_from_then_on(tmp_path: Path) -> None:
    text = _step("prune", "ratio = 0.5", "rounds = 2", LEARN) + _step("sparsify", "two_of_four = true", LEARN)
    source = make_tiny_clip(tmp_path / "clip")
    stages = stages_of(source, tmp_path, read_compress_recipe(str(_read(tmp_path, text))))
    assert [type(stage) for stage in stages] == [CompressCheckpoint, TrainStudent] * 3
    first, second, third = (stage for stage in stages if isinstance(stage, CompressCheckpoint))
    assert (first.fraction, second.fraction, third.fraction) == (0.875, 1, 1)
    assert first.method == second.method == PruneUnits(ratio=0.5)
    assert first.source == first.start == second.start == source
    assert second.source == stages[1]
    assert third.source == third.start == stages[3]
    assert [stage.hold_zeros for stage in stages if isinstance(stage, TrainStudent)] == [False, False, True]


def test_a_method_that_trains_is_a_stage_that_goes_on_where_it_was(tmp_path: Path) -> None:
    recipe = read_compress_recipe(str(_read(tmp_path, _step("qat", QAT) + _step("low-rank", "ratio = 0.5"))))
    trained, factorised = stages_of(make_tiny_clip(tmp_path / "clip"), tmp_path, recipe)
    assert isinstance(trained, CompressByTraining)
    assert trained.resumes
    assert not factorised.resumes


def test_every_method_says_what_it_does_in_other_words() -> None:
    assert len({method.__name__ for method in METHODS.values()}) == len(METHODS) > 7
    for kind, method in METHODS.items():
        assert kind.replace("-", "").isalpha()
        assert set(method.renamed).isdisjoint(method.__dataclass_fields__)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (_step("prune", "ratio = 0.5", 'components = ["sound"]'), "no component 'sound', only image_encoder"),
        (
            _step("drop-layers", "keep = { fusion = 1 }"),
            "no component 'fusion', only image_encoder, text_enc",
        ),
        (
            _step("reinitialize", f"shapes = {{ image_encoder = {SHAPE} }}"),
            r"shapes\.text_encoder: say which",
        ),
        (_step("prune-filters", "ratio = 0.5", 'component = "x"'), "no component 'x', only image_encoder"),
    ],
)
def test_components_that_a_model_does_not_have(tmp_path: Path, text: str, complaint: str) -> None:
    recipe = read_compress_recipe(str(_read(tmp_path, text)))
    with pytest.raises(RecipeError, match=complaint):
        stages_of(make_tiny_clip(tmp_path / "clip"), tmp_path, recipe)


@pytest.mark.parametrize(
    ("first", "then", "complaint"),
    [
        (("low-rank", "ratio = 0.5"), ("prune", "ratio = 0.5"), "low-rank comes before prune"),
        (("sparsify", "sparsity = 0.5"), ("low-rank", "ratio = 0.5"), "sparsify comes before low-rank"),
        (("low-rank", "ratio = 0.5"), ("sparsify", "sparsity = 0.5"), "low-rank comes before sparsify"),
        (("drop-layers", "keep = { image_encoder = 1 }"), ("reinitialize", SHAPES), "to be the first step"),
        (("sparsify", "sparsity = 0.5"), ("qat", QAT), "sparsify comes before qat"),
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
        (
            _step("prune", "ratio = 0.5", 'components = ["fusion", "fusion"]'),
            "components: each once, not fusion, fusion",
        ),
        (_step("low-rank", "ratio = 0.5", 'components = ["fusion", "fusion"]'), "components: each once"),
        (_step("sparsify", "sparsity = 0.5", 'components = ["a", "a"]'), "components: each once"),
        (_step("prune", "macs = nan"), r"steps\[0\]\.macs: .*finite"),
        (_step("prune", "macs = inf"), r"steps\[0\]\.macs: .*finite"),
        (_step("prune", "ratio = 0.5", "units = []"), "units: neurons, heads, or both"),
        (_step("prune", "ratio = 0.5", 'units = ["filters"]'), r"steps\[0\]\.units\.0"),
        (
            _step("prune", "ratio = 0.5", "learn = { image_stesp = 3 }"),
            r"learn\.image_stesp: there is no such key",
        ),
        (_step("learn", LEARN) + _step("prune", "macs = -1"), r"steps\[1\]\.macs: .*greater than 0, not -1"),
        (_step("prune-filters"), r"steps\[0\]\.ratio: Field required"),
        (_step("prune-filters", "ratio = 1"), r"steps\[0\]\.ratio: .*less than 1, not 1"),
        (_step("prune-filters", "ratio = 0.5", "rounds = 0"), r"steps\[0\]\.rounds: .* 1, not 0"),
        (_step("prune-filters", "ratio = 0.5", 'components = ["a"]'), "components: there is no such key"),
        (_step("sparsify"), "say either sparsity or two_of_four"),
        (_step("sparsify", "sparsity = 0.5", 'score = "gate"'), "a gate is for neurons and heads"),
        (_step("prune-filters", "ratio = 0.5", 'score = "gate"'), "a gate is for neurons and heads"),
        (
            _step("sparsify", "two_of_four = true", "rounds = 2"),
            r"steps\[0\]: rounds: there is one round of 'prune two of four weights', not 2",
        ),
        (_step("low-rank", "ratio = 0.5", "rounds = 2"), "there is one round of 'factorise linears', not 2"),
        (_step("learn", LEARN, "rounds = 2"), "there is one round of 'learn', not 2"),
        (_step("learn", LEARN, "ratio = 0.5"), r"steps\[0\]\.ratio: there is no such key"),
        (_step("qat", QAT, LEARN), "learn: qat is a training; how it goes is in `training`"),
        (_step("qat", "training = { joint_stesp = 3 }"), r"training\.joint_stesp: there is no such key"),
        (_step("qat", QAT, 'precision = "fp16"'), "precision: int8, int4 or int2, not fp16"),
        (_step("fresh", SHAPES), r"steps\[0\]\.kind: 'fresh' is called reinitialize now"),
        (_step("prune", "ratio = 0.5", 'towers = ["image"]'), r"towers: is called components, as in"),
        (_step("drop-layers", "image = 3"), r"steps\[0\]\.image: is called keep\.image_encoder, as in"),
        (_step("drop-layers"), r"steps\[0\]\.keep: Field required"),
        (_step("drop-layers", "keep = {}"), "keep: say how many layers to keep"),
        (_step("drop-layers", "keep = { a = 0 }"), r"steps\[0\]\.keep\.a: .* 1, not 0"),
        (_step("low-rank"), "say either energy or ratio"),
        (_step("low-rank", "energy = 1.0"), r"steps\[0\]\.energy: .*less than 1, not 1"),
        (_step("reinitialize"), r"steps\[0\]\.shapes: Field required"),
        (_step("reinitialize", SHAPES, "seed = -1"), r"steps\[0\]\.seed: .* 0, not -1"),
        (
            _step("reinitialize", "shapes = { a = { width = 20, layers = 1, heads = 3 } }"),
            "3 heads do not divide",
        ),
        (_step("learn"), r"steps\[0\]: learn: say how the model is trained"),
        (
            _step("learn", "learn = { image_steps = 3 }"),
            r"learn\.image_steps: a training is a list of phases now",
        ),
        (
            _step("qat", "training = { tower_weight = 1 }"),
            r"training\.tower_weight: a training is a list of phases now",
        ),
        (_step("learn", "learn = { phases = [] }"), "phases: a training has at least one"),
        (_step("learn", "learn = { phases = [{ steps = 0 }] }"), "say either steps or epochs, above 0"),
        (
            _step("learn", 'learn = { phases = [{ steps = 1, components = ["a", "a"] }] }'),
            "components: each once, not a, a",
        ),
        (_step("qat"), r"steps\[0\]\.training: Field required"),
    ],
)
def test_what_a_recipe_cannot_say(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        read_compress_recipe(str(_read(tmp_path, text)))


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="there is no compressing recipe 'nothing'"):
        read_compress_recipe("nothing")


def test_epochs_are_steps_of_the_data(tmp_path: Path) -> None:
    phases = (
        "phases = [{ epochs = 3, batch_size = 4 }, { steps = 7 }, { components = ['each'], epochs = 0.5 }]"
    )
    recipe = read_compress_recipe(
        str(_read(tmp_path, _step("learn", f"learn = {{ {phases}, batch_size = 5 }}")))
    )
    (tmp_path / "data").mkdir()
    write_tabletop(tmp_path / "data", 21, 10, size=40)
    (trained,) = stages_of(make_tiny_clip(tmp_path / "clip"), tmp_path / "data", recipe)
    assert isinstance(trained, TrainStudent)
    assert [phase.steps for phase in trained.settings.phases] == [8, 7, 1, 1]  # 3 * 10 / 4, rounded to even
    assert {phase.epochs for phase in trained.settings.phases} == {0}


@pytest.mark.parametrize("phase", ["{}", "{ steps = 3, epochs = 2.0 }", "{ epochs = 0 }"])
def test_a_phase_says_steps_or_epochs(phase: str, tmp_path: Path) -> None:
    text = _step("learn", f"learn = {{ phases = [{phase}] }}")
    with pytest.raises(RecipeError, match="say either steps or epochs, above 0"):
        read_compress_recipe(str(_read(tmp_path, text)))


@pytest.mark.parametrize("name", ["gentle", "balanced", "tiny"])
def test_recipes_for_any_model_say_ratios_and_epochs(name: str) -> None:
    for step in read_compress_recipe(name).steps:
        if isinstance(step.method, PruneUnits):
            assert step.method.ratio is not None
        for phase in step.learn.phases if step.learn else ():
            assert phase.epochs > 0
            assert set(phase.components) <= {"each"}


@pytest.mark.parametrize(("steps", "warmup"), [(5000, 250), (300, 50), (60, 30), (16, 8), (1, 1)])
def test_short_trainings_warm_up_long_enough(steps: int, warmup: int) -> None:
    settings = TrainingSettings((Phase(steps),))
    assert settings.loop(settings.phases[0]).warmup_steps == warmup
