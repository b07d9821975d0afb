"""Rows that are shown to a component together, with no more tokens of texts than it reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.families.base import Component
from pocketvl.families.layers.prefix import read_lengths
from pocketvl.network.ports import PortKind


def reads_texts_alone(component: Component) -> bool:
    """Whether token ids are all it takes; threads of torch mostly wait for each other in such batches."""
    return [port.kind for port in component.inputs] == [PortKind.TOKEN_IDS]


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


def cut(inputs: Sequence[NDArray[Any]], texts: int | None, length: int | None) -> tuple[NDArray[Any], ...]:
    """Copies of inputs, of the one that is token ids the first `length` columns."""
    return tuple(
        np.array(values[:, :length] if index == texts else values) for index, values in enumerate(inputs)
    )
