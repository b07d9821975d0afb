"""Sample order and image mirroring of training steps, as functions of the step alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.launch import processes

_MIRRORED_SHARE = 0.5


@dataclass(frozen=True)
class SampleOrder:
    """Sample order as a function of the step alone: reshuffled every epoch."""

    batch_size: int
    seed: int

    def __call__(self, count: int, step: int) -> NDArray[np.int64]:
        """Ascending indices among `count` samples; a memmap is read in order."""
        size = self.batch_size if count >= self.batch_size else max(1, count - count % processes())
        epoch, batch = divmod(step, count // size)
        order = _shuffled(self.seed, epoch, count)
        chosen: NDArray[np.int64] = np.sort(order[batch * size : (batch + 1) * size])
        return chosen


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of an epoch; kept, for it is the same for all of its steps."""
    order: NDArray[np.int64] = np.random.default_rng([seed, epoch]).permutation(count)
    order.setflags(write=False)
    return order


def rows_of(values: NDArray[np.generic], rows: NDArray[np.int64]) -> torch.Tensor:
    """Some rows, copied."""
    return torch.from_numpy(np.ascontiguousarray(values[rows]))


def mirror(pixels: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
    """Images [B, H, W, 3], left and right exchanged in those that `mirrored`, bool [B], names."""
    return torch.where(mirrored[:, None, None, None], pixels.flip(2), pixels)


def half_mirrored(seed: int, step: int, count: int) -> NDArray[np.bool_]:
    """Which of a step's images are shown mirrored, bool [count]: every other one, by chance."""
    return np.random.default_rng([seed, step, 2]).random(count) < _MIRRORED_SHARE
