"""`pocketvl train`: a training recipe (TOML) and what runs it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl.errors import RecipeError
from pocketvl.recipes.toml import check_recipe, read_toml
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pocketvl.tabletop.training import TabletopSettings
    from pocketvl.tabletop.vilt import TabletopViltSettings

FOLDER = "training"
KINDS = ("clip", "dual-encoder", "vilt")


def read_training_recipe(recipe: str) -> TabletopSettings | TabletopViltSettings:
    """Read a recipe by its name or from a .toml file; `kind` in its model says of which kind that is.

    Raises:
        RecipeError: there is none, it is not TOML, or a key is unknown, missing or of the wrong type; the
            message names the key.
    """
    values = read_toml(recipe, FOLDER)
    model = values.get("model")
    kind = model.pop("kind", KINDS[0]) if isinstance(model, dict) else KINDS[0]
    if kind not in KINDS:
        raise RecipeError(f"recipe {recipe}: model.kind: {quoted(kind)} is none of {', '.join(KINDS)}")
    if kind == "vilt":
        from pocketvl.tabletop.vilt import TabletopViltSettings

        return check_recipe(TabletopViltSettings, values, recipe)

    from pocketvl.tabletop import training as tabletop  # after the cheap checks: it imports torch

    if kind == "dual-encoder":
        return check_recipe(tabletop.TabletopDualSettings, values, recipe)
    return check_recipe(tabletop.TabletopClipSettings, values, recipe)


def train(
    recipe: str, out: Path, work: Path, progress: Progress | None = None, start: Path | None = None
) -> None:
    """Train what the recipe says and write the checkpoint `out`; an interrupted training goes on.

    Raises:
        RecipeError: the recipe is not valid.
        SourceError: `start` is not a checkpoint.
        TrainingError: training diverged, or `work` or `out` belongs to something else.
    """
    settings = read_training_recipe(recipe)

    from pocketvl.tabletop.training import train_tabletop_clip
    from pocketvl.tabletop.vilt import TabletopViltSettings, train_tabletop_vilt

    if not isinstance(settings, TabletopViltSettings):
        train_tabletop_clip(settings, out, work, progress, start)
    else:
        train_tabletop_vilt(settings, out, work, progress, start)
