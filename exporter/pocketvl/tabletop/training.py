"""From nothing to a trained tabletop model in a Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

import torch
from accelerate.utils import set_seed
from tokenizers import Tokenizer
from torch import nn
from transformers import CLIPModel, PreTrainedModel, VisionTextDualEncoderModel

from pocketvl.errors import RecipeError, TrainingError
from pocketvl.families import open_checkpoint
from pocketvl.families.clip import ClipImageEncoder, ClipTextEncoder
from pocketvl.families.dual_encoder import BertTextEncoder, ConvNextImageEncoder
from pocketvl.families.folders.files import CARD_FILE
from pocketvl.families.folders.tokenizer import read_tokenizer
from pocketvl.launch import is_first
from pocketvl.settings import Settings, Size
from pocketvl.stage import check_replaceable, publish, read_record, write_record
from pocketvl.tabletop.batches import Batch, TabletopBatches
from pocketvl.tabletop.clip import (
    LARGEST_LOGIT_SCALE,
    ClipPatchHeadEncoder,
    ClipSettings,
    ImageObjective,
    JointObjective,
    ModelSettings,
    TextObjective,
    build_clip,
)
from pocketvl.tabletop.dual_encoder import ConvNextPatchHeadEncoder, DualEncoderSettings, build_dual_encoder
from pocketvl.tabletop.growing import grow_
from pocketvl.tabletop.language import captions, questions, sample_statement
from pocketvl.tabletop.oracle import OracleObjective, TabletopOracle
from pocketvl.tabletop.pool import PoolSettings, open_pool
from pocketvl.tabletop.scene import sample_scene, scene_rng
from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer, save_tokenizer
from pocketvl.train.loop import Objective, Trainer, TrainReport, launched
from pocketvl.train.phases import Components, claim, named
from pocketvl.train.settings import LoopSettings
from pocketvl_runtime.manifest import ImageProcessor, Normalization, ResizeMode
from pocketvl_runtime.progress import Progress

_TOKENIZER_SCENES = 1500


class PictureSettings(Protocol):
    """What of a model's shape its pictures and its tokenizer depend on."""

    @property
    def image_size(self) -> int: ...

    @property
    def text_length(self) -> int: ...

    @property
    def mean(self) -> tuple[float, float, float]: ...

    @property
    def std(self) -> tuple[float, float, float]: ...


@dataclass(frozen=True)
class PhaseSettings(Settings):
    """One phase of the training.

    Attributes:
        batch_size: scenes a step.
        negatives: hard negatives a scene.
        loop: how long, how fast.
    """

    batch_size: Size
    negatives: Size
    loop: LoopSettings


@dataclass(frozen=True)
class TabletopSettings(Settings):
    """All that decides what comes out: the model, its scenes, and the phases of its training in order.

    Attributes:
        model: its shape.
        scenes: what it learns from.
        oracle: learns where scenes and statements belong, from the scenes' own objects. The first three
            phases come together, or not at all, for a model that grows from another one.
        text: the text encoder is trained towards it.
        image: the image encoder is.
        joint: both encoders are trained on pictures, captions and false captions alone.
    """

    model: ModelSettings
    scenes: PoolSettings
    oracle: PhaseSettings | None = None
    text: PhaseSettings | None = None
    image: PhaseSettings | None = None
    joint: PhaseSettings | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        given = [phase is not None for phase in (self.oracle, self.text, self.image)]
        if any(given) != all(given):
            raise RecipeError(
                "oracle, text and image come together: the encoders are trained towards the oracle's space"
            )
        if not any(given) and self.joint is None:
            raise RecipeError("there is no phase: oracle, text and image, or joint, or all four")


@dataclass(frozen=True)
class TabletopClipSettings(TabletopSettings):
    """Of a CLIP."""

    model: ClipSettings


@dataclass(frozen=True)
class TabletopDualSettings(TabletopSettings):
    """Of a ConvNeXt and a BERT."""

    model: DualEncoderSettings


@dataclass(frozen=True, eq=False)
class _Student:
    """A model and its encoders as they are trained; `supervised` is the image encoder with its patch head."""

    model: CLIPModel | VisionTextDualEncoderModel
    supervised: nn.Module
    image: nn.Module
    text: nn.Module


def _student(settings: ModelSettings) -> _Student:
    spec = preprocess_spec(settings)
    if isinstance(settings, DualEncoderSettings):
        dual = build_dual_encoder(settings)
        seeing = ConvNextImageEncoder(dual, spec)
        supervised = ConvNextPatchHeadEncoder(seeing, settings.image.channels[-1])
        return _Student(dual, supervised, seeing, BertTextEncoder(dual, PAD_ID))
    assert isinstance(settings, ClipSettings)
    clip = build_clip(settings)
    image, text = ClipImageEncoder(clip, spec), ClipTextEncoder(clip, settings.text_length)
    return _Student(clip, ClipPatchHeadEncoder(image, settings.image.width), image, text)


