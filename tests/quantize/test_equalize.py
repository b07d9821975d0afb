"""Equalisation frees activations' grids of outlier channels; no answer changes, nor a module without them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.network.specification import CHANNELS_8, Range
from pocketvl.observe.calibrate import Feed, calibrate
from pocketvl.observe.calibration import Calibration
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.arithmetic import activation_grid, quantize_weights, weight_scale
from pocketvl.quantize.equalize import (
    LEAST_GAIN,
    STRENGTHS,
    channel_reach,
    equalize_,
    equalized_calibration,
    equalizing_factors,
    expected_error,
    scalable,
)
from pocketvl.quantize.fake import fake_quantize
from pocketvl.quantize.fold import fold_
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_chinese import make_tiny_chinese
from tests.lower.lowered import COMPONENTS, samples
from tests.quantize.outliers import plant_outliers_

CHANNELS = 32
REACHES = arrays(np.float64, 6, elements=st.floats(0, 1e6))


class Block(nn.Module):
    """A LayerNorm that two linears read; the outlier channels of what comes in are 20 times the others."""

    def __init__(self, outliers: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.norm, self.one, self.two = (
            nn.LayerNorm(CHANNELS),
            nn.Linear(CHANNELS, 40),
            nn.Linear(CHANNELS, 8),
        )
        self.spread = torch.ones(CHANNELS)
        self.spread[:outliers] = 20
        with torch.no_grad():
            for linear in (self.one, self.two):
                linear.weight.copy_(torch.randn(linear.weight.shape, generator=random))
                linear.weight[:, :outliers] /= (
                    20  # as training has it: what is large is read with small weights
                )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x * self.spread)
        return torch.cat([self.one(normed), self.two(normed)], dim=-1)


def feeds(count: int, seed: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(1, 16, CHANNELS)).astype(np.float32) for _ in range(count)]


def seen_by(module: nn.Module, inputs: Sequence[Feed]) -> Calibration:
    names = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    return calibrate(module, inputs, CalibrationSettings(second_moments=True), kept=names)


def answers(module: nn.Module, inputs: list[NDArray[np.float32]]) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([module(torch.from_numpy(feed)) for feed in inputs])


def int8_error(module: Block, inputs: list[NDArray[np.float32]]) -> float:
    """Both linears' squared error with rounded weights and input, in parts of their outputs' mean squares."""
    total = 0.0
    with torch.no_grad():
        values = torch.cat([module.norm(torch.from_numpy(feed) * module.spread) for feed in inputs])
        seen = Range(float(values.min()), float(values.max()))
        for linear in (module.one, module.two):
            weight = linear.weight.numpy()
            scale = weight_scale(weight, CHANNELS_8)
            rounded = torch.from_numpy(quantize_weights(weight, scale, CHANNELS_8) * scale[:, None])
            exact = values @ linear.weight.T
            error = fake_quantize(values, activation_grid(seen)) @ rounded.T - exact
            total += float((error**2).sum() / (exact**2).sum())
    return total


def test_outliers_are_equalised_and_the_module_computes_the_same() -> None:
    module, calibration = Block(outliers=3).eval(), feeds(32, 2)
    before, error_before = answers(module, feeds(8, 3)), int8_error(module, calibration)
    told: list[tuple[int, int, str]] = []
    (decided,) = equalize_(
        module,
        torch.from_numpy(calibration[0]),
        seen_by(module, calibration),
        progress=lambda *news: told.append(news),
    )
    assert (decided.norm, decided.linears) == ("norm", ("one", "two"))
    assert decided.strength in STRENGTHS
    assert not (module.norm.weight == 1).all()
    assert torch.allclose(answers(module, feeds(8, 3)), before, atol=1e-5)
    error_after = int8_error(module, calibration)
    assert error_after < 0.1 * error_before
    assert decided.error_before == pytest.approx(error_before, rel=0.1)  # what was expected is what comes
    assert decided.error_after == pytest.approx(error_after, rel=0.1)
    assert told == [(1, 1, "equalization")]


def test_a_module_without_outliers_is_left_alone() -> None:
    module, calibration = Block(outliers=0).eval(), feeds(32, 2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    (decided,) = equalize_(module, torch.from_numpy(calibration[0]), seen_by(module, calibration))
    assert decided.strength is None
    assert decided.error_after == decided.error_before > 0
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_was_equalised_is_left_alone_the_second_time() -> None:
    module, calibration = Block(outliers=3).eval(), feeds(32, 2)
    example = torch.from_numpy(calibration[0])
    (first,) = equalize_(module, example, seen_by(module, calibration))
    (second,) = equalize_(module, example, seen_by(module, calibration))
    assert first.strength is not None
    assert second.strength is None
    assert second.error_before == pytest.approx(first.error_after, rel=1e-3)


def test_shift_and_channels_that_are_always_zero_are_scaled_too() -> None:
    module, calibration = Block(outliers=3).eval(), feeds(32, 2)
    with torch.no_grad():
        module.norm.bias.copy_(torch.linspace(-1, 1, CHANNELS))
        module.norm.weight[5] = module.norm.bias[5] = 0  # nothing comes
        module.one.weight[:, 6] = module.two.weight[:, 6] = 0  # nobody reads
    before = answers(module, feeds(8, 3))
    (decided,) = equalize_(module, torch.from_numpy(calibration[0]), seen_by(module, calibration))
    assert decided.strength is not None
    assert torch.allclose(answers(module, feeds(8, 3)), before, atol=1e-5)


def test_few_vectors_do_not_scale_chance() -> None:
    """Each channel's greatest of a few values is luck; by it alone, others leave the grid far more often."""
    module = Block(outliers=3).eval()

    def normed(inputs: list[NDArray[np.float32]]) -> NDArray[np.float32]:
        with torch.no_grad():
            rows = [module.norm(torch.from_numpy(feed) * module.spread).flatten(0, 1) for feed in inputs]
        return torch.cat(rows).numpy()

    small = [feed[:, :1] for feed in feeds(24, 2)]
    few, others = normed(small), normed(feeds(24, 3))
    reach = channel_reach(seen_by(module, small).layers["one"])

    def left_the_grid(reach: NDArray[np.floating]) -> float:
        factors = equalizing_factors(reach, np.ones(CHANNELS), 1.0)
        return float((np.abs(others / factors) > np.abs(few / factors).max()).mean())

    assert left_the_grid(reach) < left_the_grid(np.abs(few).max(axis=0)) / 3
    assert (reach >= np.abs(few).max(axis=0)).all()


