"""Calibration: runs a module over samples and keeps the range of what goes in and out of its layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import length_hint

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.quantize.arithmetic import Range
from pocketvl.quantize.structure import LAYERS

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class LayerRanges:
    """What was seen to go into a layer and to come out of it."""

    input: Range
    output: Range


class RangeObserver:
    """Streams tensors and keeps nothing of them but their ranges."""

    def __init__(self) -> None:
        self._seen: dict[str, Range] = {}

    def observe(self, name: str, values: torch.Tensor) -> None:
        """Widens the range of `name`.

        Raises:
            DataError: the values are not all finite.
        """
        if values.numel() == 0:
            return
        low, high = (float(value) for value in torch.aminmax(values.detach()))
        if not (np.isfinite(low) and np.isfinite(high)):  # NaN goes through aminmax
            raise DataError(f"calibration: {name} holds NaN or infinity; the model or a sample is broken")
        before = self._seen.get(name, Range(low, high))
        self._seen[name] = Range(min(low, before.low), max(high, before.high))

    def range_of(self, name: str) -> Range:
        """What was seen of `name`.

        Raises:
            DataError: it was never seen.
        """
        if name not in self._seen:
            raise DataError(f"calibration never ran {name}, so that it cannot be quantized")
        return self._seen[name]


def observe_layers(
    module: nn.Module, feeds: Iterable[NDArray[np.generic]], progress: Progress | None = None
) -> dict[str, LayerRanges]:
    """Runs a module and observes every linear and convolution in it.

    Args:
        module: in eval mode, of one input; left as it is.
        feeds: inputs, read once; nothing of them is kept.
        progress: called after each.

    Returns:
        Per layer, by its name in the module, what was seen.

    Raises:
        DataError: no samples, values that are not finite, or a layer that never ran.
    """
    layers = {name: child for name, child in module.named_modules() if isinstance(child, LAYERS)}
    observer = RangeObserver()
    total, done = length_hint(feeds), 0
    with torch.inference_mode(), _watched(layers, observer):
        for feed in feeds:
            module(torch.from_numpy(feed))
            done += 1
            if progress is not None:
                progress(done, max(total, done), "calibration")
    if done == 0:
        raise DataError("calibration needs at least one sample, and got none")
    return {
        name: LayerRanges(
            observer.range_of(f"the input of {name}"), observer.range_of(f"the output of {name}")
        )
        for name in layers
    }


@contextmanager
def _watched(layers: Mapping[str, nn.Module], observer: RangeObserver) -> Iterator[None]:
    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        def watch(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            observer.observe(f"the input of {name}", inputs[0])
            observer.observe(f"the output of {name}", output)

        return watch

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
