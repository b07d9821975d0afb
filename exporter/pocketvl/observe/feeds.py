"""Calibration inputs of a checkpoint's components, from its training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families.batches import batches, cut
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.network.ports import PortKind, token_input
from pocketvl.train.samples import TrainingSamples

Arrays = tuple[NDArray[Any], ...]
SAMPLES = 256
BATCH = 32


def feeds_of(
    checkpoint: Checkpoint, data: TrainingSamples, component: str, padded: bool = False
) -> Iterator[Arrays]:
    """Inputs of a component, of samples spread over the data; of texts what it reads.

    Args:
        checkpoint: what they are shown to.
        data: of which at most 256 samples are taken.
        component: whose inputs.
        padded: with all tokens.
    """
    shown = checkpoint.component(component)
    kinds = tuple(port.kind for port in shown.inputs)
    rows = _spread(data.count(kinds))
    texts = None if padded else token_input(shown.inputs)
    ids = None if texts is None else data.inputs((PortKind.TOKEN_IDS,), rows)[0]
    for chosen, length in batches(shown.module, ids, len(rows), BATCH):
        yield cut(data.inputs(kinds, rows[chosen]), texts, length)


def tensors_of(feed: Arrays) -> tuple[torch.Tensor, ...]:
    """The same as tensors, copied."""
    return tuple(torch.from_numpy(np.array(each)) for each in feed)


def _spread(count: int) -> NDArray[np.int64]:
    """Indices of samples, evenly spread."""
    indices: NDArray[np.int64] = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(np.int64)
    return indices
