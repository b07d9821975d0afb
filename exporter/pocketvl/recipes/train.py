"""`pocketvl train`: a training recipe (TOML) and what runs it."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pocketvl.errors import RecipeError

if TYPE_CHECKING:
    from pocketvl.train.tabletop import TabletopClipSettings

Progress = Callable[[int, int, str], None]
_SUFFIX = ".toml"


def training_recipes() -> tuple[str, ...]:
    """The names of the training recipes that are shipped."""
    folder = resources.files("pocketvl.recipes") / "training"
    return tuple(sorted(p.name.removesuffix(_SUFFIX) for p in folder.iterdir() if p.name.endswith(_SUFFIX)))


def read_training_recipe(recipe: str) -> TabletopClipSettings:
    """Reads a recipe by its name or from a .toml file.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    values = _read_toml(recipe)

    from pocketvl.train.tabletop import TabletopClipSettings  # after the cheap checks: it imports torch

    unknown = _unknown_key(TabletopClipSettings, values)
    if unknown:
        raise RecipeError(f"recipe {recipe}: {unknown}: there is no such key")
    try:
        settings: TabletopClipSettings = TypeAdapter(TabletopClipSettings).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"recipe {recipe}: {key}: {first['msg']}") from error
    return settings


def train(recipe: str, out: Path, work: Path, progress: Progress | None = None) -> None:
    """Trains what the recipe says and writes the checkpoint `out`; an interrupted training goes on.

    Raises:
        RecipeError: the recipe is not valid.
        TrainingError: training diverged, or `work` or `out` belongs to something else.
    """
    settings = read_training_recipe(recipe)

    from pocketvl.train.tabletop import train_tabletop_clip

    train_tabletop_clip(settings, out, work, progress)


def _unknown_key(kind: Any, values: dict[str, Any], path: str = "") -> str:
    """The first key that the dataclass does not have, with its path; empty where there is none."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            return path + name
        if isinstance(value, dict) and dataclasses.is_dataclass(hints[name]):
            found = _unknown_key(hints[name], value, f"{path}{name}.")
            if found:
                return found
    return ""


def _read_toml(recipe: str) -> dict[str, Any]:
    if recipe in training_recipes():
        text = (resources.files("pocketvl.recipes") / "training" / f"{recipe}{_SUFFIX}").read_text("utf-8")
    elif recipe.endswith(_SUFFIX) and Path(recipe).is_file():
        text = Path(recipe).read_text("utf-8")
    else:
        raise RecipeError(
            f"there is no training recipe {recipe!r}: name a .toml file or one of "
            f"{', '.join(training_recipes())}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"recipe {recipe} is not TOML: {error}") from error
