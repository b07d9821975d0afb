"""Trainings of several phases, each with its own folder of states, in one that belongs to them alone."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from pocketvl.errors import TrainingError
from pocketvl.train.loop import Objective, Trainer, TrainReport
from pocketvl.train.settings import LoopSettings
from pocketvl_runtime.progress import Progress

BatchT = TypeVar("BatchT")

_CLAIM = "training.json"


class TowerPair(nn.Module):
    """Both towers as one module: pixels and ids to their embeddings."""

    def __init__(self, image: nn.Module, text: nn.Module) -> None:
        """Args: image: takes pixels. text: takes ids."""
        super().__init__()
        self.image, self.text = image, text

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embeddings [B, D] and [M, D]."""
        return self.image(pixels), self.text(ids)


@dataclass(frozen=True)
class Phases:
    """Runs phases one after the other.

    Attributes:
        loop: how each is trained; its number of steps is the phase's own, and a twentieth of them is warm-up.
        work: the folder of states.
        progress: told step, steps and losses, with the phase's name.
    """

    loop: LoopSettings
    work: Path
    progress: Progress | None = None

    def run(
        self,
        name: str,
        steps: int,
        module: nn.Module,
        batches: Callable[[int], BatchT],
        objective: Objective[BatchT],
    ) -> TrainReport | None:
        """Trains a module in place; where the phase is through, its last state is loaded and that is all.

        Returns:
            What it did; nothing for a phase of no steps.
        """
        if steps == 0:
            return None
        loop = replace(self.loop, steps=steps, warmup_steps=max(1, steps // 20))
        trainer = Trainer(module, batches, objective, loop, self.work / name)
        return trainer.run(named(name, self.progress))


def named(phase: str, progress: Progress | None) -> Progress | None:
    """Progress that says which phase it is of."""
    if progress is None:
        return None
    return lambda done, total, news: progress(done, total, f"{phase}: {news}")


def begun_digest(settings: object, models: Iterable[nn.Module]) -> hashlib._Hash:
    """SHA-256 of what a training depends on, to which its data is to be added: settings, and weights."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for model in models:
        for name, value in model.state_dict().items():
            digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest


def claim(work: Path, identity: str) -> None:
    """Writes into `work` what is trained there, or checks that it is this.

    Args:
        work: made if it does not exist.
        identity: differs for trainings that differ in anything.

    Raises:
        TrainingError: it is something else.
    """
    path, wanted = work / _CLAIM, {"training": identity}
    if not path.is_file():
        work.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(f".{secrets.token_hex(4)}")
        half.write_text(json.dumps(wanted) + "\n", encoding="utf-8")
        half.replace(path)  # a claim that was cut off would be no JSON
    elif json.loads(path.read_text(encoding="utf-8")) != wanted:
        raise TrainingError(f"{work} holds a training of another model, other data or settings: delete it")
