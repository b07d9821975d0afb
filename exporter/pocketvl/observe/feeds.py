"""Calibration inputs of a checkpoint's components, from its training data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.split_attention import SplitAttention
from pocketvl.network.ports import PortKind
from pocketvl.train.samples import TrainingSamples

Arrays = tuple[NDArray[Any], ...]
SAMPLES = 256
BATCH = 32


def feeds_of(
    checkpoint: Checkpoint, data: TrainingSamples, component: str, padded: bool = False
) -> Iterator[Arrays]:
    """Inputs of a component, of samples spread over the data; texts one by one, without their padding.

    Args:
        checkpoint: what they are shown to.
        data: of which at most 256 samples are taken.
        component: whose inputs.
        padded: with the padding of questions; as it has to be, and is, where attention is split.
    """
    kinds = tuple(port.kind for port in checkpoint.contract.components[component].inputs)
    rows = _spread(data.count(kinds))
    if PortKind.TOKEN_IDS not in kinds:
        for start in range(0, len(rows), BATCH):
            yield tuple(map(np.array, data.inputs(kinds, rows[start : start + BATCH])))
        return
    padded = padded or any(isinstance(child, SplitAttention) for child in checkpoint.model.modules())
    for row in rows:
        inputs = data.inputs(kinds, np.array([row]))
        tokens = inputs[kinds.index(PortKind.TOKEN_IDS)][0] != checkpoint.tokenizer.pad_id
        if (
            len(kinds) == 1
        ):  # where the end of a text is also the padding token, the first of these is its end
            length = 2 + int(np.flatnonzero(tokens).max(initial=0))
        else:
            length = len(tokens) if padded else int(tokens.sum())
        yield tuple(
            np.array(values[:, :length] if kind is PortKind.TOKEN_IDS else values)
            for kind, values in zip(kinds, inputs, strict=True)
        )


def tensors_of(feed: Arrays) -> tuple[torch.Tensor, ...]:
    """The same as tensors, copied."""
    return tuple(torch.from_numpy(np.array(each)) for each in feed)


def _spread(count: int) -> NDArray[np.int64]:
    """Indices of samples, evenly spread."""
    indices: NDArray[np.int64] = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(np.int64)
    return indices
