"""Recipes: the shipped ones can be read, and what is wrong in one's own is named in one line."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from pocketvl.errors import RecipeError
from pocketvl.network.heads import HeadKind
from pocketvl.network.precisions import WeightGrids
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl.quantize.settings import QuantizeSettings, Rounding
from pocketvl.recipes.export_recipe import DEFAULT, FOLDER, ExportRecipe, read_export_recipe
from pocketvl.recipes.toml import shipped_recipes
from pocketvl.tasks.head_training import HeadTraining
from pocketvl_runtime.manifest import Precision


def read(tmp_path: Path, text: str) -> ExportRecipe:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return read_export_recipe(str(path))


def test_the_default_is_what_the_code_does_by_itself() -> None:
    assert read_export_recipe(DEFAULT) == ExportRecipe()


def test_min_max_is_the_plainest() -> None:
    plain = read_export_recipe("min-max")
    assert not plain.equalize
    assert plain.calibration == CalibrationSettings(Observer.MIN_MAX)
    assert plain.weights == QuantizeSettings(False, Rounding.NEAREST, False)


@pytest.mark.parametrize("name", shipped_recipes(FOLDER))
def test_every_shipped_recipe_can_be_read(name: str) -> None:
    recipe = read_export_recipe(name)
    if name.startswith("qat-"):
        assert recipe.qat is not None
        assert recipe.qat.precision is Precision(name.removeprefix("qat-"))
    else:
        assert recipe.qat is None


@pytest.mark.parametrize("name", [name for name in shipped_recipes(FOLDER) if name.startswith("qat-")])
@pytest.mark.parametrize(
    ("head", "alone"),
    [
        (HeadTraining(HeadKind.CONTRASTIVE, ("image_encoder", "text_encoder")), 2),
        (HeadTraining(HeadKind.LABELS, ("fusion",)), 1),
    ],
)
def test_shipped_recipes_train_every_kind_of_model(name: str, head: HeadTraining, alone: int) -> None:
    qat = read_export_recipe(name).qat
    assert qat is not None
    with pytest.raises(RecipeError, match="no component 'each'"):
        head.check(qat.training)
    planned = head.planned(qat.training)
    head.check(planned)
    assert [phase.components for phase in planned.phases] == [(each,) for each in head.components] + [()]
    assert [phase.steps for phase in planned.phases] == [300] * (alone + 1)
    assert head.planned(planned) == planned


def test_there_are_as_many_recipes_as_are_known_here() -> None:
    assert {"default", "min-max", "qat-int4", "qat-int8"} <= set(shipped_recipes(FOLDER))


def test_what_a_recipe_leaves_out_is_as_by_default(tmp_path: Path) -> None:
    assert read(tmp_path, "") == ExportRecipe()
    changed = read(tmp_path, "group_size = 64\n[calibration]\nobserver = 'percentile'\npercentile = 99\n")
    seen = CalibrationSettings(Observer.PERCENTILE, percentile=99.0)
    assert changed == replace(ExportRecipe(), group_size=64, calibration=seen)


def test_a_recipe_chooses_the_grids_of_weights(tmp_path: Path) -> None:
    assert read(tmp_path, "").grids == WeightGrids()
    changed = read(tmp_path, "group_size = 128\nzero_points = true\nper_tensor = true\n")
    assert changed.grids == WeightGrids(128, zero_points=True, per_tensor=True)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeffgroup_size = 64\r\n") == replace(ExportRecipe(), group_size=64)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("equalise = true", "equalise: there is no such key"),
        ("[calibration]\nobservor = 'mse'", "calibration.observor: there is no such key"),
        ("[qat]\nprecision = 'int8'\nsteps = 1\n[qat.training]", "qat.steps: there is no such key"),
        (
            "[qat]\nprecision = 'int8'\n[qat.training]\nbatchsize = 4",
            "qat.training.batchsize: there is no such key",
        ),
        ("[qat]\nprecision = 'int8'", "qat.training: "),
        ("[qat]\nprecision = 'int8'\n[qat.training]", r"qat\.training\.phases: Field required"),
        (
            "[qat]\nprecision = 'int8'\n[qat.training]\ntext_steps = 9",
            r"qat\.training\.text_steps: a training is a list of phases now, such as phases = \[",
        ),
        ("[qat]\nprecision = 'fp16'\n[qat.training]\nphases = [{ steps = 1 }]", "qat.precision is fp16"),
        ("[qat]\nprecision = 'int9'\n[qat.training]", "qat.precision: .*int8"),
        (
            "[qat.training]\nbatch_size = 2\nphases = [{ steps = 1 }]\n[qat]\nprecision = 'int8'",
            r"qat\.training\.batch_size: .* 3, not 2",
        ),
        ("equalize = 'often'", "equalize: .*boolean"),
        ("group_size = 'large'", "group_size: .*integer"),
        ("group_size = 32.5", "group_size: .*integer"),
        ("calibration = 'mse'", "calibration: "),
        ("[calibration]\nobserver = 'median'", "calibration.observer: .*min_max"),
        ("[calibration]\npercentile = 40", r"calibration\.percentile: .*greater than 50, not 40"),
        ("[weights]\nrounding = ['gptq']", "weights.rounding: "),
        ("most_growth = 0.5", "most_growth: .* 1, not 0.5"),
        ("most_growth = nan", "most_growth: .*finite number, not nan"),
        ("most_growth = inf", "most_growth: .*finite number, not inf"),
        ("[calibration]\nbits = 0", "calibration.bits: .* 2, not 0"),
        ('"" = 1', "'': there is no such key"),
        ('[weights]\n"" = 1', "weights.'': there is no such key"),
        ('"a\\nb" = 1', r"'a\\nb': there is no such key"),
        ("group_size = '32'", "group_size: .*valid integer, not '32'"),
        ("group_size = 32.0", "group_size: .*valid integer, not 32.0"),
        ("group_size = true", "group_size: .*valid integer, not True"),
        ("group_size = 1979-05-27", "group_size: .*valid integer"),
        ("equalize = 1", "equalize: .*valid boolean, not 1"),
        ("equalize = 'yes'", "equalize: .*valid boolean, not 'yes'"),
        ("most_growth = true", "most_growth: .*valid number, not True"),
        (
            "[qat]\nprecision = 'int8'\ntraining = { phases = [{ steps = 1 }], learning_rate = nan }",
            "qat.training.learning_rate: ",
        ),
        (
            "[qat]\nprecision = 'int8'\ntraining = { phases = [{ steps = 1 }], clip_norm = -1.0 }",
            "qat.training.clip_norm: ",
        ),
        ("[qat]\nprecision = 'int8'\ntraining = 07:32:00", "qat.training: "),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=said) as caught:
        read(tmp_path, text)
    assert "mine.toml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_not_toml_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml is not TOML: .*line 2"):
        read(tmp_path, "equalize = true\ngroup_size == 3\n")


@pytest.mark.parametrize(
    "text",
    [
        "group_size = " + "9" * 5000,
        "group_size = 0x" + "f" * 5000,
        "group_size = 18446744073709551616",
        "x = " + "[" * 3000,
        "x = " + "[" * 40 + "]" * 40,
        "group_size" + ".a" * 3000 + " = 1",
    ],
)
def test_numbers_without_end_and_tables_in_tables_are_refused(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"mine\.toml is not TOML: ") as caught:
        read(tmp_path, text)
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


@pytest.mark.parametrize("text", ["K = 1", "group_size = 'K'", "[calibration]\nobserver = 'K'"])
def test_what_is_long_is_quoted_in_short(text: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as caught:
        read(tmp_path, text.replace("K", "k" * 5000))
    assert len(str(caught.value)) < 300 + len(str(tmp_path))


def test_a_recipe_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user reads files whatever their mode")
    with pytest.raises(RecipeError, match="cannot be read: Permission denied"):
        read_export_recipe(str(path))


def test_what_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(b"equalize = \xff\xfe")
    with pytest.raises(RecipeError, match=r"mine\.toml is not TOML"):
        read_export_recipe(str(path))


@pytest.mark.parametrize("name", ["missing.toml", "nosuch", "default.toml", "../exporting/default", ""])
def test_a_recipe_that_is_not_there_is_told_with_those_that_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RecipeError, match="there is no exporting recipe .*default, min-max"):
        read_export_recipe(name)
