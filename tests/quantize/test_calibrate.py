"""Calibration sees every sample, keeps only ranges, and says what was wrong with the samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.quantize.calibrate import RangeObserver, observe_layers


class Doubles(nn.Module):
    """y = 2 x, by way of an inner linear; a second one never runs."""

    def __init__(self, spare: bool = False) -> None:
        super().__init__()
        self.inner = nn.Linear(2, 2, bias=False)
        self.inner.weight = nn.Parameter(2 * torch.eye(2))
        if spare:
            self.spare = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.inner(x)
        return y


def feeds(*rows: list[float]) -> list[NDArray[np.generic]]:
    return [np.array(row, np.float32) for row in rows]


def test_ranges_span_all_samples_of_a_stream() -> None:
    told: list[tuple[int, int, str]] = []
    found = observe_layers(Doubles(), feeds([1, 2], [-3, 0]), lambda *news: told.append(news))["inner"]
    assert (found.input.low, found.input.high) == (-3, 2)
    assert (found.output.low, found.output.high) == (-6, 4)
    assert told == [(1, 2, "calibration"), (2, 2, "calibration")]


def test_the_module_is_left_as_it_was() -> None:
    module = Doubles()
    observe_layers(module, feeds([1, 2]))
    assert not module.inner._forward_hooks


def test_no_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        observe_layers(Doubles(), iter([]))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="the input of inner holds NaN or infinity"):
        observe_layers(Doubles(), feeds([1, 2], [value, 1]))


def test_a_layer_that_never_ran_is_named() -> None:
    with pytest.raises(DataError, match="never ran the input of spare"):
        observe_layers(Doubles(spare=True), feeds([1, 2]))


def test_an_empty_tensor_is_not_seen() -> None:
    observer = RangeObserver()
    observer.observe("x", torch.zeros(0))
    with pytest.raises(DataError, match="never ran x"):
        observer.range_of("x")
