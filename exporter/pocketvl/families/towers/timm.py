"""timm's models as image towers: which are supported is said by what timm builds of a name.

A model of another kind is one more entry of `_KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.folders.open_clip import SUPPORTED, VISION, ModelConfig
from pocketvl.families.towers.base import ImageTower
from pocketvl_runtime.errors import library_text, quoted

EXTRA = 'pip install "pocketvl[open-clip]"'
TowerMaker: TypeAlias = Callable[[nn.Module, ModelConfig, Path], ImageTower]
"""Of timm's model on the meta device, without a classifier, the configuration, and its path for messages.

It raises SourceError where timm's model has something that the tower has not."""

# timm's class, and the file here with a `tower` that is a TowerMaker
_KINDS = {"ConvNeXt": "convnext", "FastVit": "fastvit"}


def timm_tower(model: ModelConfig, path: Path) -> ImageTower:
    """The image tower that a configuration names by timm's name.

    Args:
        model: the configuration.
        path: of its file, for messages.

    Raises:
        SourceError: timm is not installed, knows no such model, or it is of a kind that is not supported.
    """
    name = model.vision_cfg.timm_model_name or ""
    where = f"{path}: {VISION}.timm_model_name is {quoted(name)}"
    try:
        trunk = _trunk(name)
    except ModuleNotFoundError as error:
        raise SourceError(f"{where}, a model of timm, which is not installed: {EXTRA}") from error
    except Exception as error:  # of timm, whatever a model's file raises
        raise SourceError(f"{where}, which timm does not build: {library_text(error, 150)}") from error
    kind = type(trunk).__name__
    if kind not in _KINDS:
        raise SourceError(f"{where}, which timm builds as a model of kind {kind}; {SUPPORTED}")
    maker: TowerMaker = import_module(f"pocketvl.families.towers.{_KINDS[kind]}").tower
    return maker(trunk, model, path)


@lru_cache(maxsize=8)
def _trunk(name: str) -> nn.Module:
    """timm's model on the meta device, without a classifier; not to be changed."""
    import timm

    if not timm.is_model(name.partition(".")[0]) or not set(name).isdisjoint(":/"):
        raise ValueError("there is no such model")  # one of the hub would be downloaded
    with torch.device("meta"):
        found: nn.Module = timm.create_model(name, pretrained=False, num_classes=0)
    return found
