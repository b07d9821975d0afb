"""Quantization-aware training: two towers learn, on their grids, to answer as the float model does."""

from __future__ import annotations

import hashlib
import json
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import nn

from pocketvl.network.integers import QuantizedTower
from pocketvl.quantize.learned_tower import Finished, QatTower
from pocketvl.quantize.settings import QatSettings
from pocketvl.train.distil_losses import affinity_loss, tower_losses
from pocketvl.train.loop import Losses
from pocketvl.train.pairs import PairedData, Pairing, SampleOrder, pairing, rows_of
from pocketvl.train.phases import Phases, TowerPair, claim
from pocketvl.train.settings import LoopSettings
from pocketvl_runtime.progress import Progress


class TowerObjective:
    """A tower's embeddings against its teacher's."""

    def __init__(self, teacher: nn.Module) -> None:
        """Args: teacher: the float tower, frozen."""
        self._teacher = teacher

    def __call__(self, module: nn.Module, batch: torch.Tensor, step: int) -> Losses:
        values = batch.to(_device(module))
        with torch.no_grad():
            wanted = self._teacher.to(values.device)(values)
        return tower_losses(module(values).float(), wanted)


class JointObjective:
    """What pictures and texts have to do with each other, and a little of each tower's own losses."""

    def __init__(self, teacher: nn.Module, logit_scale: float, settings: QatSettings) -> None:
        """Args: teacher: a frozen `TowerPair`. logit_scale: what the model multiplies cosines by."""
        self._teacher, self._logit_scale, self._settings = teacher, logit_scale, settings

    def __call__(self, module: nn.Module, batch: Pairing, step: int) -> Losses:
        device = _device(module)
        pixels, ids = batch.pixels.to(device), batch.ids.to(device)
        with torch.no_grad():
            wanted = self._teacher.to(device)(pixels, ids)
        image, text = module(pixels, ids)
        found = (image.float(), text.float())
        losses = {"affinity": affinity_loss(found, wanted, self._logit_scale, self._settings.temperature)}
        for tower, student, teacher in zip(("image", "text"), found, wanted, strict=True):
            for name, loss in tower_losses(student, teacher).items():
                losses[f"{tower}_{name}"] = self._settings.tower_weight * loss
        return losses


def train_qat(
    modules: tuple[nn.Module, nn.Module],
    towers: tuple[QuantizedTower, QuantizedTower],
    logit_scale: float,
    data: PairedData,
    settings: QatSettings,
    work: Path,
    progress: Progress | None = None,
) -> tuple[Finished, Finished]:
    """Trains the image tower, then the text tower, then both together, on the grids that will ship.

    Interrupted, it goes on where it last saved its state; a phase that is through is not run again.

    Args:
        modules: the float image and text module that the towers were quantized from, folded; left as they
            are, they are the teachers.
        towers: calibrated image and text tower.
        logit_scale: what the model multiplies cosines by before a softmax.
        data: what is learned from.
        settings: how.
        work: the folder of states; made if it does not exist, and of this training alone.
        progress: told step, steps and losses, phase by phase.

    Returns:
        What the image and the text tower came to.

    Raises:
        TrainingError: a loss is not finite, or `work` holds the states of another training.
        RecipeError: a tower has grids that are not learned.
    """
    claim(work, _identity(modules, towers, logit_scale, data, settings))
    image, text = (
        QatTower(module, tower, settings.scale_rate) for module, tower in zip(modules, towers, strict=True)
    )
    teacher = TowerPair(*(deepcopy(module) for module in modules)).eval().requires_grad_(False)
    order = SampleOrder(settings.batch_size, settings.seed)
    loop = LoopSettings(
        steps=0,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        seed=settings.seed,
        save_every=settings.save_every,
        clip_norm=settings.clip_norm,
    )
    phases = Phases(loop, work, progress)
    phases.run(
        "image",
        settings.image_steps,
        image,
        lambda step: rows_of(data.images, order(len(data.images), step)),
        TowerObjective(teacher.image),
    )
    phases.run(
        "text",
        settings.text_steps,
        text,
        lambda step: rows_of(data.ids, order(len(data.ids), step)),
        TowerObjective(teacher.text),
    )
    phases.run(
        "joint",
        settings.joint_steps,
        TowerPair(image, text),
        lambda step: pairing(data, order, step),
        JointObjective(teacher, logit_scale, settings),
    )
    return image.finish(), text.finish()


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _identity(
    modules: tuple[nn.Module, nn.Module],
    towers: tuple[QuantizedTower, QuantizedTower],
    logit_scale: float,
    data: PairedData,
    settings: QatSettings,
) -> str:
    """Differs for trainings that differ in anything."""
    digest = hashlib.sha256(json.dumps([asdict(settings), logit_scale]).encode())
    for module, tower in zip(modules, towers, strict=True):
        for name, value in module.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
        for name, layer in tower.layers.items():
            digest.update(f"{name}{layer.spec}{layer.input}{layer.output}".encode())
            digest.update(layer.weights.tobytes() + layer.scale.tobytes())
            digest.update(b"" if layer.bias is None else layer.bias.tobytes())
        digest.update(f"{sorted(tower.products.items())}".encode())
    digest.update(f"{data.images.shape}{data.ids.shape}{[list(rows) for rows in data.pairs]}".encode())
    digest.update(np.ascontiguousarray(data.ids).tobytes())
    return digest.hexdigest()
