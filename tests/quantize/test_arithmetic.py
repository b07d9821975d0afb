"""The 8-bit grids keep what they promise, for every range that a float32 tensor can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pocketvl.quantize.arithmetic import (
    Grid,
    Range,
    activation_grid,
    least_weight_scale,
    quantize_bias,
    weight_grid,
)

LARGEST = float(np.float32(3e38))  # beyond it, the last step of a grid may not be a float32
FLOATS = st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True)
MODEST = st.floats(-1e6, 1e6, width=32)
# rounding of the scale and of the product to float32, relative to the largest value on the grid
SLACK = 2e-5


def ends(grid: Grid) -> tuple[float, float]:
    scale = float(grid.scale)
    return (grid.lowest - grid.zero_point) * scale, (grid.highest - grid.zero_point) * scale


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted((draw(FLOATS), draw(FLOATS)))
    return Range(low, high)


@given(ranges(), st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_inside_the_range_the_error_is_at_most_half_a_step(seen: Range, places: list[float]) -> None:
    grid = activation_grid(seen)
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    values = np.array([low * (1 - place) + high * place for place in places], np.float32)
    error = np.abs(grid.dequantize(grid.quantize(values)).astype(np.float64) - values)
    # the zero point is rounded, which moves the ends by up to half a step more
    least, greatest = ends(grid)
    inside = (values >= least) & (values <= greatest)
    step = float(grid.scale)
    assert (error[inside] <= step * (0.5 + 255 * SLACK)).all()
    assert (error <= step * (1 + 255 * SLACK)).all()


@given(ranges(), hnp.arrays(np.float32, 8, elements=FLOATS))
def test_outside_the_range_values_are_clamped_to_the_ends(seen: Range, values: NDArray[np.float32]) -> None:
    grid = activation_grid(seen)
    least, greatest = ends(grid)
    integers = grid.quantize(values)
    assert (integers[values >= greatest] == 255).all()
    assert (integers[values <= least] == 0).all()
    assert integers.dtype == np.uint8


@given(ranges())
def test_zero_is_exactly_on_the_grid(seen: Range) -> None:
    grid = activation_grid(seen)
    zero = np.zeros(1, np.float32)
    assert grid.quantize(zero)[0] == grid.zero_point
    assert grid.dequantize(grid.quantize(zero))[0] == 0
    assert 0 <= grid.zero_point <= 255
    assert np.isfinite(grid.scale)
    assert grid.scale > 0


@given(ranges(), hnp.arrays(np.float32, 16, elements=FLOATS))
def test_quantizing_twice_changes_nothing(seen: Range, values: NDArray[np.float32]) -> None:
    grid = activation_grid(seen)
    once = grid.quantize(values)
    assert (grid.quantize(grid.dequantize(once)) == once).all()


@given(hnp.arrays(np.float32, (3, 5), elements=FLOATS), st.sampled_from([0, 1]))
def test_weights_are_within_half_a_step_of_their_channel(weights: NDArray[np.float32], axis: int) -> None:
    grid = weight_grid(weights, axis)
    integers = grid.quantize(weights)
    scale = grid.scale.astype(np.float64).reshape((-1, 1) if axis == 0 else (1, -1))
    error = np.abs(grid.dequantize(integers).astype(np.float64) - weights)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    assert (error <= scale * (0.5 + 127 * SLACK)).all()
    assert (grid.quantize(-weights) == -integers).all()


@given(hnp.arrays(np.float32, (3, 5), elements=MODEST))
def test_each_channel_reaches_the_end_of_its_grid(weights: NDArray[np.float32]) -> None:
    weights[0] = 0
    grid = weight_grid(weights, 0)
    integers = grid.quantize(weights)
    assert not integers[0].any()
    assert grid.scale[0] == 1
    for row, channel in zip(weights[1:], integers[1:], strict=True):
        if np.abs(row).max() > 1e-30:
            assert np.abs(channel).max() == 127


@given(
    hnp.arrays(np.float32, 4, elements=MODEST),
    st.floats(2**-20, 1024, width=32),
    hnp.arrays(np.float32, 4, elements=st.floats(2**-20, 1024, width=32)),
)
def test_a_bias_is_within_half_a_step_of_the_sums(
    bias: NDArray[np.float32], activation: float, weights: NDArray[np.float32]
) -> None:
    inputs = np.asarray(activation, np.float32)
    scales = np.maximum(weights, least_weight_scale(bias, inputs))
    steps, scale = quantize_bias(bias, inputs, scales)
    error = np.abs(steps * scale.astype(np.float64) - bias)
    assert (error <= scale * 0.5000001).all()


def test_a_bias_that_does_not_fit_is_refused_and_fits_with_coarser_weights() -> None:
    bias, inputs = np.array([5, 0], np.float32), np.asarray(1e-7, np.float32)
    weights = np.array([[0.0127, 0.001], [0.0127, 0.001]], np.float32)
    with pytest.raises(ValueError, match="too large"):
        quantize_bias(bias, inputs, weight_grid(weights, 0).scale)
    grid = weight_grid(weights, 0, least_weight_scale(bias, inputs))
    steps, scale = quantize_bias(bias, inputs, grid.scale)
    assert steps * scale == pytest.approx(bias, rel=1e-6)
    assert grid.scale[1] == pytest.approx(1e-4)
