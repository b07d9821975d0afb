"""Recipes: TOML files, shipped or the user's own, read into frozen dataclasses."""

from __future__ import annotations

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pocketvl.errors import RecipeError
from pocketvl.settings import Settings, first_error, key_path
from pocketvl_runtime.errors import quoted, shortened

_SUFFIX = ".toml"
_MOST_DEPTH = 16
_PHASE_KEYS = ("image_steps", "text_steps", "cross_steps", "joint_steps", "joint_rate", "tower_weight")
_PHASES = 'phases = [{ components = ["image_encoder"], steps = 300 }, { steps = 40, learning_rate = 2e-5 }]'
RecipeT = TypeVar("RecipeT", bound=Settings)


def shipped_recipes(folder: str) -> tuple[str, ...]:
    """The names of the recipes that are shipped in a folder beside this file."""
    files = (resources.files("pocketvl.recipes") / folder).iterdir()
    return tuple(sorted(p.name.removesuffix(_SUFFIX) for p in files if p.name.endswith(_SUFFIX)))


def read_toml(recipe: str, folder: str) -> dict[str, Any]:
    """Read a shipped recipe by its name, or the user's own from a .toml file.

    Raises:
        RecipeError: there is none, it cannot be read, or it is not TOML.
    """
    names = shipped_recipes(folder)
    if recipe in names:
        content = (resources.files("pocketvl.recipes") / folder / f"{recipe}{_SUFFIX}").read_bytes()
    elif recipe.endswith(_SUFFIX) and Path(recipe).is_file():
        try:
            content = Path(recipe).read_bytes()
        except OSError as error:
            raise RecipeError(f"recipe {recipe} cannot be read: {error.strerror or error}") from error
    else:
        raise RecipeError(
            f"there is no {folder} recipe {quoted(recipe)}: name a .toml file or one of {', '.join(names)}"
        )
    try:
        values = tomllib.loads(content.decode("utf-8-sig"))
        _check_values(values)
    except (ValueError, RecursionError) as error:  # tomllib says less than all of what it raises
        raise RecipeError(f"recipe {recipe} is not TOML: {shortened(str(error), 200)}") from error
    return values


def check_recipe(kind: type[RecipeT], values: dict[str, Any], recipe: str, where: str = "") -> RecipeT:
    """Make settings of what a recipe, or a part of it, says.

    Args:
        kind: the dataclass.
        values: what is said.
        recipe: its name, for messages.
        where: the path of that part, with a point at its end, for messages.

    Raises:
        RecipeError: a key is unknown, missing, of the wrong type, or has a value that cannot be; the message
            names recipe and key.
    """
    # through JSON, whose lists and objects strict types take for tuples and dataclasses; dates, which no
    # setting is, become texts
    content = json.dumps(values, default=str)
    try:
        return TypeAdapter(kind).validate_json(content)
    except ValidationError as error:
        path, reason = first_error(error)
        if path and path[-1] in _PHASE_KEYS:
            reason = f"a training is a list of phases now, such as {_PHASES}"
        raise RecipeError(f"recipe {recipe}: {where}{key_path(path)}: {reason}") from error
    except RecipeError as error:  # of a dataclass that holds its own values against each other
        part = f"{where.removesuffix('.')}: " if where else ""
        raise RecipeError(f"recipe {recipe}: {part}{error}") from error


def _check_values(values: dict[str, Any]) -> None:
    """Raise ValueError at integers that TOML does not have, and at tables in tables without end."""
    layer: list[Any] = [values]
    for _ in range(_MOST_DEPTH):
        if any(isinstance(each, int) and not -(2**63) <= each < 2**63 for each in layer):
            raise ValueError("an integer has more than 64 bits")
        groups = [list(each.values()) if isinstance(each, dict) else each for each in layer]
        layer = [item for group in groups if isinstance(group, list) for item in group]
        if not layer:
            return
    raise ValueError(f"values are nested more than {_MOST_DEPTH} deep")
