"""CLIP as it is compressed and trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.families.clip import build_model, load, load_model
from pocketvl.families.tower_shape import TowerShape
from pocketvl.families.trainable import LayerStack, Normalise, Trainable
from pocketvl_runtime.manifest import ImageProcessor, Role

if TYPE_CHECKING:
    from transformers import CLIPModel, VisionTextDualEncoderModel


class ClipImageTower(nn.Module):
    """uint8 [B, H, W, 3] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: CLIPModel | VisionTextDualEncoderModel, preprocess: ImageProcessor) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection
        self.normalise = Normalise(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of pictures."""
        values = self.normalise(pixels)
        pooled = self.vision_model(pixel_values=values).pooler_output
        return F.normalize(self.visual_projection(pooled).float(), dim=-1)


class ClipTextTower(nn.Module):
    """int ids [B, T] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: CLIPModel) -> None:
        """Args: model: shares its modules."""
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of texts."""
        pooled = self.text_model(input_ids=ids.long()).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)


class TrainableClip(Trainable):
    """A CLIPModel."""

    @property
    def stacks(self) -> Mapping[Role, LayerStack]:
        model = cast("CLIPModel", self.model)
        widths = {
            "vision": model.visual_projection.in_features,
            "text": model.text_projection.in_features,
        }
        return {
            role: LayerStack(
                f"{name}_model.encoder.layers", (f"{name}_config", "num_hidden_layers"), widths[name]
            )
            for role, name in ((Role.IMAGE_ENCODER, "vision"), (Role.TEXT_ENCODER, "text"))
        }

    def tower(self, role: Role) -> nn.Module:
        model = cast("CLIPModel", self.model)
        if role is Role.IMAGE_ENCODER:
            return ClipImageTower(model, self.preprocess)
        return ClipTextTower(model)

    def original(self) -> nn.Module:
        with torch.device("meta"):
            return build_model(self.config, self.folder)

    def begin_anew_(self, shapes: Mapping[Role, TowerShape], seed: int) -> None:
        for role, shape in shapes.items():
            changed = {
                "hidden_size": shape.width,
                "intermediate_size": shape.neurons or 4 * shape.width,
                "num_hidden_layers": shape.layers,
                "num_attention_heads": shape.heads,
            }
            section, _ = self.stacks[role].config
            for part in (section, f"{section}_dict"):  # of old checkpoints; it would overrule the other
                if part == section or self.config.get(part):
                    self.config.setdefault(part, {}).update(changed)
        scale = cast("CLIPModel", self.model).logit_scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = build_model(self.config, self.folder, initialised=True)
        with torch.no_grad():
            self.model.logit_scale.copy_(scale)
        self.model.train(False)


def load_trainable(folder: Path) -> TrainableClip:
    """Opens a CLIPModel folder.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    return TrainableClip.of(load(folder), load_model(folder))
