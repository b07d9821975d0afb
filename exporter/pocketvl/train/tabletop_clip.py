"""Trains the small CLIP of the tabletop world: contrastive, with hard negatives and throw-away helpers.

Contrastive learning alone leaves a dual encoder with a bag of words. Two auxiliary losses, whose heads are
thrown away at the end, teach it what stands where: a linear head on the patch tokens names the object under
each patch, and a linear head on the pooled embeddings, the same one for both towers, names what is the
left, the right, the upper and the lower thing of a related pair. Because the head is shared, "A left of B" in
a text and A to the left of B in a picture come to lie along the same directions of the embedding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPModel

from pocketvl.train.tabletop_batches import ROLES, Batch
from pocketvl.train.tabletop_pool import VOCABULARIES
from pocketvl.train.tokenizer import BOS_ID, EOS_ID, PAD_ID

LARGEST_LOGIT_SCALE = 4.3
_HEAD_SCALE = 16.0


@dataclass(frozen=True)
class TowerSettings:
    """Width, depth and heads of a transformer tower."""

    width: int
    layers: int
    heads: int


@dataclass(frozen=True)
class ClipSettings:
    """The shape of the model."""

    image_size: int
    patch_size: int
    image: TowerSettings
    text: TowerSettings
    text_length: int
    vocab_size: int
    embedding_dim: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def build_clip(settings: ClipSettings) -> CLIPModel:
    """A CLIPModel with random weights (of torch's present random state)."""

    def tower(shape: TowerSettings) -> dict[str, object]:
        return {
            "hidden_size": shape.width,
            "intermediate_size": 4 * shape.width,
            "num_hidden_layers": shape.layers,
            "num_attention_heads": shape.heads,
            "hidden_act": "gelu",
            "projection_dim": settings.embedding_dim,
        }

    text = {
        **tower(settings.text),
        "vocab_size": settings.vocab_size,
        "max_position_embeddings": settings.text_length,
        "pad_token_id": PAD_ID,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    }
    image = {**tower(settings.image), "image_size": settings.image_size, "patch_size": settings.patch_size}
    config = CLIPConfig(text_config=text, vision_config=image, projection_dim=settings.embedding_dim)
    return CLIPModel(config)


_COMBINATIONS = (*((k,) for k in range(4)), *combinations(range(4), 2))
_SIZES = tuple(math.prod(len(VOCABULARIES[k]) for k in chosen) for chosen in _COMBINATIONS)


class RoleHead(nn.Module):
    """Reads out of an embedding which attributes, alone and in pairs, the thing in each role has."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(embedding_dim, len(ROLES) * sum(_SIZES))

    def forward(self, embedding: torch.Tensor, looks: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy of the read-out.

        Args:
            embedding: float [N, D], L2-normalised.
            looks: int64 [N, M, 4], attribute indices of M things.
            shares: float [N, 5, M], how each role is shared among the things; a role of zeros does not count.
        """
        logits = self.linear(embedding * _HEAD_SCALE).unflatten(-1, (len(ROLES), -1))  # [N, 5, sum of sizes]
        counts = shares.sum(dim=-1) > 0
        loss: torch.Tensor = logits.new_zeros(())
        for part, chosen, size in zip(logits.split(_SIZES, dim=-1), _COMBINATIONS, _SIZES, strict=True):
            index = torch.zeros_like(looks[..., 0])
            for k in chosen:
                index = index * len(VOCABULARIES[k]) + looks[..., k]
            target = shares @ F.one_hot(index, size).to(shares.dtype)  # [N, 5, size]
            loss = loss + F.cross_entropy(part[counts], target[counts])
        return loss / len(_SIZES)


class TabletopClip(nn.Module):
    """A CLIPModel with the heads that training alone needs."""

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        self.clip = build_clip(settings)
        self.patch_head = nn.Linear(settings.image.width, 1 + sum(len(v) for v in VOCABULARIES))
        self.role_head = RoleHead(settings.embedding_dim)
        self.mean: torch.Tensor
        self.std: torch.Tensor
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1) * 255)

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Image embeddings [B, D], text embeddings [M, D] (both L2-normalised), patch tokens [B, P, W]."""
        values = (pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std
        seen = self.clip.vision_model(pixel_values=values)
        read = self.clip.text_model(input_ids=ids)
        image = F.normalize(self.clip.visual_projection(seen.pooler_output), dim=-1)
        text = F.normalize(self.clip.text_projection(read.pooler_output), dim=-1)
        return image, text, seen.last_hidden_state[:, 1:]


@dataclass(frozen=True)
class TabletopObjective:
    """The losses; the auxiliary ones fade out over the last part of the training.

    Attributes:
        steps: of the whole training.
        fade_from: share of the steps after which the auxiliary losses fade to nothing.
        hard: weight of the true caption against each of its hard negatives.
        patch: weight of naming the object under each patch.
        image_roles, text_roles: weights of reading the roles out of the pooled embeddings.
    """

    steps: int
    fade_from: float = 0.8
    hard: float = 2.0
    patch: float = 0.5
    image_roles: float = 0.5
    text_roles: float = 0.5

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        device = next(module.parameters()).device
        batch = Batch(**{name: value.to(device) for name, value in vars(batch).items()})
        image, text, patches = module(batch.pixels, batch.ids)
        whole = cast(TabletopClip, getattr(module, "module", module))
        size = len(image)
        texts = text.view(size, -1, text.shape[-1])  # [B, 1 + K, D]
        scale = whole.clip.logit_scale.clamp(max=LARGEST_LOGIT_SCALE).exp()
        share = max(0.0, min(1.0, (self.steps - step) / (self.steps * (1 - self.fade_from))))
        head = whole.role_head
        return {
            "contrast": _contrastive(image, texts, scale),
            "hard": self.hard * _hard(image, texts, scale),
            "patch": share * self.patch * _patch_loss(whole.patch_head(patches), batch.rows),
            "image_roles": share * self.image_roles * head(image, batch.rows[..., :4].long(), batch.roles),
            "text_roles": share * self.text_roles * head(text, batch.looks, batch.said),
        }


def _contrastive(image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Radford et al. 2021 (arXiv 2103.00020), with each picture's hard negatives among its wrong texts."""
    target = torch.arange(len(image), device=image.device)
    among = image @ texts[:, 0].T  # [B, B]
    hard = torch.einsum("bd,bkd->bk", image, texts[:, 1:])
    to_text = F.cross_entropy(scale * torch.cat([among, hard], dim=1), target)
    to_image = F.cross_entropy(scale * among.T, target)
    return (to_text + to_image) / 2


