"""`pocketvl train`: a training recipe (TOML) and what runs it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import RecipeError
from pocketvl.recipes.toml import check_recipe, read_toml

if TYPE_CHECKING:
    from pocketvl.train.tabletop import TabletopClipSettings
    from pocketvl.train.tabletop_vilt import TabletopViltSettings

Progress = Callable[[int, int, str], None]
FOLDER = "training"
MATCH, ANSWER = "match", "answer"


def read_training_recipe(recipe: str) -> TabletopClipSettings | TabletopViltSettings:
    """Reads a recipe by its name or from a .toml file.

    Its `task` says what is learned: "match", as where nothing is said, a CLIP; "answer", a ViLT.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    values = read_toml(recipe, FOLDER)
    task = values.pop("task", MATCH)
    if task not in (MATCH, ANSWER):
        raise RecipeError(f"recipe {recipe}: task: {task!r} is neither {MATCH} nor {ANSWER}")
    if task == ANSWER:
        from pocketvl.train.tabletop_vilt import TabletopViltSettings

        return check_recipe(TabletopViltSettings, values, recipe)

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

    from pocketvl.train.tabletop import TabletopClipSettings, train_tabletop_clip
    from pocketvl.train.tabletop_vilt import train_tabletop_vilt

    if isinstance(settings, TabletopClipSettings):
        train_tabletop_clip(settings, out, work, progress, start)
    elif start is not None:
        raise RecipeError(f"recipe {recipe} starts from nothing: leave --from out")
    else:
        train_tabletop_vilt(settings, out, work, progress)