def test_the_calibration_of_an_equalized_module_follows_from_that_before() -> None:
    module, inputs = Block(outliers=3).eval(), feeds(32, 2)
    before = seen_by(module, inputs)
    decided = equalize_(module, torch.from_numpy(inputs[0]), before)
    found = equalized_calibration(before, decided)
    expected = seen_by(module, inputs)
    assert found.layers["one"].second_moment is found.layers["two"].second_moment
    for name, layer in expected.layers.items():
        like = found.layers[name]
        for part in ("input_mean", "second_moment", "low", "high"):
            np.testing.assert_allclose(getattr(like, part), getattr(layer, part), rtol=1e-4, atol=1e-5)
        ends = (layer.input.low, layer.input.high, layer.output.low, layer.output.high)
        assert (like.input.low, like.input.high, like.output.low, like.output.high) == pytest.approx(
            ends, rel=0.02
        )


class PooledBlock(Block):
    """Of the LayerNorm's two linears, the second reads it at one position, and that without outliers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        row = self.norm(x[:, :1])
        return self.one(self.norm(x * self.spread)).mean() + self.two(row)  # type: ignore[no-any-return]


def test_linears_that_read_a_norm_at_different_positions_keep_their_own_ranges() -> None:
    """The last layer of a CLIP asks at one position and is asked at all."""
    module, inputs = PooledBlock(outliers=3).eval(), feeds(32, 2)
    example = torch.from_numpy(inputs[0])
    before = seen_by(module, inputs)
    (decided,) = equalize_(module, example, before)
    assert decided.strength is not None
    found, expected = equalized_calibration(before, [decided]), seen_by(module, inputs)
    assert found.layers["one"].second_moment is not found.layers["two"].second_moment
    for name, layer in expected.layers.items():
        like = found.layers[name]
        np.testing.assert_allclose(like.input_mean, layer.input_mean, rtol=1e-4, atol=1e-5)
        ends = (layer.input.low, layer.input.high)
        assert (like.input.low, like.input.high) == pytest.approx(ends, rel=0.05)
    assert expected.layers["two"].input.high > 1.5 * expected.layers["one"].input.high


@given(REACHES, REACHES, st.sampled_from(STRENGTHS))
def test_factors_are_positive_with_a_geometric_mean_of_1(
    inputs: NDArray[np.float64], weights: NDArray[np.float64], strength: float
) -> None:
    factors = equalizing_factors(inputs, weights, strength)
    assert np.isfinite(factors).all()
    assert (factors > 0).all()
    assert np.log(factors).mean() == pytest.approx(0, abs=1e-9)


@given(arrays(np.float64, 6, elements=st.floats(1, 900)), arrays(np.float64, 6, elements=st.floats(1, 900)))
def test_the_ends_of_the_strengths_level_one_side(
    inputs: NDArray[np.float64], weights: NDArray[np.float64]
) -> None:
    level = inputs / equalizing_factors(inputs, weights, 1.0)
    assert level == pytest.approx(level[0])
    level = weights * equalizing_factors(inputs, weights, 0.0)
    assert level == pytest.approx(level[0])


def test_half_the_strength_levels_both_sides_to_the_same() -> None:
    inputs, weights = np.array([1.0, 20.0, 4.0]), np.array([2.0, 0.5, 1.0])
    factors = equalizing_factors(inputs, weights, 0.5)
    ratio = (inputs / factors) / (weights * factors)
    assert ratio == pytest.approx(ratio[0])


def test_weights_that_are_all_zero_are_no_error() -> None:
    seen = seen_by(Block(outliers=3).eval(), feeds(2, 5)).layers["one"]
    assert expected_error([torch.zeros(3, CHANNELS)], [0.0], [seen], np.ones(CHANNELS), CHANNELS_8) == 0


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_clip_without_outliers_is_left_alone_and_one_with_is_not(component: str, tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    module = source.component("image_encoder" if component == "pixels" else "text_encoder").module
    inputs = [feed[component] for feed in samples(component, 32, 3)]
    example = torch.from_numpy(inputs[0])
    fold_(module, example)
    decided = equalize_(module, example, seen_by(module, inputs))
    assert len(decided) == 5  # two in each of two layers, and the last
    assert [one.strength for one in decided] == [None] * 5
    with torch.no_grad():
        plant_outliers_(module, example, list(range(0, 32, 4)), 20)
        expected = torch.cat([module(torch.from_numpy(feed)) for feed in inputs])
        decided = equalize_(module, example, seen_by(module, inputs))
        found = torch.cat([module(torch.from_numpy(feed)) for feed in inputs])
    assert all(one.error_after < (1 - LEAST_GAIN) * one.error_before for one in decided)
    assert torch.allclose(found, expected, atol=1e-5)


def test_outliers_after_sums_are_equalised_and_what_is_added_to_stays_the_same(tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_chinese(tmp_path / "chinese"))
    module = source.component("text_encoder").module
    random = np.random.default_rng(0)
    inputs: list[Feed] = [random.integers(3, 300, (4, 16)).astype(np.int32) for _ in range(16)]
    ids, example = torch.from_numpy(np.concatenate(inputs)), torch.from_numpy(np.asarray(inputs[0]))
    with torch.no_grad():
        fold_(module, example)
        before, calibration = module(ids), seen_by(module, inputs)
        decided = equalize_(module, example, calibration)
        after = module(ids)
    layers = "text_model.encoder.layer"
    assert [(each.norm, each.sums) for each in decided] == [
        ("text_model.embeddings.LayerNorm", (f"{layers}.0.attention.output",)),
        (f"{layers}.0.attention.output.LayerNorm", (f"{layers}.0.output",)),
        (f"{layers}.0.output.LayerNorm", (f"{layers}.1.attention.output",)),
        (f"{layers}.1.attention.output.LayerNorm", (f"{layers}.1.output",)),
        (f"{layers}.1.output.LayerNorm", ()),  # which the projection reads, at one position
    ]
    planted = decided[1:]
    assert all(each.error_after < (1 - LEAST_GAIN) * each.error_before for each in planted)
    assert decided[0].factors is None  # no outlier was planted there
    assert torch.allclose(after, before, atol=1e-5)
    told, again = equalized_calibration(calibration, decided), seen_by(module, inputs)
    for each in planted:
        for name in each.linears:
            assert told.layers[name].input_mean == pytest.approx(again.layers[name].input_mean, abs=1e-4)


def test_linears_that_calibration_did_not_see_with_moments_are_an_error() -> None:
    module, inputs = Block(outliers=3).eval(), feeds(2, 2)
    for seen in (Calibration({}), calibrate(module, inputs)):
        with pytest.raises(DataError, match="one cannot be equalized"):
            equalize_(module, torch.from_numpy(inputs[0]), seen)


class Convolutions(nn.Module):
    """Grouped and pointwise convolutions, float [B, 3, 8, 8] -> [B, 4]; `stem` has outlier channels."""

    def __init__(self, pads: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.up = nn.Conv2d(3, 24, 3, groups=3), nn.Conv2d(24, 32, 1, padding=int(pads))
        self.act, self.down = nn.GELU(), nn.Conv2d(32, 4, 1)
        with torch.no_grad():
            self.stem.weight[:2] *= 30
            self.stem.get_parameter("bias")[:2] *= 30
            self.up.weight[:, :2] /= 30

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.down(self.act(self.up(self.stem(pictures)))).mean((-2, -1))
        return found


def test_a_convolution_takes_outliers_off_the_pointwise_one_that_reads_it() -> None:
    module, example = Convolutions().eval().requires_grad_(False), torch.zeros(1, 3, 8, 8)
    random = np.random.default_rng(0)
    feeds: list[Feed] = [random.standard_normal((4, 3, 8, 8)).astype(np.float32) for _ in range(8)]
    settings = CalibrationSettings(second_moments=True)
    found = scalable(module, example)
    assert [(each.norm, each.linears) for each in found] == [
        ("stem", ("up",))
    ]  # not `up`: an activation follows
    seen = calibrate(module, feeds, settings, kept={"up"})
    pictures = torch.from_numpy(np.concatenate([np.asarray(feed) for feed in feeds]))
    before = module(pictures)

    (decided,) = equalize_(module, example, seen, settings)

    assert decided.factors is not None
    assert decided.error_after < decided.error_before / 10
    assert torch.allclose(module(pictures), before, atol=1e-5)
    told, again = equalized_calibration(seen, [decided]), calibrate(module, feeds, settings)
    for name, side in (("stem", "output"), ("up", "input")):
        ranges = [getattr(each.layers[name], side) for each in (told, again, seen)]
        assert ranges[0].high - ranges[0].low == pytest.approx(ranges[1].high - ranges[1].low, rel=0.1)
        assert ranges[0].high - ranges[0].low < (ranges[2].high - ranges[2].low) / 5
    assert activation_grid(told.layers["stem"].output) == activation_grid(told.layers["up"].input)


def test_a_convolution_that_pads_what_it_reads_is_not_pointwise() -> None:
    assert scalable(Convolutions(pads=True).eval(), torch.zeros(1, 3, 8, 8)) == ()