def _hard(image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The true caption against each of its hard negatives, one at a time."""
    similarity = torch.einsum("bd,bkd->bk", image, texts)
    return F.softplus(scale * (similarity[:, 1:] - similarity[:, :1])).mean()


def _patch_loss(logits: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Which object lies under each patch, if any, and what it looks like; logits [B, P, 1 + attributes]."""
    side = int(logits.shape[1] ** 0.5)
    centres = (torch.arange(side, device=rows.device) + 0.5) / side
    x, y = centres.repeat(side), centres.repeat_interleave(side)  # [P]
    distance = torch.hypot(rows[:, None, :, 4] - x[None, :, None], rows[:, None, :, 5] - y[None, :, None])
    reach = rows[:, None, :, 6].clamp(min=0.75 / side)
    covered = (distance <= reach) & (rows[:, None, :, 8] > 0)  # [B, P, 5]
    nearest = torch.where(covered, distance, torch.inf).argmin(dim=-1)  # [B, P]
    any_object = covered.any(dim=-1)
    loss = F.binary_cross_entropy_with_logits(logits[..., 0], any_object.float())
    attributes = rows[..., :4].long().gather(1, nearest[..., None].expand(-1, -1, 4))[any_object]  # [M, 4]
    start = 1
    for k, values in enumerate(VOCABULARIES):
        named = logits[..., start : start + len(values)][any_object]
        loss = loss + F.cross_entropy(named, attributes[:, k])
        start += len(values)
    return loss / 5
