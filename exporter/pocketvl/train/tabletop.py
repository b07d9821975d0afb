"""From nothing to a trained tabletop model in a Hugging Face folder."""

from __future__ import annotations

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
from pocketvl.train.loop import LoopSettings, Trainer, TrainReport
from pocketvl.train.tabletop_batches import Batch, TabletopBatches
from pocketvl.train.tabletop_clip import LARGEST_LOGIT_SCALE, ClipSettings, TabletopClip, TabletopObjective
from pocketvl.train.tabletop_pool import PoolSettings, open_pool
from pocketvl.train.tokenizer import build_tokenizer, save_tokenizer
from pocketvl_runtime.manifest import PreprocessSpec, ResizeMode

_TOKENIZER_SCENES = 1500
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class TabletopClipSettings:
    """All that decides what comes out: the model, its scenes, and how it is trained.

    Attributes:
        start_from: a checkpoint of the same shape whose weights training starts with, instead of random ones.
    """

    model: ClipSettings
    scenes: PoolSettings
    loop: LoopSettings
    batch_size: int
    negatives: int
    start_from: Path | None = None


def train_tabletop_clip(
    settings: TabletopClipSettings, out: Path, work: Path, progress: Progress | None = None
) -> TrainReport:
    """Trains, or goes on training, and writes the checkpoint folder `out` when done.

    Args:
        settings: see `TabletopClipSettings`.
        out: the Hugging Face folder to write; replaced when it exists and is one.
        work: keeps painted scenes and the state of the training between runs.
        progress: told after every shard of scenes and every step.

    Raises:
        TrainingError: the loss is not finite, or `work` or `out` belongs to something else.
    """
    if out.exists() and not (out / "config.json").exists():
        raise TrainingError(f"{out} exists and is not a checkpoint folder: choose another place")
    pool = open_pool(work / "scenes", settings.scenes, _preprocess_spec(settings.model), progress)
    tokenizer = build_tokenizer(_corpus(settings.scenes.seed), settings.model.vocab_size)
    set_seed(settings.loop.seed)
    module = TabletopClip(settings.model)
    if settings.start_from is not None:
        module.clip.load_state_dict(
            CLIPModel.from_pretrained(settings.start_from, dtype=torch.float32).state_dict()
        )
    batches = TabletopBatches(pool, tokenizer, settings.batch_size, settings.negatives, settings.loop.seed)
    trainer: Trainer[Batch] = Trainer(
        module, batches, TabletopObjective(settings.loop.steps), settings.loop, work / "state"
    )
    report = trainer.run(progress)
    _save(module, tokenizer, settings.model, out)
    return report


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


def _save(module: TabletopClip, tokenizer: Tokenizer, model: ClipSettings, out: Path) -> None:
    half = out.with_name(out.name + ".unfinished")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    with torch.no_grad():
        module.clip.logit_scale.clamp_(max=LARGEST_LOGIT_SCALE)
    nn.Module.to(module.clip, torch.float16)
    module.clip.save_pretrained(half)
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
