"""Trains the small CLIP of the tabletop world: contrastive, with hard negatives and throw-away helpers.

Contrastive learning alone leaves a dual encoder with a bag of words. Two auxiliary losses, whose heads are
thrown away at the end, teach it what stands where: a linear head on the patch tokens names the object under
each patch, and a probe that both towers share asks the pooled embedding whether an object with given attributes
is there, and at which x and y. Because the probe is bilinear and shared, "A left of B" in a text and A's smaller x
in a picture come to lie along the same directions of the embedding; this is what makes reversed relations
learnable (see the model card for what it brings).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPConfig, CLIPModel

from pocketvl.train.tabletop_batches import Batch
from pocketvl.train.tabletop_pool import VOCABULARIES
from pocketvl.train.tokenizer import BOS_ID, EOS_ID, PAD_ID

LARGEST_LOGIT_SCALE = 4.3
_PROBE_SCALE = 8.0


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


class Probe(nn.Module):
    """Asks an embedding about an object: is one with these attributes there, and where?"""

    def __init__(self, embedding_dim: int, width: int = 64) -> None:
        super().__init__()
        self.attributes = nn.ModuleList(nn.Embedding(len(v), width) for v in VOCABULARIES)
        self.query = nn.Sequential(nn.Linear(4 * width, 256), nn.GELU(), nn.Linear(256, 3 * embedding_dim))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, embedding: torch.Tensor, looks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Asks.

        Args:
            embedding: float [B, D], L2-normalised.
            looks: int64 [B, N, 4], attribute indices of N objects.

        Returns:
            Logits of presence [B, N], and places [B, N, 2] (x and y, -1 to 1).
        """
        told = torch.cat([table(looks[..., k]) for k, table in enumerate(self.attributes)], dim=-1)
        queries = self.query(told).unflatten(-1, (3, -1))  # [B, N, 3, D]
        answers = _PROBE_SCALE * torch.einsum("bd,bnqd->bnq", embedding, F.normalize(queries, dim=-1))
        return answers[..., 0] * 2 + self.bias, answers[..., 1:]


class TabletopClip(nn.Module):
    """A CLIPModel with the heads that training alone needs."""

    def __init__(self, settings: ClipSettings) -> None:
        super().__init__()
        self.clip = build_clip(settings)
        self.patch_head = nn.Linear(settings.image.width, 1 + sum(len(v) for v in VOCABULARIES))
        self.probe = Probe(settings.embedding_dim)
        self.register_buffer("mean", torch.tensor(settings.mean).view(1, 3, 1, 1) * 255)
        self.register_buffer("std", torch.tensor(settings.std).view(1, 3, 1, 1) * 255)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
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
        patch, presence, place, relation: weights of the auxiliary losses.
    """

    steps: int
    fade_from: float = 0.8
    patch: float = 1.0
    presence: float = 0.5
    place: float = 0.5
    relation: float = 0.5

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        device = next(module.parameters()).device
        batch = Batch(**{name: value.to(device) for name, value in vars(batch).items()})
        image, text, patches = module(batch.pixels, batch.ids)
        whole: TabletopClip = getattr(module, "module", module)
        size = len(image)
        texts = text.view(size, -1, text.shape[-1])  # [B, 1 + K, D]
        scale = whole.clip.logit_scale.clamp(max=LARGEST_LOGIT_SCALE).exp()
        share = max(0.0, min(1.0, (self.steps - step) / (self.steps * (1 - self.fade_from))))
        there, where = _image_probe(whole.probe, image, batch.rows)
        said, sides = _text_probe(whole.probe, texts[:, 0], batch)
        return {
            "contrast": _contrastive(image, texts, scale),
            "hard": _hard(image, texts, scale),
            "patch": share * self.patch * _patch_loss(whole.patch_head(patches), batch.rows),
            "presence": share * self.presence * (there + said),
            "place": share * self.place * where,
            "relation": share * self.relation * sides,
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


def _image_probe(
    probe: Probe, image: torch.Tensor, rows: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Presence loss over true and altered objects, and place loss over the true ones."""
    looks, present = rows[..., :4].long(), rows[..., 8] > 0
    false = _altered(looks, present)
    logits, places = probe(image, torch.cat([looks, false], dim=1))
    count = looks.shape[1]
    true_loss = F.softplus(-logits[:, :count][present]).mean()
    false_loss = F.softplus(logits[:, count:][present]).mean()
    target = rows[..., 4:6] * 2 - 1
    where = F.smooth_l1_loss(places[:, :count][present], target[present], beta=0.2)
    return (true_loss + false_loss) / 2, where * 2


def _text_probe(probe: Probe, text: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Presence loss over what a caption mentions, and on which side it puts the first thing of the second."""
    false = _altered(batch.looks, batch.mentioned)
    logits, places = probe(text, torch.cat([batch.looks, false], dim=1))
    true_loss = F.softplus(-logits[:, :2][batch.mentioned]).mean()
    false_loss = F.softplus(logits[:, 2:][batch.mentioned]).mean()
    apart = (places[:, 0] - places[:, 1]).gather(1, batch.axis[:, None])[:, 0]
    related = batch.side != 0
    sides = F.softplus(-4 * apart * batch.side)[related].mean() if related.any() else apart.sum() * 0
    return (true_loss + false_loss) / 2, sides


def _altered(looks: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Objects that are not there: each with one attribute changed, half of the time to its neighbour's."""
    batch, count, _ = looks.shape
    which = torch.randint(4, (batch, count, 1), device=looks.device)
    sizes = torch.tensor([len(v) for v in VOCABULARIES], device=looks.device).expand(batch, count, 4)
    step = 1 + (torch.rand(batch, count, 1, device=looks.device) * (sizes.gather(2, which) - 1)).long()
    other = (looks.gather(2, which) + step) % sizes.gather(2, which)
    number = present.sum(dim=1, keepdim=True).clamp(min=1)
    neighbour = (torch.arange(count, device=looks.device)[None] + 1) % number  # [B, N]
    borrowed = looks.gather(1, neighbour[..., None].expand(-1, -1, 4)).gather(2, which)
    swap = (torch.rand(batch, count, 1, device=looks.device) < 0.5) & (borrowed != looks.gather(2, which))
    return looks.scatter(2, which, torch.where(swap, borrowed, other))
