"""timm's FastViT as an image tower: those of MobileCLIP and MobileCLIP 2, in the form that is deployed.

A folder with branches is opened with all of them merged (`layers/fastvit.py`), and saved so: pocketvl opens
either, open_clip the former alone.

Source: Vasu et al., 2024, "MobileCLIP", arXiv 2311.17049; Faghri et al., 2025, "MobileCLIP2", arXiv
2508.20691; as timm 1.0's `FastVit` and open_clip 3.3's `TimmModel` compute them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.folders.open_clip import VISION, ModelConfig
from pocketvl.families.layers.fastvit import deploy_, deployed_weights, squeeze_layers, stream_layers
from pocketvl.families.towers.base import VISUAL, ImageTower
from pocketvl_runtime.errors import quoted

_TRUNK = f"{VISUAL}trunk."


@dataclass(frozen=True)
class FastVitTower(ImageTower):
    """A FastViT.

    Attributes:
        name: timm's.
        depth: blocks of all stages.
        embed_dim: D.
    """

    name: str
    depth: int
    embed_dim: int

    @property
    def num_hidden_layers(self) -> int:
        return self.depth

    @property
    def identity(self) -> object:
        return [self.name]

    def unquantized(self, module: nn.Module) -> tuple[str, ...]:
        return stream_layers(module)

    def dynamic(self, module: nn.Module) -> tuple[str, ...]:
        return squeeze_layers(module)

    def build(self, initialised: bool) -> nn.Module:
        if initialised:
            return FastVitModule(self)
        device = torch.get_default_device()
        with torch.device("meta"):
            made = FastVitModule(self)
        return made if device.type == "meta" else made.to_empty(device=device)

    def unpack_(self, weights: dict[str, torch.Tensor]) -> None:
        own = {name: value for name, value in weights.items() if name.startswith(_TRUNK)}
        stored = {name.removeprefix(_TRUNK): value for name, value in own.items()}
        deployed = deployed_weights(self.with_branches, stored)
        if deployed is not None:
            for name in own:
                del weights[name]
            weights.update({f"{_TRUNK}{name}": value for name, value in deployed.items()})

    def pack_(self, weights: dict[str, torch.Tensor]) -> None:
        """Nothing: branches cannot be told apart again."""

    def with_branches(self) -> nn.Module:
        """timm's model."""
        import timm

        made: nn.Module = timm.create_model(
            self.name, pretrained=False, num_classes=self.embed_dim, global_pool="avg"
        )
        return made.train(False)


def tower(trunk: nn.Module, model: ModelConfig, path: Path) -> FastVitTower:
    """A FastViT; a `TowerMaker`.

    Args:
        trunk: timm's model on the meta device.
        model: the configuration.
        path: of its file, for messages.

    Raises:
        SourceError: its features are pooled or projected in another way than in MobileCLIP.
    """
    vision, net = model.vision_cfg, cast(Any, trunk)
    where = f"{path}: {VISION}"
    if vision.timm_pool != "avg":
        raise SourceError(
            f"{where}.timm_pool is {quoted(vision.timm_pool)}; of a FastViT only avg is supported"
        )
    if vision.timm_proj:
        raise SourceError(
            f"{where}.timm_proj is {quoted(vision.timm_proj)}; of a FastViT only its own classifier is "
            "supported as projection (null), as in MobileCLIP"
        )
    depth = sum(len(stage.blocks) for stage in net.stages)
    return FastVitTower(str(vision.timm_model_name), depth, model.embed_dim)


class FastVitModule(nn.Module):
    """float32 [B, 3, H, W] -> float32 [B, D]."""

    def __init__(self, tower: FastVitTower) -> None:
        """Args: tower: its shape."""
        super().__init__()
        self.trunk = tower.with_branches()
        deploy_(self.trunk)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        found: torch.Tensor = self.trunk(values)
        return found
