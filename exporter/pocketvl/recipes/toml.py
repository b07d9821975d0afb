"""Recipes: TOML files, shipped or the user's own, read into frozen dataclasses."""

from __future__ import annotations

import dataclasses
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from pydantic import TypeAdapter, ValidationError

from pocketvl.errors import RecipeError

_SUFFIX = ".toml"
RecipeT = TypeVar("RecipeT")


def shipped_recipes(folder: str) -> tuple[str, ...]:
    """The names of the recipes that are shipped in a folder beside this file."""
    files = (resources.files("pocketvl.recipes") / folder).iterdir()
    return tuple(sorted(p.name.removesuffix(_SUFFIX) for p in files if p.name.endswith(_SUFFIX)))


def read_toml(recipe: str, folder: str) -> dict[str, Any]:
    """Reads a shipped recipe by its name, or the user's own from a .toml file.

    Raises:
        RecipeError: there is none, or it is not TOML.
    """
    names = shipped_recipes(folder)
    if recipe in names:
        content = (resources.files("pocketvl.recipes") / folder / f"{recipe}{_SUFFIX}").read_bytes()
    elif recipe.endswith(_SUFFIX) and Path(recipe).is_file():
        content = Path(recipe).read_bytes()
    else:
        raise RecipeError(
            f"there is no {folder} recipe {recipe!r}: name a .toml file or one of {', '.join(names)}"
        )
    try:
        return tomllib.loads(content.decode("utf-8-sig"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise RecipeError(f"recipe {recipe} is not TOML: {error}") from error


def check_recipe(kind: type[RecipeT], values: dict[str, Any], recipe: str, where: str = "") -> RecipeT:
    """Makes a dataclass of what a recipe, or a part of it, says.

    Args:
        kind: the dataclass.
        values: what is said.
        recipe: its name, for messages.
        where: the path of that part, with a point at its end, for messages.

    Raises:
        RecipeError: a key is unknown, missing, of the wrong type, or has a value that cannot be; the message
            names recipe and key.
    """
    unknown = _unknown_key(kind, values)
    if unknown:
        raise RecipeError(f"recipe {recipe}: {where}{unknown}: there is no such key")
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise RecipeError(f"recipe {recipe}: {where}{key}: {first['msg']}") from error
    except RecipeError as error:  # of a dataclass that checks its own values
        part = f"{where.removesuffix('.')}: " if where else ""
        raise RecipeError(f"recipe {recipe}: {part}{error}") from error


def _unknown_key(kind: Any, values: dict[str, Any], path: str = "") -> str:
    """The first key that the dataclass does not have, with its path; empty where there is none."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name not in hints:
            return path + name
        for inner in (hints[name], *get_args(hints[name])):  # a section may be optional
            if isinstance(value, dict) and dataclasses.is_dataclass(inner):
                found = _unknown_key(inner, value, f"{path}{name}.")
                if found:
                    return found
    return ""
