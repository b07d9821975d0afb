"""Quantization sensitivity of layers: what a component's embeddings lose by each of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.cosines import cosines
from pocketvl.errors import DataError
from pocketvl.families.layers.plain import first_output
from pocketvl.network.integers import QuantizedComponent
from pocketvl.quantize.ranking import LayerSensitivity, layer_groups
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.progress import Progress

Feed = NDArray[Any] | tuple[NDArray[Any], ...]
"""One input of a module, or all of them; the first axis of each is the batch."""
Batch: TypeAlias = tuple[torch.Tensor, ...]
Group: TypeAlias = tuple[str, ...]
_BATCH = 64
_FEW_SAMPLES, _FEW_GROUPS = 4, 8


@dataclass(frozen=True)
class EmbeddingLoss:
    """The distance of embeddings from those of the float module.

    Attributes:
        cosine: 1 minus the median mean-centred cosine, in [0, 2].
        squared: mean squared error of a component, over the rows that are finite.
    """

    cosine: float
    squared: float


_Losses: TypeAlias = dict[Group, EmbeddingLoss]


def measure_sensitivity(
    module: nn.Module,
    component: QuantizedComponent,
    feeds: Iterable[Feed],
    progress: Progress | None = None,
) -> tuple[LayerSensitivity, ...]:
    """Measure what every group of layers costs, on the embeddings of the very same inputs.

    Each group takes a forward over all samples. So of many groups all are measured on a few samples first,
    and again on all of them only the fourth that costs most: which of the others costs less matters little.

    Args:
        module: in float, in eval mode; left as it is.
        component: its quantized layers.
        feeds: inputs with a batch axis; of one shape but for it, they are run 64 at a time. All are kept.
        progress: called after each group.

    Returns:
        One a group, worst first: by the loss of cosine, then by the squared error.

    Raises:
        DataError: fewer than two samples, or embeddings of the float module that are not finite.
    """
    batches = list(_batches(feeds))
    expected = _embed(module, batches)
    if len(expected) < 2:
        raise DataError("sensitivity needs at least two samples, since their mean is taken off")
    if not np.isfinite(expected).all():
        raise DataError("sensitivity: the float model itself gives NaN or infinity; is the checkpoint whole?")

    groups = layer_groups(component)
    few = [tuple(values[:_FEW_SAMPLES] for values in batches[0])]
    worst = max(_FEW_GROUPS, len(groups) // 4)
    is_coarse_first = len(groups) > worst and 1 < len(few[0][0]) < len(expected)
    total = len(groups) + (worst if is_coarse_first else 0)
    done = count(1)

    def measured(wanted: Iterable[Group], shown: Sequence[Batch], given: NDArray[np.float64]) -> _Losses:
        found = {}
        for layers in wanted:
            with simulated(module, QuantizedComponent({name: component.layers[name] for name in layers})):
                found[layers] = embedding_loss(given, _embed(module, shown))
            if progress is not None:
                progress(next(done), total, "sensitivity")
        return found

    if is_coarse_first:
        losses = measured(groups, few, expected[: len(few[0][0])])
        losses |= measured(sorted(groups, key=lambda each: _badness(losses[each]))[:worst], batches, expected)
    else:
        losses = measured(groups, batches, expected)
    return tuple(
        LayerSensitivity(
            layers,
            component.layers[layers[0]].spec.weights.bits,
            losses[layers].cosine,
            losses[layers].squared,
        )
        for layers in sorted(groups, key=lambda each: (_badness(losses[each]), each))
    )


def _badness(loss: EmbeddingLoss) -> tuple[float, float]:
    """Sorts the largest loss first."""
    return -loss.cosine, -loss.squared


def embedding_loss(expected: NDArray[np.float64], found: NDArray[np.float64]) -> EmbeddingLoss:
    """The distance between two embeddings of the same inputs.

    The mean of what is expected is taken off both: a shift of all embeddings is a loss too.

    Args:
        expected: [N, D], finite.
        found: [N, D]; a row that holds NaN or infinity has cosine -1.
    """
    finite = np.isfinite(found).all(axis=1)
    mean = expected.mean(axis=0)
    left, right = expected[finite] - mean, found[finite] - mean
    centred = np.full(len(found), -1.0)
    centred[finite] = cosines(left, right)
    squared = float(np.square(left - right).mean()) if finite.any() else 0.0
    return EmbeddingLoss(float(1.0 - np.median(centred)), squared)


def _embed(module: nn.Module, batches: Sequence[Batch]) -> NDArray[np.float64]:
    """[N, D]: whatever comes out, flat; of several outputs the first, since hidden states are too many."""
    if not batches:
        return np.zeros((0, 0))
    with torch.inference_mode():
        rows = [first_output(module(*batch)).numpy() for batch in batches]
    return np.concatenate([row.reshape(len(row), -1) for row in rows]).astype(np.float64)


def _batches(feeds: Iterable[Feed]) -> Iterator[Batch]:
    """The feeds in their order, up to 64 samples at a time; a larger feed stays as it is."""
    waiting: list[tuple[NDArray[Any], ...]] = []
    for feed in feeds:
        inputs = feed if isinstance(feed, tuple) else (feed,)
        full = sum(len(one[0]) for one in waiting) + len(inputs[0]) > _BATCH
        if waiting and (full or _shape(waiting[0]) != _shape(inputs)):
            yield _joined(waiting)
            waiting = []
        waiting.append(inputs)
    if waiting:
        yield _joined(waiting)


def _joined(feeds: Sequence[tuple[NDArray[Any], ...]]) -> tuple[torch.Tensor, ...]:
    return tuple(torch.from_numpy(np.concatenate(arrays)) for arrays in zip(*feeds, strict=True))


def _shape(inputs: tuple[NDArray[Any], ...]) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in inputs]
