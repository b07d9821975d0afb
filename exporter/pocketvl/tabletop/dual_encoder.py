"""The dual encoder of the tabletop world: a ConvNeXt that sees and a BERT that reads.

Its encoders go through the phases of the CLIP (`tabletop_clip`). Where the transformer's pooled token adds up
what the patches say, the ConvNeXt takes the mean over its positions.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from pocketvl.errors import RecipeError
from pocketvl.settings import Layers, Pixels, Settings, Width
from pocketvl.tabletop.clip import EncoderSettings, ModelSettings, PatchHeadEncoder, check_patches
from pocketvl.tabletop.tokenizer import PAD_ID

# What a layer's outputs are scaled by at first. ConvNeXt's 1e-6 is made for many layers and long trainings.
_FIRST_LAYER_SCALE = 0.1
_NORM_EPSILON = 1e-6


@dataclass(frozen=True)
class ConvNextSettings(Settings):
    """Stages of layers; each but the first halves the sides of what it sees.

    Attributes:
        patch_size: pixels a side of what becomes one position.
        channels: of each stage.
        depths: layers of each stage.
    """

    patch_size: Pixels
    channels: tuple[Width, ...]
    depths: tuple[Layers, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.channels or len(self.channels) != len(self.depths):
            raise RecipeError("channels and depths say one number for each stage")


@dataclass(frozen=True)
class DualEncoderSettings(ModelSettings):
    """The shape of a VisionTextDualEncoder."""

    image: ConvNextSettings
    text: EncoderSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches(self.image.patch_size, self.image_size >> len(self.image.channels) - 1)


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


class ConvNextPatchHeadEncoder(PatchHeadEncoder):
    """Of a ConvNeXt: the positions of its last stage are the patches."""

    def patches(self, hidden: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
        return hidden.flatten(2).transpose(1, 2), self.encoder.get_submodule("vision_model.layernorm")
