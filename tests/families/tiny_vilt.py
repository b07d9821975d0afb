"""A tiny seeded ViLT: one stream in which text and picture meet in every layer's attention."""

from __future__ import annotations

import torch
from torch import nn
from transformers import ViltConfig, ViltModel

IMAGE_SIZE = 32
PATCH_SIZE = 8
HIDDEN = 32
HEADS = 2
LAYERS = 2
VOCABULARY = 64
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
PAD = 0
TEXT_IDS = (5, 17, 42, 9, 33, 6, PAD, PAD)
TEXT_LENGTH = len(TEXT_IDS)
IMAGE_LENGTH = 1 + PATCHES


class TinyVilt(nn.Module):
    """float32 pixels [B, 3, 32, 32] -> float32 [B, 32], pooled, of the pictures beside one fixed text.

    The text is a buffer, so that the module has the one input that calibration feeds; its last two places are
    padding and masked. Of the sequence of 25, the text is the first 8, the picture (class, patches) the rest.
    """

    def __init__(self, model: ViltModel) -> None:
        """Args: model: with a pooling layer; shares its parameters."""
        super().__init__()
        self.model = model
        self.ids: torch.Tensor
        self.register_buffer("ids", torch.tensor(TEXT_IDS))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Reads a batch of pictures together with the text."""
        ids = self.ids.expand(len(pixels), -1)
        output = self.model(
            input_ids=ids,
            attention_mask=(ids != PAD).long(),
            image_embeds=self.patches(pixels),
            pixel_mask=torch.ones(
                len(pixels), IMAGE_LENGTH, dtype=torch.long
            ),  # of tokens, beside embeddings
        )
        pooled: torch.Tensor = output.pooler_output
        return pooled

    def patches(self, pixels: torch.Tensor) -> torch.Tensor:
        """The picture's tokens, float32 [B, 17, 32], at fixed places.

        transformers draws patches at random and interpolates their places to the mask's size, even where
        neither changes a thing but the order; this is the same picture without either.
        """
        embeddings = self.model.embeddings
        found = embeddings.patch_embeddings(pixels).flatten(2).transpose(1, 2)  # [B, 16, 32]
        first = embeddings.cls_token.expand(len(pixels), -1, -1)
        tokens: torch.Tensor = torch.cat([first, found], dim=1) + embeddings.position_embeddings
        return tokens


def make_tiny_vilt(seed: int = 0) -> TinyVilt:
    """Two layers of 32 over 8 text and 17 picture tokens; every parameter drawn from the seed.

    Returns:
        In eval mode, fp32, with eager attention, the only one that ViLT has.
    """
    config = ViltConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=TEXT_LENGTH,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        intermediate_size=64,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        pad_token_id=PAD,
    )
    with torch.random.fork_rng(devices=[]):
        model = ViltModel(config)
    draw_parameters_(model, seed)
    return TinyVilt(model).eval().requires_grad_(False)


def draw_parameters_(model: nn.Module, seed: int) -> None:
    """Draws every parameter of a ViLT from the seed, so that none is 0 or 1 by chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embeddings" in name and "projection" not in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
