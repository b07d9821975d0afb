"""What a checkpoint's components are shown of its training data, to be observed, scored or calibrated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pocketvl.families.split_attention import SplitAttention
from pocketvl.families.trainable import Trainable
from pocketvl.train.method import TrainingData
from pocketvl.train.questions import QuestionedData
from pocketvl_runtime.manifest import Role

Arrays = tuple[NDArray[Any], ...]
SAMPLES = 256
BATCH = 32


def feeds_of(
    checkpoint: Trainable, data: TrainingData, component: str, padded: bool = False
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
    elif component == Role.IMAGE_ENCODER:
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


def example_inputs(checkpoint: Trainable, component: str) -> tuple[torch.Tensor, ...]:
    """Inputs of batch 1 for a component: a black picture, a text of nothing but padding, or both."""
    pixels = torch.zeros(1, checkpoint.preprocess.height, checkpoint.preprocess.width, 3, dtype=torch.uint8)
    ids = torch.full((1, checkpoint.tokenizer.length), checkpoint.tokenizer.pad_id, dtype=torch.int32)
    examples = {Role.IMAGE_ENCODER: (pixels,), Role.TEXT_ENCODER: (ids,), Role.FUSION: (pixels, ids)}
    return examples[Role(component)]


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
