"""What a tabletop ViLT is trained on: the right answer, and what helps to find it.

From answers alone, a model of this size takes long to find out that a word of the question and a part of the
picture have to do with each other. So the scenes' own objects say, on the way there, what lies under each
patch, which patches a question is about, and where in the picture these things lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from pocketvl.families.vilt import ViltFusion
from pocketvl.settings import Layers, Rounds, Settings, Size, Weight
from pocketvl.tabletop.clip import naming_loss, under_patches
from pocketvl.tabletop.pool import VOCABULARIES
from pocketvl.tabletop.questions import AnswerBatch, QuestionMix
from pocketvl.train.batches import mirror
from pocketvl.train.settings import LoopSettings


@dataclass(frozen=True)
class AnswerPhase(Settings):
    """The training.

    Attributes:
        batch_size: questions a step.
        rounds: how often every scene is asked about, before training; a step draws from all that was asked.
        loop: how long, how fast.
        naming: weight of what lies under each patch.
        referring: weight of which patches the question is about.
        looking: weight of the first token's attention: two heads are to look at the first thing that the
            question is about, and at the second.
        locating: weight of where these two lie, which the first token is to know.
        naming_layer: how many layers patches have been through when they are asked for their object.
        referring_layer: likewise, for whether the question is about it.
        locating_layer: how many layers the first token has been through when it knows; in the last of them it
            looks.
        fade_from: share of the steps after which all four fade to nothing.
        mix: how often each type of question comes up.
    """

    batch_size: Size
    loop: LoopSettings
    rounds: Rounds = 4
    naming: Weight = 0.5
    referring: Weight = 2.0
    looking: Weight = 0.5
    locating: Weight = 4.0
    naming_layer: Layers = 2
    referring_layer: Layers = 4
    locating_layer: Layers = 5
    fade_from: Annotated[float, Field(ge=0, lt=1)] = 0.8
    mix: QuestionMix = field(default_factory=QuestionMix)


class FusionWithHeads(nn.Module):
    """The model's component, with the heads on its patches and its first token that only training needs."""

    def __init__(self, fusion: ViltFusion, width: int, phase: AnswerPhase) -> None:
        """Args: fusion: what is trained. width: of its hidden states. phase: which layers have heads."""
        super().__init__()
        self.fusion = fusion
        self.naming = nn.Linear(width, 1 + sum(len(v) for v in VOCABULARIES))
        self.referring = nn.Linear(width, 2)
        self.locating = nn.Linear(width, 4)
        self.phase = phase

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Answer questions, and say for the training what each patch is taken for.

        Args:
            pixels: uint8 [B, H, W, 3].
            ids: int [B, T].

        Returns:
            Logits of the answers [B, answers]; of what lies under each patch [B, P, 1 + 21]; of whether that
            is the first or the second thing that the question is about [B, P, 2]; the shares of the first
            token's attention, in two heads, that go to each patch [B, 2, P]; and x and y of the first thing
            and of the second, as fractions of the picture's side [B, 2, 2].
        """
        hidden, mask = self.fusion.embed(pixels, ids)
        first = ids.shape[1] + 1
        for index, layer in enumerate(self.fusion.layers, start=1):
            hidden, attention = layer(hidden, mask, True)  # [B, T + 1 + P, width], [B, heads, queries, keys]
            if index == self.phase.naming_layer:
                named = self.naming(hidden[:, first:]).float()
            if index == self.phase.referring_layer:
                referred = self.referring(hidden[:, first:]).float()
            if index == self.phase.locating_layer:
                looked = attention[:, :2, 0, first:].float()
                located = self.locating(F.layer_norm(hidden[:, 0], hidden.shape[-1:])).float().view(-1, 2, 2)
        return self.fusion.answer(hidden), named, referred, looked, located


@dataclass(frozen=True)
class AnswerObjective:
    """The right answer, and what helps to find it, which fades out over the last part of the training.

    Source: attention that is told where to look, Liu et al., 2017, "Attention Correctness in Neural Image
    Captioning" (arXiv 1605.09553), strong supervision.
    """

    phase: AnswerPhase

    def __call__(self, module: nn.Module, batch: AnswerBatch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        rows, mentioned = batch.rows.to(device), batch.mentions.to(device)
        pixels = mirror(batch.pixels.to(device), batch.mirrored.to(device))
        answers, named, referred, looked, located = module(pixels, batch.ids.to(device))
        steps = self.phase.loop.steps
        share = max(0.0, min(1.0, (steps - step) / (steps * (1 - self.phase.fade_from))))
        covered, which = under_patches(rows, named.shape[1])
        meant = things_meant(rows, mentioned)
        wanted = meant.gather(1, which[..., None].expand(-1, -1, 2))  # [B, P, 2]
        wanted = (wanted & covered[..., None]).float()
        return {
            "answer": F.cross_entropy(answers, batch.answers.to(device)),
            "naming": share * self.phase.naming * naming_loss(named, rows, covered, which),
            "referring": share * self.phase.referring * F.binary_cross_entropy_with_logits(referred, wanted),
            "looking": share * self.phase.looking * looking_loss(looked, wanted),
            "locating": share * self.phase.locating * locating_loss(located, rows, meant),
        }


def looking_loss(looked: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Mean of minus the logarithm of the attention that goes to patches of what is meant; 0 where nothing is.

    Args:
        looked: shares of the attention of two heads [B, 2, P].
        wanted: float [B, P, 2], 1 for patches of the first thing, which is the first head's, and of the
            second, which is the other's.
    """
    found = (looked * wanted.transpose(1, 2)).sum(dim=-1)  # [B, 2]
    asked = wanted.amax(dim=1) > 0
    return -(found.clamp(min=1e-4).log() * asked).sum() / asked.sum().clamp(min=1)


def locating_loss(located: torch.Tensor, rows: torch.Tensor, meant: torch.Tensor) -> torch.Tensor:
    """Mean distance along x and y from where the one thing lies that is meant; 0 where no question means one.

    Args:
        located: float [B, 2, 2], x and y of the first thing and of the second.
        rows: float32 [B, 5, 9].
        meant: bool [B, 5, 2], which things are the first and the second.
    """
    one = meant.sum(dim=1) == 1  # [B, 2]
    wanted = meant.float().transpose(1, 2) @ rows[..., 4:6]  # [B, 2, 2]
    return ((located - wanted).abs().mean(dim=-1) * one).sum() / one.sum().clamp(min=1)


def things_meant(rows: torch.Tensor, mentioned: torch.Tensor) -> torch.Tensor:
    """Which things a question is about, the first it names and the second, bool [B, 5, 2].

    Args:
        rows: float32 [B, 5, 9].
        mentioned: int64 [B, 4], as in `AnswerBatch`; where a question names none, it is about all.
    """
    shape, colour, present = rows[..., 0], rows[..., 1], rows[..., 8] > 0  # [B, 5]
    found = []
    for column in (0, 2):
        words = mentioned[:, column : column + 2, None]  # [B, 2, 1]
        alike = ((words[:, 0] == 0) | (words[:, 0] == shape + 1)) & (
            (words[:, 1] == 0) | (words[:, 1] == colour + 1)
        )
        found.append(alike & present & ((column == 0) | (words.amax(1) > 0)))
    return torch.stack(found, dim=-1)
