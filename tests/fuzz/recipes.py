"""Recipes: settings that say what the file says, or a RecipeError."""

from __future__ import annotations

import dataclasses
import math
import random
import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from pocketvl.errors import RecipeError
from pocketvl.recipes.compress_recipe import LEARN, METHODS, Step, read_compress_recipe
from pocketvl.recipes.export_recipe import read_export_recipe
from pocketvl.recipes.toml import shipped_recipes
from pocketvl.tabletop.train import read_training_recipe
from tests.fuzz.mutations import HOSTILE, Extra, Raw, damage, edit, toml_text
from tests.fuzz.target import Case, Finding, refusal

_READERS: Mapping[str, Callable[[str], Any]] = {
    "exporting": read_export_recipe,
    "compressing": read_compress_recipe,
    "training": read_training_recipe,
}
_NUMBERS = tuple(v for v in HOSTILE if isinstance(v, int | float))
_LEARN = {"phases": [{"steps": 3, "components": ["image_encoder"]}], "losses": {"response": 1.0}}
_EXTRA: Extra = {
    "kind": (*METHODS, LEARN, "fresh", "clip", "vilt", "dual-encoder", "", 1, []),
    "ratio": (0.5, 1, 0, *_NUMBERS),
    "parameters": (1000, *_NUMBERS),
    "int8_bytes": (1e6, *_NUMBERS),
    "sparsity": (0.5, *_NUMBERS),
    "two_of_four": (True, "true", 1),
    "energy": (0.9, *_NUMBERS),
    "image_encoder": (3, 0, {"width": 8, "layers": 1, "heads": 2}, *_NUMBERS),
    "keep": ({}, {"image_encoder": 3}, {"image_encoder": 0}, {"": 2}, [3], *_NUMBERS),
    "components": ([], ["image_encoder"], ["fusion", "fusion"], "fusion", [""]),
    "towers": (["image"], "image"),
    "units": ([], ["heads"], ["heads", "heads"], "neurons"),
    "rounds": (1, 2, 2.0, "2", True, *_NUMBERS),
    "score": ("taylor", "gate", "value", "TAYLOR"),
    "learn": (_LEARN, {}, {**_LEARN, "learning_rate": math.nan}, {**_LEARN, "batch_size": 4.5}),
    "phases": ([], [{}], [{"steps": 1}], {"steps": 1}, "all"),
    "learning_rate": (1e-3, "1e-3", *_NUMBERS),
    "temperature": _NUMBERS,
    "weight_decay": _NUMBERS,
    "batch_size": (8, 8.0, "8", True, *_NUMBERS),
    "seed": _NUMBERS,
    "save_every": _NUMBERS,
    "steps": _NUMBERS,
    "precision": ("int8", "INT8", "fp32", "bfloat16", "float64", ""),
    "percentile": _NUMBERS,
    "momentum": _NUMBERS,
    "bits": (4, 8, *_NUMBERS),
    "group_size": (32, 64, 33, *_NUMBERS),
    "most_growth": _NUMBERS,
    "equalize": (1, 0, "yes", "true", 1.0),
    "qat": ({"precision": "int8", "training": {}}, {}),
    "mean": ([0.5] * 3, [0.5] * 2, [math.nan] * 3, 0.5),
    "std": ([0.0] * 3, [0.5] * 4, [math.inf] * 3),
    "heads": _NUMBERS,
    "width": _NUMBERS,
    "layers": _NUMBERS,
    "when": (Raw("1979-05-27T07:32:00Z"), Raw("0x10"), Raw("1_000"), Raw("'''a'''")),
}


class Recipes:
    """The three readers of recipes."""

    name = "recipes"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._path = folder / "recipe.toml"
        self._shipped = [
            (kind, name, (resources.files("pocketvl.recipes") / kind / f"{name}.toml").read_text("utf-8"))
            for kind in _READERS
            for name in shipped_recipes(kind)
        ]

    def make(self, rng: random.Random) -> Case:
        """A shipped recipe with other values, or with damaged text."""
        kind, name, text = rng.choice(self._shipped)
        if rng.random() < 0.8:
            value, what = edit(rng, tomllib.loads(text), rng.choice((1, 1, 1, 2, 3)), _EXTRA)
            content = toml_text(value).encode("utf-8", "surrogatepass")
        else:
            content, what = damage(rng, text.encode(), rng.choice((1, 1, 2)))
        if rng.random() < 0.1:  # handed to the wrong reader
            kind = rng.choice(sorted(_READERS))
        return Case(f"{name} as {kind}: {what}", {"recipe.toml": content}, kind)

    def check(self, case: Case) -> str:
        """Reads it, and holds the settings against the file."""
        self._path.write_bytes(case.files["recipe.toml"])
        try:
            settings = _READERS[case.options](str(self._path))
        except RecipeError as error:
            return refusal(error)
        _check_numbers(settings)
        said = tomllib.loads(case.files["recipe.toml"].decode())
        _compare(said, settings, "")
        return "settings"


def _check_numbers(value: Any, path: str = "") -> None:
    """Raises Finding at a number that no setting can be: none of them is negative or larger than int64."""
    if isinstance(value, float) and not math.isfinite(value):
        raise Finding("settings that are not finite", f"{path} is {value}")
    if isinstance(value, int | float) and value < 0 and ".mean" not in path:
        raise Finding("settings below 0", f"{path} is {value}")
    if isinstance(value, int) and value >= 2**63:
        raise Finding("settings larger than 64 bits", f"{path} has {value.bit_length()} bits")
    for name, item in _items(value):
        _check_numbers(item, f"{path}.{name}")


def _items(value: Any) -> list[tuple[Any, Any]]:
    if dataclasses.is_dataclass(value):
        return [(item.name, getattr(value, item.name)) for item in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else []


def _named(settings: Any) -> dict[Any, Any]:
    """The settings of a table by name; of a step, its method's among them."""
    found = dict(_items(settings))
    if isinstance(settings, Step):
        found.update(_items(found.pop("method")))
    return found


def _compare(said: Any, settings: Any, path: str) -> None:
    """Raises Finding where a setting is not the value in the file, or was made of one of another type."""
    if isinstance(said, dict):
        found = _named(settings)
        for name, value in said.items():
            if name in found:
                _compare(value, found[name], f"{path}.{name}")
            elif name != "kind":  # which has chosen the settings' type
                raise Finding("a key that no settings have", f"{path}.{name} = {value!r}"[:300])
    elif isinstance(said, list):
        for place, (value, item) in enumerate(zip(said, settings, strict=True)):
            _compare(value, item, f"{path}[{place}]")
    else:
        kinds = {type(said)} | ({float} if type(said) is int else set())
        base = str if isinstance(settings, str) else type(settings)  # an enum of strings
        if base not in kinds or settings != base(said):
            raise Finding(
                f"{type(said).__name__} taken for {type(settings).__name__}",
                f"{path}: the file says {said!r}, the settings {settings!r}"[:300],
            )
