"""Observers lose no value, hold no more for more of them, and choose the ranges they say they choose."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.network.specification import Range
from pocketvl.observe.observer import (
    BINS,
    CalibrationSettings,
    Histogram,
    Observer,
    TensorObserver,
    entropy_range,
    mse_range,
    percentile_range,
)
from pocketvl.quantize.arithmetic import activation_grid
from pocketvl.quantize.fake import fake_quantize

Floats = NDArray[np.float32]
LARGEST = float(np.float32(1e38))
FLOATS = st.floats(-LARGEST, LARGEST, width=32)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS)
MODEST = hnp.arrays(np.float32, st.integers(1, 60), elements=st.floats(-1000, 1000, width=32))


def histogram(*batches: NDArray[np.float32] | torch.Tensor) -> Histogram:
    made = Histogram()
    for batch in batches:
        made.add(torch.as_tensor(batch))
    return made


def squared_error(values: torch.Tensor, seen: Range, bits: int) -> float:
    held = fake_quantize(values.double(), activation_grid(seen, bits))
    return float((held - values.double()).square().mean())


def whole(values: torch.Tensor) -> Range:
    return Range(float(values.min()), float(values.max()))


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def heavy_tailed(count: int, seed: int = 0) -> torch.Tensor:
    """Student's t with 3 degrees of freedom."""
    draws = np.random.default_rng(seed).standard_t(3, count)
    return torch.from_numpy(draws.astype(np.float32))


def uniform(count: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, generator=torch.Generator().manual_seed(seed)) * 3 - 1


# the histogram


@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_no_value_is_lost_and_extremes_are_exact_while_the_range_grows(batches: list[Floats]) -> None:
    together = np.concatenate(batches)
    found = histogram(*batches)
    assert found.counts.sum() == len(together)
    assert (found.low, found.high) == (together.min(), together.max())


@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_each_value_is_counted_in_the_bin_it_lies_in(batches: list[Floats]) -> None:
    """However often bins were merged: as if the final bins had been there from the beginning."""
    found = histogram(*batches)
    places = [math.floor(float(value) / found.width) - found.first for value in np.concatenate(batches)]
    assert found.counts.tolist() == np.bincount(places, minlength=BINS).tolist()


@given(ARRAYS, st.integers(0, 60), st.randoms(use_true_random=False))
def test_batches_and_their_order_do_not_matter(
    values: Floats, cut: int, random: np.random.RandomState
) -> None:
    once = histogram(values)
    shuffled = list(values)
    random.shuffle(shuffled)
    twice = histogram(np.array(shuffled[:cut], np.float32), np.array(shuffled[cut:], np.float32))
    assert (once.width, once.first) == (twice.width, twice.first)
    assert once.counts.tolist() == twice.counts.tolist()
    np.testing.assert_allclose(
        once.points().values, twice.points().values, rtol=1e-12, atol=once.width * 1e-9
    )


def test_more_than_half_of_the_bins_span_the_range() -> None:
    found = histogram(uniform(1000))
    assert BINS / 2 <= (found.high - found.low) / found.width <= BINS


@given(st.lists(MODEST, min_size=1, max_size=3))
def test_points_are_the_means_of_the_bins(batches: list[Floats]) -> None:
    together = np.concatenate(batches).astype(np.float64)
    found = histogram(*batches)
    points = found.points()
    places = np.floor(together / found.width)
    means = [together[places == place].mean() for place in np.unique(places)]
    np.testing.assert_allclose(points.values, means, rtol=1e-9, atol=1e-9 * found.width)


@given(st.lists(ARRAYS, min_size=1, max_size=3), st.floats(0, 1))
def test_a_quantile_is_within_a_bin_of_the_value_of_that_rank(batches: list[Floats], share: float) -> None:
    together = np.sort(np.concatenate(batches).astype(np.float64))
    found = histogram(*batches)
    # the target may be rounded up or down a rank, where it is one within rounding
    ranks = [math.ceil(share * len(together) + nudge) - 1 for nudge in (-1e-9, 1e-9)]
    below, above = (together[min(max(rank, 0), len(together) - 1)] for rank in ranks)
    assert below - found.width <= found.quantile(share) <= above + found.width
    assert found.low <= found.quantile(share) <= found.high


def test_an_empty_tensor_changes_nothing() -> None:
    found = histogram(np.array([1, 2], np.float32))
    before = found.counts.tolist()
    found.add(torch.zeros(0))
    assert (found.low, found.high, found.counts.tolist()) == (1, 2, before)


