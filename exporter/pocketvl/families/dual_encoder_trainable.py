"""VisionTextDualEncoder as it is compressed and trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.families.clip_trainable import ClipImageTower
from pocketvl.families.dual_encoder import build_model, load, load_model
from pocketvl.families.trainable import LayerStack, Trainable
from pocketvl_runtime.manifest import Role

if TYPE_CHECKING:
    from transformers import VisionTextDualEncoderModel


class BertTextTower(nn.Module):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is not looked at."""

    def __init__(self, model: VisionTextDualEncoderModel, pad_id: int) -> None:
        """Args: model: shares its modules. pad_id: the id that fills up short texts."""
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of texts."""
        pooled = self.text_model(
            input_ids=ids.long(), attention_mask=(ids != self.pad_id).long()
        ).pooler_output
        return F.normalize(self.text_projection(pooled).float(), dim=-1)


class TrainableDualEncoder(Trainable):
    """A VisionTextDualEncoderModel; its image tower is no stack of transformer layers."""

    @property
    def stacks(self) -> Mapping[Role, LayerStack]:
        model = cast("VisionTextDualEncoderModel", self.model)
        name, config = "text_model.encoder.layer", ("text_config", "num_hidden_layers")
        return {Role.TEXT_ENCODER: LayerStack(name, config, model.text_projection.in_features)}

    @property
    def roles(self) -> tuple[Role, ...]:
        return Role.IMAGE_ENCODER, Role.TEXT_ENCODER

    def tower(self, role: Role) -> nn.Module:
        model = cast("VisionTextDualEncoderModel", self.model)
        if role is Role.IMAGE_ENCODER:
            return ClipImageTower(model, self.preprocess)
        return BertTextTower(model, self.tokenizer.pad_id)

    def original(self) -> nn.Module:
        with torch.device("meta"):
            return build_model(self.config, self.folder)


def load_trainable(folder: Path) -> TrainableDualEncoder:
    """Opens a VisionTextDualEncoderModel folder with a ConvNeXt and a BERT in it.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    return TrainableDualEncoder.of(load(folder), load_model(folder))
