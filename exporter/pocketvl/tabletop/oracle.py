"""An embedding space for scenes and statements, learned from what stands in a scene instead of its pixels.

A dual encoder that learns from pictures and captions alone stays a bag of words: who is left of whom tells
it nothing at first, so nothing draws that into the embeddings. The oracle has no such trouble. It is handed
the objects of a scene and the meaning of a text, and adds up one vector an object, made of its look and its
place. A statement goes through the same encoder, as the scene that it describes: "A left of B" is an A on the
left and a B on the right. So a relation and its reverse lie apart from the first step on. The encoders of the
CLIP then learn to land where the oracle puts the same scene or text.

(With an encoder of its own for statements, the oracle itself sat on the plateau: after 1,200 steps it told
98 % of the swapped bindings and 55 % of the reversed relations.)

Source: sums over the elements of a set, Zaheer et al. 2017 (arXiv 1703.06114); feature distillation, Romero
et al. 2015 (arXiv 1412.6550).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.tabletop.batches import Batch
from pocketvl.tabletop.pool import VOCABULARIES
from pocketvl.tabletop.scene import Relation
from pocketvl.train.contrast import contrastive_loss, pairwise_loss

_FIRST_LOGIT_SCALE = 2.7
_SAID_PLACES = {
    None: (0.0, 0.0),
    Relation.LEFT: (-0.5, 0.0),
    Relation.RIGHT: (0.5, 0.0),
    Relation.ABOVE: (0.0, -0.5),
    Relation.BELOW: (0.0, 0.5),
}
"""Where a text puts the first of two things; the second stands opposite. The picture reaches from -1 to 1."""


class TabletopOracle(nn.Module):
    """Embeds the objects of scenes and the meanings of texts into one space, both L2-normalised."""

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.attributes = nn.ModuleList(nn.Embedding(1 + len(values), 64) for values in VOCABULARIES)
        self.look = _two_layers(64 * len(VOCABULARIES), 256, 128)
        self.placed = _two_layers(128 + 2, 384, embedding_dim)
        self.logit_scale = nn.Parameter(torch.tensor(_FIRST_LOGIT_SCALE))
        self.said_places: torch.Tensor
        self.register_buffer("said_places", torch.tensor([_SAID_PLACES[r] for r in (None, *Relation)]))

    def forward(self, rows: torch.Tensor, statements: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Scenes [B, D], statements [M, D], and the factor on their similarities."""
        return self.embed_scenes(rows), self.embed_statements(statements), self.logit_scale.exp()

    def embed_scenes(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 [B, 5, 9], as `ScenePool.rows` -> [B, D]."""
        return F.normalize(self.embed_things(rows).sum(dim=1), dim=-1)

    def embed_things(self, rows: torch.Tensor) -> torch.Tensor:
        """float32 [B, 5, 9] -> [B, 5, D]: what each thing adds to its scene; absent ones add zeros."""
        return self._embed(rows[..., :4].long() + 1, 2 * rows[..., 4:6] - 1) * rows[..., 8:]

    def embed_statements(self, statements: torch.Tensor) -> torch.Tensor:
        """int64 [M, 9], as `Batch.statements` -> [M, D]."""
        looks = statements[:, :8].view(-1, 2, 4)
        place = self.said_places[statements[:, 8]]
        second = (statements[:, 8:] > 0).to(place.dtype)  # [M, 1]
        present = torch.stack([torch.ones_like(second), second], dim=1)  # [M, 2, 1]
        things = self._embed(looks, torch.stack([place, -place], dim=1)) * present  # [M, 2, D]
        return F.normalize(things.sum(dim=1), dim=-1)

    def _embed(self, looks: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        """Attribute numbers [N, M, 4] (0: not said) and places [N, M, 2] -> [N, M, D]."""
        parts = [table(looks[..., k]) for k, table in enumerate(self.attributes)]
        look = self.look(torch.cat(parts, dim=-1))
        placed: torch.Tensor = self.placed(torch.cat([look, places], dim=-1))
        return placed


@dataclass(frozen=True)
class OracleObjective:
    """A scene against the statements of the batch, and its true statement against its false ones."""

    hard: float = 2.0

    def __call__(self, module: nn.Module, batch: Batch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        scenes, statements, scale = module(batch.rows.to(device), batch.statements.to(device))
        grouped = statements.view(len(scenes), -1, statements.shape[-1])  # [B, 1 + K, D]
        return {
            "contrast": contrastive_loss(scenes, grouped, scale),
            "hard": self.hard * pairwise_loss(scenes, grouped, scale),
        }


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))
