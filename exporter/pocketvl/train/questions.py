"""What a model answers to questions about pictures."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl_runtime.progress import Progress


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
