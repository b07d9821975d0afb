"""The ViLT of the tabletop world, from nothing to a Hugging Face folder.

It learns to answer, and on the way there, from the scenes' own objects: what lies under each patch, and which
patches a question is about. From answers alone, a model of this size takes long to find out that a word of
the question and a part of the picture have to do with each other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
from accelerate.utils import set_seed
from pydantic import Field
from torch import nn
from transformers import ViltConfig, ViltForQuestionAnswering

from pocketvl.errors import RecipeError
from pocketvl.families.vilt import ViltFusion
from pocketvl.launch import is_first, processes
from pocketvl.settings import Layers, Pixels, Positive, Rounds, Settings, Size, Weight, Width
from pocketvl.tabletop.clip import (
    TextLength,
    VocabularySize,
    check_heads,
    check_patches,
    naming_loss,
    under_patches,
)
from pocketvl.tabletop.language import ANSWERS
from pocketvl.tabletop.pool import VOCABULARIES, PoolSettings, open_pool
from pocketvl.tabletop.questions import AnswerBatch, AnswerBatches, ask
from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer
from pocketvl.tabletop.training import check_out, corpus, preprocess_spec, publish_checkpoint
from pocketvl.train.batches import mirror
from pocketvl.train.loop import Trainer, TrainReport, launched
from pocketvl.train.phases import claim, named
from pocketvl.train.settings import LoopSettings
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.progress import Progress


@dataclass(frozen=True)
class ViltSettings(Settings):
    """The shape of the model.

    Attributes:
        image_size: the picture's side, pixels.
        patch_size: a patch's side, pixels.
        width: of hidden states; the feed-forward layers have four times as many neurons.
        layers: how many.
        heads: of each attention.
        text_length: the most tokens of a question, special ones included.
        vocab_size: of the tokenizer.
        mean: taken off the colours, which are 0 to 1.
        std: divides them then.
    """

    image_size: Pixels
    patch_size: Pixels
    width: Width
    layers: Layers
    heads: Width
    text_length: TextLength
    vocab_size: VocabularySize
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_patches(self.patch_size, self.image_size)
        check_heads(self.heads, self.width)


@dataclass(frozen=True)
class AnswerPhase(Settings):
    """The training.

    Attributes:
        batch_size: questions a step.
        rounds: how often every scene is asked about, before training; a step draws from all that was asked.
        loop: how long, how fast.
        naming: weight of what lies under each patch.
        referring: weight of which patches the question is about.
        naming_layer: how many layers patches have been through when they are asked for their object.
        referring_layer: likewise, for whether the question is about it.
        fade_from: share of the steps after which both fade to nothing.
    """

    batch_size: Size
    loop: LoopSettings
    rounds: Rounds = 4
    naming: Weight = 0.5
    referring: Weight = 2.0
    naming_layer: Layers = 2
    referring_layer: Layers = 4
    fade_from: Annotated[float, Field(ge=0, lt=1)] = 0.8


@dataclass(frozen=True)
class TabletopViltSettings(Settings):
    """All that decides what comes out.

    Attributes:
        model: its shape.
        scenes: what it is asked about.
        answer: how it learns.
    """

    model: ViltSettings
    scenes: PoolSettings
    answer: AnswerPhase

    def __post_init__(self) -> None:
        super().__post_init__()
        model, answer = self.model, self.answer
        if not 1 <= answer.naming_layer <= answer.referring_layer <= model.layers:
            raise RecipeError(
                f"naming_layer and referring_layer are 1 to {model.layers}, the first not above the second"
            )


def build_vilt(settings: ViltSettings) -> ViltForQuestionAnswering:
    """A ViltForQuestionAnswering with random weights (of torch's present random state)."""
    return ViltForQuestionAnswering(
        ViltConfig(
            vocab_size=settings.vocab_size,
            type_vocab_size=1,
            max_position_embeddings=settings.text_length,
            hidden_size=settings.width,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            intermediate_size=4 * settings.width,
            layer_norm_eps=1e-5,  # the default of 1e-12 is 0 in 16 bits
            image_size=settings.image_size,
            patch_size=settings.patch_size,
            pad_token_id=PAD_ID,
            id2label=dict(enumerate(ANSWERS)),
            label2id={answer: index for index, answer in enumerate(ANSWERS)},
        )
    )


class FusionWithPatchHeads(nn.Module):
    """The model's component, with the heads on its patches that only training needs."""

    def __init__(self, fusion: ViltFusion, settings: ViltSettings, phase: AnswerPhase) -> None:
        """Args: fusion: what is trained. settings: its shape. phase: which layers have heads."""
        super().__init__()
        self.fusion = fusion
        self.naming = nn.Linear(settings.width, 1 + sum(len(v) for v in VOCABULARIES))
        self.referring = nn.Linear(settings.width, 2)
        self.naming_layer, self.referring_layer = phase.naming_layer, phase.referring_layer

    def forward(
        self, pixels: torch.Tensor, ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Answer questions, and say for the training what each patch is taken for.

        Args:
            pixels: uint8 [B, H, W, 3].
            ids: int [B, T].

        Returns:
            Logits of the answers [B, answers]; of what lies under each patch [B, P, 1 + 21]; and of whether
            that is the first or the second thing that the question is about [B, P, 2].
        """
        hidden, mask = self.fusion.embed(pixels, ids)
        first = ids.shape[1] + 1
        for index, layer in enumerate(self.fusion.layers, start=1):
            hidden = layer(hidden, mask)[0]
            if index == self.naming_layer:
                named = self.naming(hidden[:, first:]).float()
            if index == self.referring_layer:
                referred = self.referring(hidden[:, first:]).float()
        return self.fusion.answer(hidden), named, referred


@dataclass(frozen=True)
class AnswerObjective:
    """The right answer, and what helps to find it, which fades out over the last part of the training."""

    phase: AnswerPhase

    def __call__(self, module: nn.Module, batch: AnswerBatch, step: int) -> Mapping[str, torch.Tensor]:
        device = next(module.parameters()).device
        rows, mentioned = batch.rows.to(device), batch.mentions.to(device)
        pixels = mirror(batch.pixels.to(device), batch.mirrored.to(device))
        answers, named, referred = module(pixels, batch.ids.to(device))
        steps = self.phase.loop.steps
        share = max(0.0, min(1.0, (steps - step) / (steps * (1 - self.phase.fade_from))))
        covered, which = under_patches(rows, named.shape[1])
        wanted = things_meant(rows, mentioned).gather(1, which[..., None].expand(-1, -1, 2))  # [B, P, 2]
        wanted = (wanted & covered[..., None]).float()
        return {
            "answer": F.cross_entropy(answers, batch.answers.to(device)),
            "naming": share * self.phase.naming * naming_loss(named, rows, covered, which),
            "referring": share * self.phase.referring * F.binary_cross_entropy_with_logits(referred, wanted),
        }


def train_tabletop_vilt(
    settings: TabletopViltSettings, out: Path, work: Path, progress: Progress | None = None
) -> TrainReport:
    """Trains, or goes on training, and writes the checkpoint folder `out` when done.

    Args:
        settings: see `TabletopViltSettings`.
        out: the Hugging Face folder to write; replaced where a training wrote it and nobody added to it.
        work: keeps painted scenes and the state of the training between runs.
        progress: called after every shard of scenes and every step.

    Raises:
        TrainingError: the loss is not finite, or `work` belongs to something else.
        StageError: `out` holds something that no training wrote.
    """
    check_out(out)
    phase, spec = settings.answer, preprocess_spec(settings.model)
    with launched().main_process_first():
        pool = open_pool(work / "scenes", settings.scenes, spec, progress)
    claim(work, hashlib.sha256(json.dumps(asdict(settings)).encode()).hexdigest())
    questions = ask(
        pool.rows, phase.loop.seed, phase.rounds, progress, max(1, usable_processors() // processes())
    )
    tokenizer = build_tokenizer(corpus(settings.scenes.seed), settings.model.vocab_size)
    batches = AnswerBatches(
        pool, questions, tokenizer, settings.model.text_length, phase.batch_size, phase.loop.seed
    )
    set_seed(phase.loop.seed)
    vilt = build_vilt(settings.model)
    module = FusionWithPatchHeads(ViltFusion(vilt, spec, PAD_ID), settings.model, phase)
    trainer: Trainer[AnswerBatch] = Trainer(
        module, batches, AnswerObjective(phase), phase.loop, work / "answer"
    )
    report = trainer.run(named("answer", progress))
    if is_first():
        publish_checkpoint(vilt, tokenizer, settings.model, work, out)
    return report


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
