"""The CLIP of the tabletop world, and what each phase of its training asks of it.

First the oracle (`tabletop_oracle`) learns where scenes and statements belong; then each encoder learns, by
itself, to land there. The two meet for the first time when the checkpoint is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from transformers import CLIPConfig, CLIPModel

from pocketvl.errors import RecipeError
from pocketvl.families.clip import ClipImageEncoder
from pocketvl.families.dual_encoder import ConvNextImageEncoder
from pocketvl.settings import Layers, Pixels, Positive, Settings, Width
from pocketvl.tabletop.batches import Batch
from pocketvl.tabletop.oracle import TabletopOracle
from pocketvl.tabletop.pool import VOCABULARIES
from pocketvl.tabletop.tokenizer import BOS_ID, EOS_ID, LEAST_VOCABULARY, PAD_ID
from pocketvl.train.contrast import contrastive_loss, pairwise_loss

LARGEST_LOGIT_SCALE = 4.3

TextLength = Annotated[int, Field(ge=3, le=2**16)]
"""Tokens of a text, the two special ones included."""
VocabularySize = Annotated[int, Field(ge=LEAST_VOCABULARY, le=2**24)]
"""Tokens of the tokenizer that is trained, too."""


@dataclass(frozen=True)
class EncoderSettings(Settings):
    """Width, depth and heads of a transformer encoder."""

    width: Width
    layers: Layers
    heads: Width

    def __post_init__(self) -> None:
        super().__post_init__()
        check_heads(self.heads, self.width)


@dataclass(frozen=True)
class ModelSettings(Settings):
    """Settings of a model, whatever its encoders are."""

    image_size: Pixels
    text_length: TextLength
    vocab_size: VocabularySize
    embedding_dim: Width
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


@dataclass(frozen=True)
class ClipSettings(ModelSettings):
    """The shape of a CLIP."""

    patch_size: Pixels
    image: EncoderSettings
    text: EncoderSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches(self.patch_size, self.image_size)


def check_heads(heads: int, width: int) -> None:
    """Raise RecipeError where attention heads cannot share a width."""
    if width % heads:
        raise RecipeError(f"heads: {heads} heads do not divide a width of {width}")


def check_patches(patch_size: int, image_size: int) -> None:
    """Raise RecipeError where a picture has not one patch."""
    if patch_size > image_size:
        raise RecipeError(f"patch_size: {patch_size} pixels are more than the {image_size} of a picture")


def build_clip(settings: ClipSettings) -> CLIPModel:
    """A CLIPModel with random weights (of torch's present random state)."""

    def section(shape: EncoderSettings) -> dict[str, object]:
        return {
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "hidden_act": "gelu",
            "projection_dim": settings.embedding_dim,
        }

    text = {
        **section(settings.text),
        "vocab_size": settings.vocab_size,
        "max_position_embeddings": settings.text_length,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    image = {**section(settings.image), "image_size": settings.image_size, "patch_size": settings.patch_size}
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=settings.embedding_dim)
    # Eager attention: under bfloat16 on a CPU the fused kernel's backward pass takes 1.6 times as long.
    config._attn_implementation = "eager"
    return CLIPModel(config)


class PatchHeadEncoder(nn.Module):
    """The image encoder of a model, with the head on its patches that only training needs."""

    def __init__(self, encoder: ClipImageEncoder | ConvNextImageEncoder, width: int) -> None:
        """Args: encoder: shared. width: of the patches' hidden states."""
        super().__init__()
        self.encoder = encoder
        self.patch_head = nn.Linear(width, 1 + sum(len(v) for v in VOCABULARIES))

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Embed pictures and, for the training, what lies under each patch.

        Args:
            pixels: uint8 [B, H, W, 3].

        Returns:
            The pictures' embeddings [B, D], L2-normalised; the patches' logits [B, P, 1 + 21]; the patches'
            tokens read like the pooled one, as embeddings [B, P, D], L2-normalised.
        """
        hidden = self.encoder.encode(pixels)
        tokens, norm = self.patches(hidden)
        read = self.encoder.visual_projection(norm(tokens)).float()
        return self.encoder.embed(hidden), self.patch_head(tokens).float(), F.normalize(read, dim=-1)

    def patches(self, hidden: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
        """Of what the encoder gives, the patches [B, P, width], row by row, and the norm they are read by."""
        raise NotImplementedError


class ClipPatchHeadEncoder(PatchHeadEncoder):
    """Of a CLIPModel: its pooled token comes before the patches."""

    def patches(self, hidden: torch.Tensor) -> tuple[torch.Tensor, nn.Module]:
        return hidden[:, 1:], self.encoder.get_submodule("vision_model.post_layernorm")


@dataclass(frozen=True)
class TextObjective:
    """Land where the oracle puts what the text says."""

    oracle: TabletopOracle

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        with torch.no_grad():
            target = self.oracle.to(device).embed_statements(batch.statements.to(device))
        text = module(batch.ids.to(device))
        return {"text": _apart(text, target)}


@dataclass(frozen=True)
class ImageObjective:
    """Land where the oracle puts the scene, and nearer to its true statement than to false ones.

    The oracle's scene, and what lies under each patch, are means to that end, and fade out over the last part
    of the training. A patch first learns to name its object, and then to say what the oracle adds to a scene
    for that object where it stands: what the pooled token then has to do is add up.

    Attributes:
        oracle: knows where scenes and statements belong; not trained any more.
        steps: of the whole training.
        placed_from: share of the steps after which patches are asked for the oracle's vector of their object.
        fade_from: share of the steps after which the means fade to nothing.
        hard, patch, placed, scene: weights of the true statement against each false one, of naming the
            objects under the patches, of the oracle's vectors for them, and of the oracle's scene.
    """

    oracle: TabletopOracle
    steps: int
    placed_from: float = 1 / 3
    fade_from: float = 0.8
    hard: float = 2.0
    patch: float = 0.5
    placed: float = 4.0
    scene: float = 8.0

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        rows = batch.rows.to(device)
        with torch.no_grad():
            scenes, statements, scale = self.oracle.to(device)(rows, batch.statements.to(device))
            things = F.normalize(self.oracle.embed_things(rows), dim=-1)
        image, logits, tokens = module(batch.pixels.to(device))
        under = under_patches(rows, logits.shape[1])
        texts = statements.view(len(image), -1, statements.shape[-1])  # [B, 1 + K, D]
        share = max(0.0, min(1.0, (self.steps - step) / (self.steps * (1 - self.fade_from))))
        losses = {
            "contrast": contrastive_loss(image, texts, scale),
            "hard": self.hard * pairwise_loss(image, texts, scale),
            "patch": share * self.patch * naming_loss(logits, rows, *under),
            "scene": share * self.scene * _apart(image, scenes),
        }
        if step >= self.steps * self.placed_from:
            losses["placed"] = share * self.placed * _placing_loss(tokens, things, *under)
        return losses


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Pictures against captions and false captions, as both encoders embed them.

    Attributes:
        scale: factor on the similarities; not trained any more.
        hard: weight of the true caption against each false one.
    """

    scale: torch.Tensor
    hard: float = 2.0

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        image, text = module(batch.pixels.to(device), batch.ids.to(device))
        texts = text.view(len(image), -1, text.shape[-1])  # [B, 1 + K, D]
        scale = self.scale.to(device)
        return {
            "contrast": contrastive_loss(image, texts, scale),
            "hard": self.hard * pairwise_loss(image, texts, scale),
        }


def _apart(embedding: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """One minus the mean cosine of L2-normalised [N, D] and [N, D]."""
    return 1 - (embedding * target).sum(dim=-1).mean()


def under_patches(rows: torch.Tensor, patches: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether anything lies under each of P patches, bool [B, P], and which thing, int64 [B, P]."""
    side = int(patches**0.5)
    centres = (torch.arange(side, device=rows.device) + 0.5) / side
    x, y = centres.repeat(side), centres.repeat_interleave(side)  # [P]
    distance = torch.hypot(rows[:, None, :, 4] - x[None, :, None], rows[:, None, :, 5] - y[None, :, None])
    reach = rows[:, None, :, 6].clamp(min=0.75 / side)
    covered = (distance <= reach) & (rows[:, None, :, 8] > 0)  # [B, P, 5]
    return covered.any(dim=-1), torch.where(covered, distance, torch.inf).argmin(dim=-1)


def naming_loss(
    logits: torch.Tensor, rows: torch.Tensor, covered: torch.Tensor, owner: torch.Tensor
) -> torch.Tensor:
    """Whether an object lies under each patch and what it looks like; logits [B, P, 1 + attributes]."""
    loss = F.binary_cross_entropy_with_logits(logits[..., 0], covered.float())
    attributes = rows[..., :4].long().gather(1, owner[..., None].expand(-1, -1, 4))[covered]  # [M, 4]
    start = 1
    for k, values in enumerate(VOCABULARIES):
        named = logits[..., start : start + len(values)][covered]
        loss = loss + F.cross_entropy(named, attributes[:, k])
        start += len(values)
    return loss / 5


def _placing_loss(
    tokens: torch.Tensor, things: torch.Tensor, covered: torch.Tensor, owner: torch.Tensor
) -> torch.Tensor:
    """How far the patches' tokens [B, P, D] are from the vectors [B, 5, D] of the objects under them."""
    target = things.gather(1, owner[..., None].expand(-1, -1, things.shape[-1]))  # [B, P, D]
    return _apart(tokens[covered], target[covered])
