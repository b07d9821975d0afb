"""What benches share that train a small image-text model on photographs of 32 x 32 pixels."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.data.dataset import Dataset
from pocketvl_runtime.image import open_image

SIDE, LENGTH = 32, 16
TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a blurry photo of a {}",
    "a small {}",
    "a {} outside",
    "one {}",
    "a photo of one {}",
    "the {}",
)
_MIX, _SMOOTH = 0.2, 0.1

Photos: TypeAlias = tuple[torch.Tensor, torch.Tensor, list[str]]
"""Pixels uint8 [N, 3, H, W], labels int64 [N], and their names."""
Scores: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scores [N, labels] of pictures, uint8 or float in 0 to 255, and ids [labels, T]."""


def read_photos(dataset: Dataset) -> Photos:
    """The pictures of a dataset with their labels."""
    names = sorted({str(sample.label) for sample in dataset.samples})
    pixels = np.stack([np.asarray(open_image(sample.image)) for sample in dataset.samples])
    labels = torch.tensor([names.index(str(sample.label)) for sample in dataset.samples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels, names


def train_on_photos(
    model: nn.Module,
    scores: Scores,
    optimizer: torch.optim.Optimizer,
    train: Photos,
    test: Photos,
    texts: dict[str, torch.Tensor],
    *,
    batch: int,
    rate: float,
    epochs: int,
    state: Path,
) -> None:
    """Train on pictures shifted, mirrored and mixed, each batch against all labels in a random template.

    Args:
        model: with a parameter `logit_scale`.
        scores: of the model.
        optimizer: of its parameters.
        train: to train on.
        test: accuracy is told of after each epoch.
        texts: by template the ids of all labels.
        batch: pictures of a step.
        rate: the highest, of one cycle.
        epochs: in all.
        state: a file from which an interrupted training goes on.
    """
    pixels, labels, names = train
    steps = epochs * (len(pixels) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        chance = torch.Generator().manual_seed(epoch)
        begin = time.monotonic()
        model.train()
        for rows in torch.randperm(len(pixels), generator=chance).split(batch):  # type: ignore[no-untyped-call]
            if len(rows) < batch:
                continue
            images, wanted = _mixed(_shifted(pixels[rows], chance), labels[rows], len(names), chance)
            template = TEMPLATES[int(torch.randint(len(TEMPLATES), (1,), generator=chance))]
            loss = F.cross_entropy(scores(images, texts[template]), wanted, label_smoothing=_SMOOTH)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.get_parameter("logit_scale").clamp_(max=float(np.log(100)))
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(saved | {"schedule": schedule.state_dict(), "epoch": epoch + 1}, state)
        model.train(False)
        told = f"epoch {epoch + 1}/{epochs}: loss {loss:.3f}, top-1 {accuracy(scores, test, texts):.1%}"
        print(f"{told}, {time.monotonic() - begin:.0f} s an epoch", flush=True)


def _shifted(pixels: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Each picture moved by up to four pixels, half of them mirrored."""
    padded = F.pad(pixels.float(), (4, 4, 4, 4), mode="reflect")
    offsets = torch.randint(9, (len(pixels), 2), generator=chance).tolist()
    moved = torch.stack(
        [each[:, y : y + SIDE, x : x + SIDE] for each, (y, x) in zip(padded, offsets, strict=True)]
    )
    flipped = torch.rand(len(pixels), generator=chance) < 0.5
    return torch.where(flipped[:, None, None, None], moved.flip(-1), moved)


def _mixed(
    images: torch.Tensor, labels: torch.Tensor, count: int, chance: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures mixed with others of the batch, and how much of which label each is."""
    wanted = F.one_hot(labels, count).float()
    seed = int(torch.randint(2**31, (1,), generator=chance))
    share = float(np.random.default_rng(seed).beta(_MIX, _MIX))
    other = torch.randperm(len(images), generator=chance)
    mix = [share * each + (1 - share) * each[other] for each in (images, wanted)]
    return mix[0], mix[1]


def accuracy(scores: Scores, test: Photos, texts: dict[str, torch.Tensor]) -> float:
    """Top-1 of a model in eval mode, in the first template."""
    with torch.inference_mode():
        parts = test[0].split(500)  # type: ignore[no-untyped-call]
        found = [scores(part, texts[TEMPLATES[0]]).argmax(1) for part in parts]
    return float((torch.cat(found) == test[1]).float().mean())
