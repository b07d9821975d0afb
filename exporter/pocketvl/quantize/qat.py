"""Quantization-aware training: two towers learn, on their grids, to answer as the float model does."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError, TrainingError
from pocketvl.integers import QuantizedTower
from pocketvl.quantize.distill import affinity_loss, tower_losses
from pocketvl.quantize.learned_tower import Finished, QatTower
from pocketvl.quantize.settings import QatSettings
from pocketvl.train.loop import LoopSettings, Losses, Objective, Progress, Trainer

BatchT = TypeVar("BatchT")

_CLAIM = "qat.json"


@dataclass(frozen=True, eq=False)
class QatData:
    """What is learned from; no labels, the float model says what is right.

    Attributes:
        images: uint8 [N, H, W, 3], as the image tower takes them; may be a memmap.
        ids: int32 [M, T], as the text tower takes them.
        pairs: for each picture the row of its caption in `ids`, then the rows of its hard negatives. Where
            there is none of those, a text is drawn for it.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.int32]
    pairs: Sequence[Sequence[int]]

    def __post_init__(self) -> None:
        if len(self.images) < 2 or len(self.ids) < 2:
            raise DataError("quantization-aware training needs at least two pictures and two texts")
        if len(self.pairs) != len(self.images):
            raise DataError(f"{len(self.images)} pictures, but captions for {len(self.pairs)}")
        if not all(rows and min(rows) >= 0 and max(rows) < len(self.ids) for rows in self.pairs):
            raise DataError(f"a picture has no caption among the {len(self.ids)} texts")


@dataclass(frozen=True, eq=False)
class Pairing:
    """A joint batch: uint8 pixels [B, H, W, 3], and int32 ids [2 B, T], captions first, then negatives."""

    pixels: torch.Tensor
    ids: torch.Tensor


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


class TowerPair(nn.Module):
    """Both towers as one module: pixels and ids to their embeddings."""

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        """Args: image: takes pixels. text: takes ids."""
        super().__init__()
        self.image, self.text = image, text

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, D] and [M, D]."""
        return self.image(pixels), self.text(ids)


def train_qat(
    modules: tuple[nn.Module, nn.Module],
    towers: tuple[QuantizedTower, QuantizedTower],
    logit_scale: float,
    data: QatData,
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
    _claim(work, modules, towers, logit_scale, data, settings)
    image, text = (
        QatTower(module, tower, settings.scale_rate) for module, tower in zip(modules, towers, strict=True)
    )
    teacher = TowerPair(*(deepcopy(module) for module in modules)).eval().requires_grad_(False)
    order = _Order(settings.batch_size, settings.seed)
    phases = _Phases(settings, work, progress)
    phases.run(
        "image",
        settings.image_steps,
        image,
        lambda step: _rows(data.images, order(len(data.images), step)),
        TowerObjective(teacher.image),
    )
    phases.run(
        "text",
        settings.text_steps,
        text,
        lambda step: _rows(data.ids, order(len(data.ids), step)),
        TowerObjective(teacher.text),
    )
    phases.run(
        "joint",
        settings.joint_steps,
        TowerPair(image, text),
        lambda step: _pairing(data, order, step),
        JointObjective(teacher, logit_scale, settings),
    )
    return image.finish(), text.finish()


@dataclass(frozen=True)
class _Phases:
    """Runs phases one after the other, each with its own folder of states."""

    settings: QatSettings
    work: Path
    progress: Progress | None

    def run(
        self,
        name: str,
        steps: int,
        module: nn.Module,
        batches: Callable[[int], BatchT],
        objective: Objective[BatchT],
    ) -> None:
        """Trains a module in place; where the phase is through, its last state is loaded and that is all."""
        if steps == 0:
            return
        told = self.progress
        if told is not None:
            told = _named(name, told)
        Trainer(module, batches, objective, _loop(self.settings, steps), self.work / name).run(told)


def _loop(settings: QatSettings, steps: int) -> LoopSettings:
    """The training loop's settings for a phase of so many steps; a twentieth of them is warm-up."""
    return LoopSettings(
        steps=steps,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=max(1, steps // 20),
        seed=settings.seed,
        save_every=settings.save_every,
        clip_norm=settings.clip_norm,
    )


def _named(name: str, progress: Progress) -> Progress:
    return lambda done, total, news: progress(done, total, f"{name}: {news}")


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


@dataclass(frozen=True)
class _Order:
    """Which samples a step sees, a function of the step alone: a new order every time around."""

    batch_size: int
    seed: int

    def __call__(self, count: int, step: int) -> NDArray[np.int64]:
        """Ascending places among `count` samples; a memmap is read in order."""
        size = min(self.batch_size, count)
        around, place = divmod(step, count // size)
        order = np.random.default_rng([self.seed, around]).permutation(count)
        chosen: NDArray[np.int64] = np.sort(order[place * size : (place + 1) * size])
        return chosen


def _rows(values: NDArray[np.generic], places: NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values[places]))


def _pairing(data: QatData, order: _Order, step: int) -> Pairing:
    places = order(len(data.images), step)
    random = np.random.default_rng([order.seed, step, 1])
    captions, negatives = [], []
    for place in places:
        caption, *others = data.pairs[int(place)]
        captions.append(caption)
        among = others or range(len(data.ids))
        negatives.append(among[int(random.integers(len(among)))])
    return Pairing(_rows(data.images, places), _rows(data.ids, np.array(captions + negatives)))


def _claim(
    work: Path,
    modules: tuple[nn.Module, nn.Module],
    towers: tuple[QuantizedTower, QuantizedTower],
    logit_scale: float,
    data: QatData,
    settings: QatSettings,
) -> None:
    """Writes into `work` what is trained there, or checks that it is this."""
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
    claim, path = {"training": digest.hexdigest()}, work / _CLAIM
    if path.is_file():
        if json.loads(path.read_text(encoding="utf-8")) != claim:
            raise TrainingError(
                f"{work} holds a training of another model, other data or settings: delete it"
            )
        return
    work.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(claim) + "\n", encoding="utf-8")
