"""What is shown to a component: of texts no more tokens than it reads, and a checkpoint's training data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.families.base import Component
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.prefix import read_lengths
from pocketvl.network.ports import PortKind
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
    texts = None if padded else token_input(shown)
    ids = None if texts is None else data.inputs((PortKind.TOKEN_IDS,), rows)[0]
    for chosen, length in batches(shown.module, ids, len(rows), BATCH):
        yield cut(data.inputs(kinds, rows[chosen]), texts, length)


def token_input(component: Component) -> int | None:
    """Which of a component's inputs is token ids; None where none is."""
    kinds = [port.kind for port in component.inputs]
    return kinds.index(PortKind.TOKEN_IDS) if PortKind.TOKEN_IDS in kinds else None


def batches(
    module: nn.Module | None, ids: NDArray[Any] | None, count: int, size: int
) -> Iterator[tuple[NDArray[np.int64], int | None]]:
    """Rows that are shown to a module together, and how many tokens of their texts; None: all.

    Texts of which the module reads as many tokens come together: padding that it does not read is not shown.

    Args:
        module: whose inputs the rows are.
        ids: token ids [count, T]; None where it takes none, or is to see them whole.
        count: of rows.
        size: of a batch, at most.
    """
    if module is None or ids is None:
        for start in range(0, count, size):
            yield np.arange(start, min(start + size, count)), None
        return
    lengths = read_lengths(module, torch.from_numpy(np.array(ids))).numpy()
    groups = [(np.flatnonzero(lengths == length), int(length)) for length in np.unique(lengths)]
    parts = [(rows[at : at + size], length) for rows, length in groups for at in range(0, len(rows), size)]
    yield from sorted(parts, key=lambda part: int(part[0][0]))  # about as they were given


def cut(inputs: Sequence[NDArray[Any]], texts: int | None, length: int | None) -> Arrays:
    """Copies of inputs, of the one that is token ids the first `length` columns."""
    return tuple(
        np.array(values[:, :length] if index == texts else values) for index, values in enumerate(inputs)
    )


def tensors_of(feed: Arrays) -> tuple[torch.Tensor, ...]:
    """The same as tensors, copied."""
    return tuple(torch.from_numpy(np.array(each)) for each in feed)


def _spread(count: int) -> NDArray[np.int64]:
    """Indices of samples, evenly spread."""
    indices: NDArray[np.int64] = np.linspace(0, count - 1, min(count, SAMPLES)).round().astype(np.int64)
    return indices
