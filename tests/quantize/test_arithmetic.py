"""The 8-bit grids keep what they promise, for every range that a float32 tensor can have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pocketvl.errors import RecipeError
from pocketvl.network.integers import spread
from pocketvl.network.specification import BLOCKS_4, CHANNELS_8, Granularity, GridSpec, Range, Scheme
from pocketvl.quantize.arithmetic import (
    Grid,
    activation_grid,
    least_weight_scale,
    quantize_bias,
    quantize_weights,
    weight_scale,
)
from tests.memory import peak_bytes

LARGEST = float(np.float32(3e38))  # beyond it, the last step of a grid may not be a float32
FLOATS = st.floats(-LARGEST, LARGEST, width=32, allow_subnormal=True)
MODEST = st.floats(-1e6, 1e6, width=32)
# rounding of the scale and of the product to float32, relative to the largest value on the grid
SLACK = 2e-5


BITS = st.integers(2, 8)


def ends(grid: Grid) -> tuple[float, float]:
    low, high = (float(grid.dequantize(np.array(end))) for end in (grid.lowest, grid.highest))
    return low, high


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    low, high = sorted((draw(FLOATS), draw(FLOATS)))
    return Range(low, high)


@st.composite
def grids(draw: st.DrawFn) -> Grid:
    """Any scale, offset and width: the grid as the mission defines it."""
    bits = draw(BITS)
    lowest, highest = draw(st.sampled_from([(0, 2**bits - 1), (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)]))
    scale, offset = draw(st.floats(2**-20, 1024, width=32)), draw(st.floats(-100, 100, width=32))
    return Grid(np.asarray(scale), np.asarray(offset), lowest, highest)


@given(grids(), st.floats(-1e4, 1e4))
def test_a_value_is_held_as_the_nearest_integer_of_the_grid(grid: Grid, value: float) -> None:
    """q = argmin over Q of |q - (w - z) / s|, and the weight stands for s q + z."""
    wanted = (value - float(grid.offset)) / float(grid.scale)
    (found,) = grid.quantize(np.array([value]))
    distances = {q: abs(q - wanted) for q in range(grid.lowest, grid.highest + 1)}
    assert distances[int(found)] <= min(distances.values()) + 1e-9 * (1 + abs(wanted))
    stands_for = float(grid.scale) * int(found) + float(grid.offset)
    assert grid.dequantize(found) == pytest.approx(stands_for, rel=1e-6, abs=1e-30)


@given(grids(), st.floats(0, 1))
def test_inside_the_range_the_error_is_at_most_half_a_step(grid: Grid, place: float) -> None:
    low, high = ends(grid)
    value = np.array([low + place * (high - low)])
    error = abs(float(grid.dequantize(grid.quantize(value))[0]) - value[0])
    assert error <= float(grid.scale) / 2 + SLACK * max(abs(low), abs(high))


@given(grids(), st.floats(0, 1e4))
def test_outside_the_range_values_are_clamped_to_the_ends(grid: Grid, beyond: float) -> None:
    low, high = ends(grid)
    values = np.array([low - beyond, high + beyond])
    assert grid.quantize(values).tolist() == [grid.lowest, grid.highest]


@given(grids(), st.floats(-1e4, 1e4))
def test_quantizing_twice_changes_nothing(grid: Grid, value: float) -> None:
    once = grid.quantize(np.array([value]))
    offset, step = abs(float(grid.offset)), float(grid.scale)
    if offset < 1e5 * step:  # beyond it, a point is not a float32 any more
        assert (grid.quantize(grid.dequantize(once)) == once).all()


@given(ranges(), BITS, st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_an_activations_grid_covers_its_range(seen: Range, bits: int, places: list[float]) -> None:
    found = activation_grid(seen, bits)
    grid = Grid.of(found)
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    values = np.array([low * (1 - place) + high * place for place in places], np.float32)
    error = np.abs(grid.dequantize(grid.quantize(values)).astype(np.float64) - values)
    # the zero point is rounded, which moves the ends by up to half a step
    assert (error <= found.scale * (1 + 255 * SLACK)).all()


@given(ranges(), BITS)
def test_zero_is_exactly_on_an_activations_grid(seen: Range, bits: int) -> None:
    found = activation_grid(seen, bits)
    grid, zero = Grid.of(found), np.zeros(1, np.float32)
    assert grid.quantize(zero)[0] == found.zero_point
    assert grid.dequantize(grid.quantize(zero))[0] == 0
    assert 0 <= found.zero_point <= found.highest == 2**bits - 1
    assert np.isfinite(found.scale)
    assert found.scale > 0


@given(hnp.arrays(np.float32, (3, 5), elements=FLOATS), BITS)
def test_weights_are_within_half_a_step_of_their_channel(weights: NDArray[np.float32], bits: int) -> None:
    spec = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    scale = weight_scale(weights, spec)
    integers = quantize_weights(weights, scale, spec)
    wide = spread(scale, weights.shape).astype(np.float64)
    assert integers.dtype == np.int8
    assert np.abs(integers).max() <= 2 ** (bits - 1) - 1
    assert (np.abs(integers * wide - weights) <= wide * (0.5 + 127 * SLACK)).all()
    assert (quantize_weights(-weights, scale, spec) == -integers).all()


@given(hnp.arrays(np.float32, (3, 5), elements=MODEST))
def test_each_channel_reaches_the_end_of_its_grid(weights: NDArray[np.float32]) -> None:
    weights[0] = 0
    scale = weight_scale(weights, CHANNELS_8)
    integers = quantize_weights(weights, scale, CHANNELS_8)
    assert not integers[0].any()
    assert scale[0] == 1
    for row, channel in zip(weights[1:], integers[1:], strict=True):
        if np.abs(row).max() > 1e-30:
            assert np.abs(channel).max() == 127


@given(hnp.arrays(np.float32, (2, 64), elements=st.floats(-100, 100, width=32)))
def test_groups_have_scales_of_their_own_that_engines_can_hold(weights: NDArray[np.float32]) -> None:
    scale = weight_scale(weights, BLOCKS_4)
    assert scale.shape == (2, 2)
    bits = scale.view(np.uint32)
    assert not (bits & 0xFFFF).any()  # bfloat16
    np.testing.assert_array_equal(scale.astype(np.float16).astype(np.float32), scale)
    wide = spread(scale, weights.shape).astype(np.float64)
    error = np.abs(quantize_weights(weights, scale, BLOCKS_4) * wide - weights)
    assert (error <= wide * (0.5 + 7 / 256)).all()  # the scale may have been rounded down


def test_groups_must_divide_the_inputs() -> None:
    with pytest.raises(RecipeError, match="groups of 32 do not divide"):
        weight_scale(np.ones((2, 40), np.float32), BLOCKS_4)


@given(
    hnp.arrays(np.float32, 4, elements=MODEST),
    st.floats(2**-20, 1024, width=32),
    hnp.arrays(np.float32, 4, elements=st.floats(2**-20, 1024, width=32)),
)
def test_a_bias_is_within_half_a_step_of_the_sums(
    bias: NDArray[np.float32], activation: float, weights: NDArray[np.float32]
) -> None:
    scales = np.maximum(weights, least_weight_scale(bias, activation))
    steps = quantize_bias(bias, activation, scales)
    scale = np.float32(activation) * scales
    error = np.abs(steps * scale.astype(np.float64) - bias)
    assert (error <= scale * 0.5000001).all()


def test_a_bias_that_does_not_fit_is_refused_and_fits_with_coarser_weights() -> None:
    bias, inputs = np.array([5, 0], np.float32), float(np.float32(1e-7))
    weights = np.array([[0.0127, 0.001], [0.0127, 0.001]], np.float32)
    with pytest.raises(ValueError, match="too large"):
        quantize_bias(bias, inputs, weight_scale(weights, CHANNELS_8))
    scale = weight_scale(weights, CHANNELS_8, least_weight_scale(bias, inputs))
    steps = quantize_bias(bias, inputs, scale)
    assert steps * (np.float32(inputs) * scale) == pytest.approx(bias, rel=1e-6)
    assert scale[1] == pytest.approx(1e-4)


def test_a_table_is_rounded_without_copies_of_it() -> None:
    table = np.random.default_rng(0).normal(size=(40_000, 64)).astype(np.float32)
    scale = weight_scale(table, CHANNELS_8)
    most = table.nbytes  # the integers are a quarter of it
    assert peak_bytes(lambda: weight_scale(table, CHANNELS_8)) < most
    assert peak_bytes(lambda: quantize_weights(table, scale, CHANNELS_8)) < most
    exact = np.rint(table.astype(np.float64) / scale[:, None].astype(np.float64))
    assert np.array_equal(quantize_weights(table, scale, CHANNELS_8), exact)
