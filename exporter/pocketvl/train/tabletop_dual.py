"""The dual encoder of the tabletop world: a ConvNeXt that sees and a BERT that reads.

Its towers go through the phases of the CLIP (`tabletop_clip`). Where the transformer's pooled token adds up
what the patches say, the ConvNeXt takes the mean over its places.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from pocketvl.errors import RecipeError
from pocketvl.train.tabletop_clip import ModelSettings, TowerSettings
from pocketvl.train.tabletop_pool import VOCABULARIES
from pocketvl.train.tokenizer import PAD_ID

# What a layer's outputs are scaled by at first. ConvNeXt's 1e-6 is made for many layers and long trainings.
_FIRST_LAYER_SCALE = 0.1
_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class ConvNextSettings:
    """Stages of layers; each but the first halves the sides of what it sees.

    Attributes:
        patch_size: pixels a side of what becomes one place.
        channels: of each stage.
        depths: layers of each stage.
    """

    patch_size: int
    channels: tuple[int, ...]
    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.channels or len(self.channels) != len(self.depths):
            raise RecipeError("channels and depths say one number for each stage")
        if min(self.patch_size, *self.channels, *self.depths) < 1:
            raise RecipeError("patch_size, channels and depths must be at least 1")


@dataclass(frozen=True)
class DualEncoderSettings(ModelSettings):
    """The shape of a VisionTextDualEncoder."""

    image: ConvNextSettings
    text: TowerSettings


def build_dual_encoder(settings: DualEncoderSettings) -> VisionTextDualEncoderModel:
    """A VisionTextDualEncoderModel with random weights (of torch's present random state)."""
    image, text = settings.image, settings.text
    vision_config = {
        "model_type": "convnext",
        "image_size": settings.image_size,
        "patch_size": image.patch_size,
        "num_stages": len(image.channels),
        "hidden_sizes": list(image.channels),
        "hidden_size": image.channels[-1],  # what the projection reads
        "depths": list(image.depths),
        "layer_scale_init_value": _FIRST_LAYER_SCALE,
        "layer_norm_eps": _NORM_EPSILON,
    }
    text_config = {
        "model_type": "bert",
        "vocab_size": settings.vocab_size,
        "max_position_embeddings": settings.text_length,
        "pad_token_id": PAD_ID,
        "hidden_size": text.width,
        "intermediate_size": 4 * text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "layer_norm_eps": _NORM_EPSILON,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = VisionTextDualEncoderConfig(
        vision_config=vision_config, text_config=text_config, projection_dim=settings.embedding_dim
    )
    config._attn_implementation = "eager"  # as in `build_clip`
    return VisionTextDualEncoderModel(config)


class ConvNextTower(nn.Module):
    """The image side of the model, with the head on its places that training alone needs."""

    def __init__(self, model: VisionTextDualEncoderModel, settings: DualEncoderSettings) -> None:
        """Args: model: shares its modules. settings: that it was built from."""
        super().__init__()
        self.encoder: nn.Module = model.vision_model
        self.projection: nn.Module = model.visual_projection
        self.patch_head = nn.Linear(settings.image.channels[-1], 1 + sum(len(v) for v in VOCABULARIES))
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As `tabletop_clip.ImageTower`, with the P places of the last stage for patches.

        Args:
            pixels: uint8 [B, H, W, 3].

        Returns:
            Embeddings [B, D]; logits of the places [B, P, 1 + 21]; the places as embeddings [B, P, D].
        """
        values = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        seen = self.encoder(pixel_values=values)
        places = seen.last_hidden_state.flatten(2).transpose(1, 2)  # [B, P, channels], row by row
        read = self.projection(self.encoder.get_submodule("layernorm")(places)).float()
        embedding = F.normalize(self.projection(seen.pooler_output).float(), dim=-1)
        return embedding, self.patch_head(places).float(), F.normalize(read, dim=-1)
