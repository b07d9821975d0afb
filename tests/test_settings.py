"""Every number of every dataclass of settings has bounds, for recipes and for Python alike."""

from __future__ import annotations

import dataclasses
import math
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import pytest
from pydantic import TypeAdapter, ValidationError

from pocketvl.compress.methods.prune_units import PruneUnits
from pocketvl.errors import RecipeError
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.settings import QatSettings
from pocketvl.recipes.compress_recipe import METHODS, StepSettings
from pocketvl.recipes.export_recipe import ExportRecipe
from pocketvl.settings import Settings, key_path
from pocketvl.tabletop.pool import PoolSettings
from pocketvl.tabletop.training import TabletopClipSettings, TabletopDualSettings
from pocketvl.tabletop.vilt import TabletopViltSettings
from pocketvl.train.settings import LoopSettings, LossWeights, Phase, TrainingSettings

ROOTS = (
    *METHODS.values(),
    StepSettings,
    ExportRecipe,
    TabletopClipSettings,
    TabletopDualSettings,
    TabletopViltSettings,
)


def parts(kind: Any) -> Iterator[Any]:
    """A field's type, or what an optional one, or a tuple, is made of."""
    if get_origin(kind) in (Union, types.UnionType, tuple, Mapping):
        for part in get_args(kind):
            yield from parts(part)
    elif kind is not Ellipsis:
        yield kind


def numbers(kind: Any, found: dict[str, Any]) -> dict[str, Any]:
    """The types of all numbers of a dataclass and of those in it, by dataclass and field."""
    assert issubclass(kind, Settings), f"{kind} checks nothing"
    hints = get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        for part in parts(hints[field.name]):
            plain = get_args(part)[0] if get_origin(part) is Annotated else part
            if dataclasses.is_dataclass(plain):
                numbers(plain, found)
            elif plain in (int, float):
                found[f"{kind.__name__}.{field.name}"] = part
            else:
                assert plain in (bool, str, types.NoneType) or issubclass(plain, Enum), (kind, field.name)
    return found


NUMBERS = {name: part for root in ROOTS for name, part in numbers(root, {}).items()}


def test_all_settings_are_looked_at() -> None:
    assert {"LoopSettings.steps", "LossWeights.response", "ConvNextSettings.depths"} <= set(NUMBERS)
    assert len(NUMBERS) > 70


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_of_its_type_finite_and_within_bounds(name: str) -> None:
    number = NUMBERS[name]
    one: Any = types.GenericAlias(tuple, (number,))
    adapter = TypeAdapter(one, config=Settings.__pydantic_config__)
    below = () if name.endswith(".mean") else (-1, -0.5)
    for value in (*below, math.nan, math.inf, -math.inf, 2**70, True, "32", b"1", None):
        if value == 2**70 and float in (number, *get_args(number)):
            continue  # a large number, as floats are
        with pytest.raises(ValidationError):
            adapter.validate_python((value,))


@pytest.mark.parametrize(
    ("kind", "values", "complaint"),
    [
        (LoopSettings, {"steps": -1, "learning_rate": 1e-3}, "^steps: .*, not -1$"),
        (LoopSettings, {"steps": 1, "learning_rate": math.nan}, "^learning_rate: .*finite number, not nan$"),
        (LoopSettings, {"steps": True, "learning_rate": 1}, "^steps: .*valid integer, not True$"),
        (PoolSettings, {"seed": 2**32, "count": 1}, "^seed: .*less than 4294967296"),
        (PoolSettings, {"seed": 0, "count": 0}, "^count: "),
        (QatSettings, {"phases": (Phase(1),), "clip_norm": -1.0}, "^clip_norm: "),
        (QatSettings, {"phases": (Phase(1),), "weight_decay": -1.0}, "^weight_decay: "),
        (CalibrationSettings, {"bits": 9}, "^bits: .*less than or equal to 8, not 9$"),
        (CalibrationSettings, {"observer": "mse"}, "^observer: "),
        (LossWeights, {"response": math.inf}, "^response: "),
        (TrainingSettings, {"phases": (Phase(1),), "losses": {"response": 1.0}}, "^losses: "),
        (TrainingSettings, {"phases": (Phase(1),), "temperature": math.inf}, "^temperature: "),
        (StepSettings, {"rounds": 10**6}, "^rounds: .*1000"),
        (PruneUnits, {"ratio": 0.5, "components": ("x" * 5000,) * 2}, "^components: .{1,200}$"),
        (PruneUnits, {"macs": "1" * 5000}, "^macs: .{1,200}$"),
    ],
)
def test_python_is_told_what_a_recipe_is_told(kind: Any, values: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=complaint):
        kind(**values)


def test_an_int_may_stand_for_a_float() -> None:
    assert LoopSettings(steps=1, learning_rate=1).learning_rate == 1


def test_paths_quote_what_toml_would_quote() -> None:
    assert key_path(["model", "std", 0]) == "model.std.0"
    assert key_path(["a-b", "", "c\nd", "e.f"]) == "a-b.''.'c\\nd'.'e.f'"
    assert len(key_path(["k" * 5000])) < 120
