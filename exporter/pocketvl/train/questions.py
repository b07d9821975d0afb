"""Pictures, questions about them and the right answers, and what a model answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl_runtime.progress import Progress


@dataclass(frozen=True, eq=False)
class QuestionedData:
    """What a fusion model learns from.

    Attributes:
        images: uint8 [N, H, W, 3], as its tower takes them; may be a memmap.
        ids: int32 [M, T], the questions, as its tower takes them.
        pictures: int64 [M], the picture that each question is about.
        answers: int64 [M], the right answers, by their places among the model's.
    """

    images: NDArray[np.uint8]
    ids: NDArray[np.int32]
    pictures: NDArray[np.int64]
    answers: NDArray[np.int64]

    def __post_init__(self) -> None:
        if len(self.ids) < 2:
            raise DataError("training needs at least two questions")
        if not len(self.ids) == len(self.pictures) == len(self.answers):
            raise DataError("every question needs a picture and an answer")
        if self.pictures.min() < 0 or self.pictures.max() >= len(self.images) or self.answers.min() < 0:
            raise DataError("a question is about a picture, or has an answer, that is not there")


def answer_logits(
    tower: nn.Module,
    images: NDArray[np.uint8],
    ids: NDArray[np.int32],
    pictures: NDArray[np.int64],
    batch: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """What a fusion tower answers.

    Args:
        tower: takes pixels and ids; in eval mode, on any device.
        images: uint8 [N, H, W, 3].
        ids: int32 [M, T], the questions.
        pictures: int64 [M], the picture that each is about.
        batch: questions at a time.
        progress: told questions done and in all.

    Returns:
        Logits, float32 [M, answers].
    """
    parts, device = [], next(tower.parameters()).device
    with torch.inference_mode():
        for start in range(0, len(ids), batch):
            places = slice(start, start + batch)
            pixels = torch.from_numpy(np.ascontiguousarray(images[pictures[places]])).to(device)
            logits = tower(pixels, torch.from_numpy(ids[places]).to(device))
            parts.append(logits.float().cpu().numpy())
            if progress is not None:
                progress(min(start + batch, len(ids)), len(ids), "answering")
    return np.concatenate(parts)
