"""`pocketvl train`: a training recipe (TOML) and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.recipes.toml import check_recipe, read_toml

if TYPE_CHECKING:
    from pocketvl.train.tabletop import TabletopClipSettings

Progress = Callable[[int, int, str], None]
FOLDER = "training"


def read_training_recipe(recipe: str) -> TabletopClipSettings:
    """Reads a recipe by its name or from a .toml file.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    values = read_toml(recipe, FOLDER)

    from pocketvl.train.tabletop import TabletopClipSettings  # after the cheap checks: it imports torch

    return check_recipe(TabletopClipSettings, values, recipe)


def train(
    recipe: str, out: Path, work: Path, progress: Progress | None = None, start: Path | None = None
) -> None:
    """Trains what the recipe says and writes the checkpoint `out`; an interrupted training goes on.

    Raises:
        RecipeError: the recipe is not valid.
        SourceError: `start` is not a checkpoint.
        TrainingError: training diverged, or `work` or `out` belongs to something else.
    """
    settings = read_training_recipe(recipe)

    from pocketvl.train.tabletop import train_tabletop_clip

    train_tabletop_clip(settings, out, work, progress, start)