def train_tabletop_clip(
    settings: TabletopSettings,
    out: Path,
    work: Path,
    progress: Progress | None = None,
    start: Path | None = None,
) -> dict[str, TrainReport]:
    """Train a CLIP or another dual encoder, or go on, and write the checkpoint folder `out` when done.

    Args:
        settings: see `TabletopSettings`.
        out: the Hugging Face folder to write; replaced where a training wrote it and nobody added to it.
        work: keeps painted scenes and the state of the training between runs.
        progress: called after every shard of scenes and every step.
        start: a checkpoint of the same widths, from which the model grows; without one it starts from
            nothing, with an oracle.

    Returns:
        What each phase did, by its name.

    Raises:
        TrainingError: the loss is not finite, `work` belongs to something else, the model cannot grow from
            `start`, or the recipe needs one.
        StageError: `out` holds something that no training wrote.
        SourceError: `start` is not a CLIP checkpoint.
    """
    check_out(out, start)
    if start is not None and not isinstance(settings.model, ClipSettings):
        raise TrainingError(f"only a CLIP grows from a checkpoint such as {start}: leave out --from")
    if start is None and settings.oracle is None:
        raise TrainingError("this recipe trains on what is there already: say from which checkpoint (--from)")
    with launched().main_process_first():
        pool = open_pool(work / "scenes", settings.scenes, preprocess_spec(settings.model), progress)
    claim(work, start_of(start))
    first = settings.oracle or settings.joint
    set_seed(0 if first is None else first.loop.seed)
    oracle, student = TabletopOracle(settings.model.embedding_dim), _student(settings.model)
    model = student.model
    if start is None:
        tokenizer = build_tokenizer(corpus(settings.scenes.seed), settings.model.vocab_size)
    else:
        tokenizer = read_tokenizer(start).tokenizer
        grow_(cast(CLIPModel, model), cast(CLIPModel, open_checkpoint(start).model))
    reports: dict[str, TrainReport] = {}

    def run(name: str, phase: PhaseSettings, module: nn.Module, objective: Objective[Batch]) -> None:
        batches = TabletopBatches(pool, tokenizer, phase.batch_size, phase.negatives, phase.loop.seed)
        trainer: Trainer[Batch] = Trainer(module, batches, objective, phase.loop, work / name)
        reports[name] = trainer.run(named(name, progress))

    if settings.oracle is not None and settings.text is not None and settings.image is not None:
        run("oracle", settings.oracle, oracle, OracleObjective())
        with torch.no_grad():
            model.logit_scale.copy_(oracle.logit_scale)
        run("text", settings.text, student.text, TextObjective(oracle))
        run("image", settings.image, student.supervised, ImageObjective(oracle, settings.image.loop.steps))
    if settings.joint is not None:
        scale = model.logit_scale.detach().exp()
        run(
            "joint",
            settings.joint,
            Components({"image": student.image, "text": student.text}),
            JointObjective(scale),
        )
    with torch.no_grad():
        model.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
    if is_first():
        publish_checkpoint(model, tokenizer, settings.model, work, out)
    return reports


def start_of(start: Path | None) -> str:
    """From which weights a training starts, as text that tells them from others."""
    if start is None:
        return "from nothing"
    return f"from {hashlib.sha256((start / 'model.safetensors').read_bytes()).hexdigest()}"


def corpus(seed: int) -> list[str]:
    """Enough captions and questions to hold every word of the tabletop language."""
    texts: list[str] = []
    for index in range(_TOKENIZER_SCENES):
        rng = scene_rng(seed, index, 2)
        scene = sample_scene(rng)
        texts += captions(sample_statement(scene, rng))
        texts += [qa["question"] for qa in questions(scene, rng)]
    return texts


def preprocess_spec(model: PictureSettings) -> ImageProcessor:
    """How a picture becomes pixels, as the runtime says it."""
    size = model.image_size
    return ImageProcessor.bicubic(
        ResizeMode.SHORTEST_EDGE, (size, size), (size, size), Normalization(model.mean, model.std, 1 / 255)
    )


def save_checkpoint(
    trained: PreTrainedModel, tokenizer: Tokenizer, model: PictureSettings, out: Path
) -> None:
    """Write a model in 16 bits into the Hugging Face folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    nn.Module.to(trained, device="cpu", dtype=torch.float16)
    trained.save_pretrained(out)
    save_tokenizer(tokenizer, out, model.text_length)
    (out / "preprocessor_config.json").write_text(json.dumps(preprocessor_config(model), indent=2) + "\n")


def check_out(out: Path, start: Path | None) -> None:
    """Raise StageError where a checkpoint at `out` would cost somebody what no training wrote.

    Raises:
        TrainingError: it would replace the checkpoint that the training starts from.
    """
    if start is not None and start.resolve() == out.resolve():
        raise TrainingError(f"{out} is the checkpoint to start from: choose another place")
    check_replaceable(out, read_record, (CARD_FILE,))


def publish_checkpoint(
    trained: PreTrainedModel, tokenizer: Tokenizer, model: PictureSettings, work: Path, out: Path
) -> None:
    """Put a trained model's checkpoint to `out` in one step; of what stands there, its card stays."""
    half = work / "checkpoint"
    shutil.rmtree(half, ignore_errors=True)
    save_checkpoint(trained, tokenizer, model, half)
    write_record(half)
    publish(half, out, read_record, (CARD_FILE,))


def preprocessor_config(model: PictureSettings) -> dict[str, object]:
    """The same, as transformers says it."""
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": model.image_size},
        "resample": 3,
        "do_center_crop": True,
        "crop_size": {"height": model.image_size, "width": model.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(model.mean),
        "image_std": list(model.std),
    }