# the choice of a range


@pytest.mark.parametrize(("bits", "at_most"), [(4, 0.6), (8, 0.99)])
@pytest.mark.parametrize("values", [heavy_tailed(20_000), normal(200_000), normal(200_000).relu()])
def test_the_mse_range_beats_the_whole_in_true_squared_error(
    values: torch.Tensor, bits: int, at_most: float
) -> None:
    found = mse_range(histogram(values), bits)
    assert squared_error(values, found, bits) < at_most * squared_error(values, whole(values), bits)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_mse_range_loses_nothing_on_uniform_values(bits: int) -> None:
    values = uniform(20_000)
    found = mse_range(histogram(values), bits)
    assert squared_error(values, found, bits) <= 1.01 * squared_error(values, whole(values), bits)


@given(MODEST, st.integers(2, 8))
def test_the_mse_range_is_never_worse_than_the_whole(values: Floats, bits: int) -> None:
    """But for what the histogram does not know: where in its bin a value is."""
    tensor, made = torch.from_numpy(values), histogram(values)
    found = mse_range(made, bits)
    best, plain = (math.sqrt(squared_error(tensor, seen, bits)) for seen in (found, whole(tensor)))
    assert best <= plain + 2 * made.width


@pytest.mark.parametrize("bits", [3, 5])
def test_no_range_on_a_fine_lattice_is_much_better_than_the_mse_range(bits: int) -> None:
    values = torch.nn.functional.gelu(2 * normal(5_000))
    parts = np.linspace(0, 1, 25)[1:]
    low, high = float(values.min()), float(values.max())
    lattice = (squared_error(values, Range(low * a, high * b), bits) for a in (0, *parts) for b in parts)
    assert squared_error(values, mse_range(histogram(values), bits), bits) <= 1.005 * min(lattice)


def test_low_and_high_are_searched_independently() -> None:
    """A long tail on one side, which is worth clipping, and a hard end on the other, which is not."""
    values = torch.cat([heavy_tailed(20_000).abs(), -uniform(20_000).abs()])
    found = mse_range(histogram(values), 5)
    assert found.high < 0.5 * float(values.max())
    assert found.low < 0.8 * float(values.min())


def test_pixels_keep_their_own_grid() -> None:
    values = torch.arange(256.0).repeat(7)
    for choose in (mse_range, entropy_range):
        assert choose(histogram(values), 8) == Range(0, 255)


def test_entropy_clips_an_outlier_away() -> None:
    values = torch.cat([normal(20_000), torch.tensor([100.0])])
    found = entropy_range(histogram(values), 8)
    assert 3 < found.high < 15
    assert -5 < found.low < -3


def test_entropy_keeps_all_of_uniform_values() -> None:
    values = uniform(50_000)
    found = entropy_range(histogram(values), 8)
    assert found.low < 0.97 * float(values.min())
    assert found.high > 0.97 * float(values.max())


def test_entropy_is_not_led_astray_by_a_spike_at_zero() -> None:
    plain, spiked = normal(20_000).abs(), torch.cat([normal(20_000).abs(), torch.zeros(20_000)])
    without, found = (entropy_range(histogram(values), 8) for values in (plain, spiked))
    assert found.high == pytest.approx(without.high, rel=0.1)


@pytest.mark.parametrize("bits", [3, 6])
def test_the_entropy_range_is_the_best_by_a_divergence_written_out(bits: int) -> None:
    """Against the definition, bin by bin, for every pair of ends on a coarse lattice."""
    made = histogram(heavy_tailed(3_000))
    points = made.points()
    place = int(np.searchsorted(points.values, 0.0))  # a spike at 0 does not count, as the method says
    points.counts[place] = min(points.counts[place], points.counts[place - 1 : place + 2 : 2].max())

    def divergence(low: float, high: float) -> float:
        (inside,) = np.nonzero((points.values >= low) & (points.values <= high))
        p = points.counts[inside].copy()
        p[0] += points.counts[: inside[0]].sum()
        p[-1] += points.counts[inside[-1] + 1 :].sum()
        scale = (high - low) / (2**bits - 1)
        levels = np.rint(points.values[inside] / scale)
        levels = np.clip(levels, -np.rint(-low / scale), 2**bits - 1 - np.rint(-low / scale))
        q = np.empty(len(p))
        for level in np.unique(levels):
            q[levels == level] = points.counts[inside][levels == level].mean()
        p, q = p / p.sum(), q / q.sum()
        return float((p * np.log(p / q)).sum())

    found = entropy_range(made, bits)
    parts = np.arange(1, 17) / 16
    spans = [(made.low * a, made.high * b) for a in parts for b in parts]
    wide = [(low, high) for low, high in spans if high - low >= made.width * 2**bits]
    assert divergence(found.low, found.high) <= min(divergence(*span) for span in wide) + 1e-9


