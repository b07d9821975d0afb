"""What a checkpoint's components are shown of its training data, to be observed, scored or calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.split_attention import SplitAttention
from pocketvl.network.ports import PortKind
from pocketvl.train.method import TrainingData
from pocketvl.train.questions import QuestionedData

Arrays = tuple[NDArray[Any], ...]
SAMPLES = 256
BATCH = 32


def feeds_of(
    checkpoint: Checkpoint, data: TrainingData, component: str, padded: bool = False
) -> Iterator[Arrays]:
    """Inputs of a component, of samples spread over the data; texts one by one, without their padding.

    Args:
        checkpoint: what they are shown to.
        data: of which at most 256 samples are taken.
        component: whose inputs.
        padded: with the padding of questions; as it has to be, and is, where attention is split.
    """
    if isinstance(data, QuestionedData):
        split = any(isinstance(child, SplitAttention) for child in checkpoint.model.modules())
        yield from _questions(data, checkpoint.tokenizer.pad_id, padded or split)
    elif checkpoint.contract.components[component].inputs[0].kind is PortKind.PIXELS:
        indices = _spread(len(data.images))
        for start in range(0, len(indices), BATCH):
            yield (np.array(data.images[indices[start : start + BATCH]]),)
    else:
        for index in _spread(len(data.ids)):
            tokens = np.flatnonzero(data.ids[index] != checkpoint.tokenizer.pad_id)
            # where the end of a text is also the padding token, the first of these is its end
            yield (np.array(data.ids[index : index + 1, : 2 + int(tokens.max(initial=0))]),)


def tensors_of(feed: Arrays) -> tuple[torch.Tensor, ...]:
    """The same as tensors, copied."""
    return tuple(torch.from_numpy(np.array(each)) for each in feed)


def _questions(data: QuestionedData, pad_id: int, padded: bool) -> Iterator[Arrays]:
    """Questions with their images, one by one."""
    for index in _spread(len(data.ids)):
        ids = data.ids[index : index + 1]
        length = ids.shape[1] if padded else int((ids != pad_id).sum())
        yield np.array(data.images[data.pictures[index]][None]), ids[:, :length]


def _spread(count: int) -> NDArray[np.int64]:
    """Indices of samples, evenly spread."""
    indices: NDArray[np.int64] = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(np.int64)
    return indices
