"""The ViLT of the tabletop world, from nothing to a Hugging Face folder.

`vilt_objective` says what it is trained on.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from transformers import ViltConfig, ViltForQuestionAnswering

from pocketvl.errors import RecipeError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.folders.tokenizer import read_tokenizer
from pocketvl.families.vilt import ViltFusion
from pocketvl.launch import is_first, processes
from pocketvl.settings import Layers, Pixels, Positive, Settings, Width
from pocketvl.tabletop.clip import TextLength, VocabularySize, check_heads, check_patches
from pocketvl.tabletop.language import ANSWERS
from pocketvl.tabletop.pool import PoolSettings, open_pool
from pocketvl.tabletop.questions import AnswerBatch, AnswerBatches, ask
from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer
from pocketvl.tabletop.training import check_out, corpus, preprocess_spec, publish_checkpoint, start_of
from pocketvl.tabletop.vilt_objective import AnswerObjective, AnswerPhase, FusionWithHeads
from pocketvl.train.loop import Trainer, TrainReport, launched
from pocketvl.train.phases import claim, named
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.progress import Progress

_POSITION_SCALE = 0.5  # of the sines


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
        if model.heads < 2:
            raise RecipeError(
                "heads: at least 2: one looks at the first thing of a question, one at the second"
            )
        asked = (answer.naming_layer, answer.referring_layer, answer.locating_layer)
        if list(asked) != sorted(asked) or not 1 <= asked[0] <= asked[-1] <= model.layers:
            raise RecipeError(
                f"naming_layer, referring_layer and locating_layer are 1 to {model.layers}, "
                "none above the next"
            )


def build_vilt(settings: ViltSettings) -> ViltForQuestionAnswering:
    """A ViltForQuestionAnswering with random weights (of torch's present random state).

    Its position embeddings begin as `sine_positions`, where transformers has zeros. From zeros they stay
    faint beside what patches show: two layers on, nothing says where a patch lies, and no relation can be
    learned.
    """
    vilt = ViltForQuestionAnswering(
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
    with torch.no_grad():
        positions = vilt.vilt.embeddings.position_embeddings  # [1, 1 + P, width]
        positions[0, 1:] = sine_positions(settings.image_size // settings.patch_size, settings.width)
    return vilt


def sine_positions(side: int, width: int) -> torch.Tensor:
    """Position embeddings of patches, row by row, float32 [side * side, width]: sines and cosines, mean 0.

    Source: Vaswani et al., 2017, "Attention Is All You Need" (arXiv 1706.03762), section 3.5; here for column
    and row by themselves, with 100 in place of 10,000, since sides are short.
    """
    rates = 100.0 ** (-torch.arange(-(-width // 4)) / -(-width // 4))
    angles = torch.arange(side)[:, None] * rates
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # [side, width / 2]
    table = torch.cat([line.repeat(side, 1), line.repeat_interleave(side, 0)], dim=1)[:, :width]
    return _POSITION_SCALE * (table - table.mean(dim=0))


def train_tabletop_vilt(
    settings: TabletopViltSettings,
    out: Path,
    work: Path,
    progress: Progress | None = None,
    start: Path | None = None,
) -> TrainReport:
    """Trains, or goes on training, and writes the checkpoint folder `out` when done.

    Args:
        settings: see `TabletopViltSettings`.
        out: the Hugging Face folder to write; replaced where a training wrote it and nobody added to it.
        work: keeps painted scenes and the state of the training between runs.
        progress: called after every shard of scenes and every step.
        start: a checkpoint of the same shape, whose weights and tokenizer the training starts from; without
            one it starts from nothing.

    Raises:
        TrainingError: the loss is not finite, `work` belongs to something else, or `start` is of another
            shape.
        StageError: `out` holds something that no training wrote.
        SourceError: `start` is not a ViLT checkpoint.
    """
    check_out(out, start)
    phase, spec = settings.answer, preprocess_spec(settings.model)
    with launched().main_process_first():
        pool = open_pool(work / "scenes", settings.scenes, spec, progress)
    claim(work, hashlib.sha256((json.dumps(asdict(settings)) + start_of(start)).encode()).hexdigest())
    questions = ask(
        pool.rows, phase.loop.seed, phase.rounds, progress, max(1, usable_processors() // processes())
    )
    set_seed(phase.loop.seed)
    vilt = build_vilt(settings.model)
    if start is None:
        tokenizer = build_tokenizer(corpus(settings.scenes.seed), settings.model.vocab_size)
    else:
        tokenizer = read_tokenizer(start).tokenizer
        _load_(vilt, start)
    batches = AnswerBatches(
        pool, questions, tokenizer, settings.model.text_length, phase.batch_size, phase.loop.seed, phase.mix
    )
    module = FusionWithHeads(ViltFusion(vilt, spec, PAD_ID), settings.model.width, phase)
    trainer: Trainer[AnswerBatch] = Trainer(
        module, batches, AnswerObjective(phase), phase.loop, work / "answer"
    )
    report = trainer.run(named("answer", progress))
    if is_first():
        publish_checkpoint(vilt, tokenizer, settings.model, work, out)
    return report


def _load_(vilt: ViltForQuestionAnswering, start: Path) -> None:
    """Give a model the weights of a checkpoint; TrainingError where that is of another shape."""
    found, wanted = open_checkpoint(start).model.state_dict(), vilt.state_dict()
    if {name: each.shape for name, each in found.items()} != {n: each.shape for n, each in wanted.items()}:
        raise TrainingError(
            f"{start} is not of the shape that the recipe's [model] says: it cannot start from it"
        )
    vilt.load_state_dict(found)