@pytest.mark.parametrize("choose", [mse_range, entropy_range])
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0, 0], (0, 0)),
        ([3, 3, 3], (0, 3)),
        ([-2], (-2, 0)),
        ([1e-40], (0, 1e-40)),
        ([-1e38, 1e38], (-1e38, 1e38)),
    ],
)
def test_ranges_of_few_values_are_whole(
    choose: object, values: list[float], wanted: tuple[float, float]
) -> None:
    assert callable(choose)
    found = choose(histogram(np.array(values, np.float32)), 8)
    assert (found.low, found.high) == pytest.approx(wanted, rel=1e-6)


def test_a_percentile_leaves_out_as_much_below_as_above() -> None:
    values = torch.arange(100_001.0)
    found = percentile_range(histogram(values), 99.0)
    assert found.low == pytest.approx(500, abs=64)
    assert found.high == pytest.approx(99_500, abs=64)


@given(ARRAYS)
def test_all_of_the_values_are_the_hundredth_percentile(values: Floats) -> None:
    assert percentile_range(histogram(values), 100.0) == Range(float(values.min()), float(values.max()))


# the observer of a tensor


@pytest.mark.parametrize("samples_at_once", [1, 2, 6])
def test_a_moving_average_is_of_samples_not_of_batches(samples_at_once: int) -> None:
    values = normal(6 * 5).reshape(6, 5)
    observer = TensorObserver("x", CalibrationSettings(Observer.MOVING_AVERAGE, momentum=0.75))
    for batch in torch.split(values, samples_at_once):
        observer.observe(batch, samples_at_once)
    low, high = float(values[0].min()), float(values[0].max())
    for row in values[1:]:
        low, high = 0.75 * low + 0.25 * float(row.min()), 0.75 * high + 0.25 * float(row.max())
    assert observer.range().low == pytest.approx(low, rel=1e-12)
    assert observer.range().high == pytest.approx(high, rel=1e-12)


@pytest.mark.parametrize("observer", Observer)
def test_every_observer_gives_what_it_says(observer: Observer) -> None:
    values = heavy_tailed(4_000)
    settings = CalibrationSettings(observer, percentile=98.0, momentum=0.5, bits=5)
    watching = TensorObserver("x", settings)
    batches = values.reshape(4, 1_000)
    for batch in batches:
        watching.observe(batch)
    average = whole(batches[0])
    for batch in batches[1:]:
        average = Range(
            0.5 * average.low + 0.5 * float(batch.min()), 0.5 * average.high + 0.5 * float(batch.max())
        )
    wanted = {
        Observer.MIN_MAX: whole(values),
        Observer.MOVING_AVERAGE: average,
        Observer.PERCENTILE: percentile_range(histogram(values), 98.0),
        Observer.ENTROPY: entropy_range(histogram(values), 5),
        Observer.MSE: mse_range(histogram(values), 5),
    }
    assert watching.range().low == pytest.approx(wanted[observer].low, rel=1e-9)
    assert watching.range().high == pytest.approx(wanted[observer].high, rel=1e-9)
    assert len({(seen.low, seen.high) for seen in wanted.values()}) == len(Observer)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="the thing holds NaN or infinity"):
        TensorObserver("the thing", CalibrationSettings()).observe(torch.tensor([1.0, value]))


@pytest.mark.parametrize("observer", Observer)
def test_an_empty_tensor_is_not_seen(observer: Observer) -> None:
    watching = TensorObserver("x", CalibrationSettings(observer))
    watching.observe(torch.zeros(0))
    with pytest.raises(DataError, match="never ran x"):
        watching.range()


def test_what_an_observer_holds_does_not_grow() -> None:
    def held(count: int) -> tuple[int, int]:
        observer, random = TensorObserver("x", CalibrationSettings()), torch.Generator().manual_seed(0)
        tracemalloc.start()
        for _ in range(count):
            observer.observe(torch.randn(512, generator=random))
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return observer.nbytes, after

    (first, traced), (second, traced_later) = held(64), held(1_024)
    assert first == second > 0
    assert abs(traced_later - traced) < 8_192
