"""From nothing to a trained tabletop model in a Hugging Face folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from tokenizers import Tokenizer
from torch import nn
from transformers import CLIPModel

from pocketvl.data.tabletop.language import captions, questions, sample_statement
from pocketvl.data.tabletop.scene import sample_scene, scene_rng
from pocketvl.errors import TrainingError
from pocketvl.families.clip import load_model
from pocketvl.train.growing import grow_
from pocketvl.train.loop import LoopSettings, Objective, Trainer, TrainReport
from pocketvl.train.phases import claim, named
from pocketvl.train.tabletop_batches import Batch, TabletopBatches
from pocketvl.train.tabletop_clip import (
    LARGEST_LOGIT_SCALE,
    ClipSettings,
    ImageObjective,
    ImageTower,
    TextObjective,
    TextTower,
    build_clip,
)
from pocketvl.train.tabletop_oracle import OracleObjective, TabletopOracle
from pocketvl.train.tabletop_pool import PoolSettings, open_pool
from pocketvl.train.tokenizer import build_tokenizer, save_tokenizer
from pocketvl_runtime.manifest import PreprocessSpec, ResizeMode

_TOKENIZER_SCENES = 1500
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class PhaseSettings:
    """One phase of the training.

    Attributes:
        batch_size: scenes a step.
        negatives: hard negatives a scene.
        loop: how long, how fast.
    """

    batch_size: int
    negatives: int
    loop: LoopSettings


@dataclass(frozen=True)
class ImagePhaseSettings(PhaseSettings):
    """The image tower's phase.

    Attributes:
        placed_from: share of the steps after which patches are asked for the oracle's vector of their object.
    """

    placed_from: float = 1 / 3


@dataclass(frozen=True)
class TabletopClipSettings:
    """All that decides what comes out: the model, its scenes, and the phases of its training in order."""

    model: ClipSettings
    scenes: PoolSettings
    oracle: PhaseSettings
    text: PhaseSettings
    image: ImagePhaseSettings


def train_tabletop_clip(
    settings: TabletopClipSettings,
    out: Path,
    work: Path,
    progress: Progress | None = None,
    start: Path | None = None,
) -> dict[str, TrainReport]:
    """Trains, or goes on training, and writes the checkpoint folder `out` when done.

    Args:
        settings: see `TabletopClipSettings`.
        out: the Hugging Face folder to write; replaced when it exists and is one.
        work: keeps painted scenes and the state of the training between runs.
        progress: told after every shard of scenes and every step.
        start: a checkpoint of the same recipe but fewer layers, from which the model grows; without one it
            starts from nothing.

    Returns:
        What each phase did, by its name.

    Raises:
        TrainingError: the loss is not finite, `work` or `out` belongs to something else, or the model cannot
            grow from `start`.
        SourceError: `start` is not a CLIP checkpoint.
    """
    if out.exists() and not (out / "config.json").exists():
        raise TrainingError(f"{out} exists and is not a checkpoint folder: choose another place")
    pool = open_pool(work / "scenes", settings.scenes, _preprocess_spec(settings.model), progress)
    tokenizer = build_tokenizer(_corpus(settings.scenes.seed), settings.model.vocab_size)
    set_seed(settings.oracle.loop.seed)
    oracle, clip = TabletopOracle(settings.model.embedding_dim), build_clip(settings.model)
    claim(work, _start_of(start))
    if start is not None:
        grow_(clip, load_model(start))
    image, text = ImageTower(clip, settings.model), TextTower(clip)
    reports: dict[str, TrainReport] = {}

    def run(name: str, phase: PhaseSettings, module: nn.Module, objective: Objective[Batch]) -> None:
        batches = TabletopBatches(pool, tokenizer, phase.batch_size, phase.negatives, phase.loop.seed)
        trainer: Trainer[Batch] = Trainer(module, batches, objective, phase.loop, work / name)
        reports[name] = trainer.run(named(name, progress))

    run("oracle", settings.oracle, oracle, OracleObjective())
    with torch.no_grad():
        clip.logit_scale.copy_(oracle.logit_scale)
    run("text", settings.text, text, TextObjective(oracle))
    run(
        "image",
        settings.image,
        image,
        ImageObjective(oracle, settings.image.loop.steps, settings.image.placed_from),
    )
    _save(clip, tokenizer, settings.model, out)
    return reports


def _start_of(start: Path | None) -> str:
    if start is None:
        return "from nothing"
    return f"from {hashlib.sha256((start / 'model.safetensors').read_bytes()).hexdigest()}"


def _corpus(seed: int) -> list[str]:
    """Enough captions and questions to hold every word of the tabletop language."""
    texts: list[str] = []
    for index in range(_TOKENIZER_SCENES):
        rng = scene_rng(seed, index, 2)
        scene = sample_scene(rng)
        texts += captions(sample_statement(scene, rng))
        texts += [qa["question"] for qa in questions(scene, rng)]
    return texts


def _preprocess_spec(model: ClipSettings) -> PreprocessSpec:
    size = model.image_size
    return PreprocessSpec(
        resize_mode=ResizeMode.SHORTEST_EDGE,
        resize_height=size,
        resize_width=size,
        crop_height=size,
        crop_width=size,
        resample="bicubic",
        mean=model.mean,
        std=model.std,
        rescale=1 / 255,
    )


def _save(clip: CLIPModel, tokenizer: Tokenizer, model: ClipSettings, out: Path) -> None:
    half = out.with_name(out.name + ".unfinished")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    with torch.no_grad():
        clip.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
    nn.Module.to(clip, torch.float16)
    clip.save_pretrained(half)
    save_tokenizer(tokenizer, half, model.text_length)
    (half / "preprocessor_config.json").write_text(json.dumps(_preprocessor_config(model), indent=2) + "\n")
    for kept in ("MODEL_CARD.md",):
        if (out / kept).exists():
            shutil.copy(out / kept, half / kept)
    shutil.rmtree(out, ignore_errors=True)
    half.rename(out)


def _preprocessor_config(model: ClipSettings) -> dict[str, object]:
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
