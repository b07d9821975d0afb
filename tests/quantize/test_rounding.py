"""Weights become integers that leave less error than the nearest ones, and never leave their grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError, RecipeError
from pocketvl.network.integers import QuantizedComponent, spread
from pocketvl.network.precisions import WeightGrids
from pocketvl.network.specification import (
    ACTIVATION_8,
    BLOCKS_4,
    CHANNELS_8,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    ComponentSpec,
    Granularity,
    GridSpec,
    LayerSpec,
    Mode,
    ProductSpec,
    Range,
    Scheme,
)
from pocketvl.observe.calibrate import Calibration, LayerCalibration, calibrate
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.arithmetic import group_scale, quantize_weights, weight_scale, weight_zero_point
from pocketvl.quantize.component import QuantizeSettings, component_spec, quantize_component
from pocketvl.quantize.rounding import (
    Feedback,
    Rounding,
    clipped_scale,
    correct_bias,
    error_feedback,
    round_weights,
)
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.manifest import Precision

FLOATS = NDArray[np.float32]
DOUBLES = NDArray[np.float64]
CHANNELS_4 = GridSpec(4, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
BITS = st.integers(2, 8)
SEEDS = st.integers(0, 10_000)
PLAIN = QuantizeSettings(clip_weights=False, rounding=Rounding.NEAREST, correct_bias=False)


def normal(seed: int, *shape: int) -> FLOATS:
    drawn: FLOATS = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return drawn


def correlated(seed: int, inputs: int, factors: int | None = None, noise: float = 0.2) -> DOUBLES:
    """The second moment of inputs that a few factors move, channels of different sizes among them."""
    random = np.random.default_rng(seed)
    factors = factors or max(1, inputs // 4)
    mixing = random.normal(size=(inputs, factors)) * np.exp(0.5 * random.normal(size=(inputs, 1)))
    moment: DOUBLES = mixing @ mixing.T / factors + noise**2 * np.eye(inputs)
    return moment


def error_of(weights: FLOATS, integers: NDArray[np.int8], scale: FLOATS, moment: DOUBLES) -> DOUBLES:
    """The mean square of what rounding adds to each output, [channels]: the diagonal of dW H dW^T."""
    difference = weights - integers * spread(scale.astype(np.float64), weights.shape)
    error: DOUBLES = np.einsum("ci,ij,cj->c", difference, moment, difference, optimize=True)
    return error


def textbook_gptq(weights: DOUBLES, scale: DOUBLES, highest: int, moment: DOUBLES) -> NDArray[np.int8]:
    """Algorithm 1 of Frantar et al., 2022 (arXiv 2210.17323), one column at a time, with the inverse."""
    left, found = weights.copy(), np.zeros(weights.shape, np.int8)
    damped = moment + 0.01 * np.diagonal(moment).mean() * np.eye(len(moment))
    for column in range(len(moment)):
        inverse = np.linalg.inv(damped[column:, column:])[0]
        found[:, column] = np.clip(np.rint(left[:, column] / scale), -highest, highest)
        error = (left[:, column] - found[:, column] * scale) / inverse[0]
        left[:, column:] -= np.outer(error, inverse)
    return found


@pytest.mark.parametrize("spec", [CHANNELS_4, BLOCKS_4], ids=["channels", "blocks"])
def test_gptq_loses_far_less_than_the_nearest_at_4_bits(spec: GridSpec) -> None:
    weights, moment = normal(0, 48, 96), correlated(1, 96)
    scale = clipped_scale(weights, spec, moment)
    nearest, found = (
        error_of(weights, round_weights(weights, scale, spec, rounding, moment), scale, moment).sum()
        for rounding in Rounding
    )
    assert found < 0.5 * nearest


def test_gptq_gains_on_inputs_that_it_has_not_seen() -> None:
    random = np.random.default_rng(0)
    mixing = random.normal(size=(16, 64))
    seen, unseen = (
        random.normal(size=(2000, 16)) @ mixing + 0.3 * random.normal(size=(2000, 64)) for _ in range(2)
    )
    weights, moment = normal(2, 32, 64), seen.T @ seen / len(seen)
    scale = clipped_scale(weights, BLOCKS_4, moment)
    errors = []
    for rounding in Rounding:
        integers = round_weights(weights, scale, BLOCKS_4, rounding, moment)
        difference = weights - integers * spread(scale.astype(np.float64), weights.shape)
        errors.append(np.square(unseen @ difference.T).mean())
    assert errors[1] < 0.5 * errors[0]


def test_gptq_is_the_published_one() -> None:
    """Without the inverse, but with the same integers."""
    weights, moment = normal(3, 20, 40), correlated(4, 40)
    order = np.argsort(-np.diagonal(moment))
    scale = weight_scale(weights, CHANNELS_4) * np.float32(1.3)  # so wide that nothing is clamped
    expected = textbook_gptq(
        weights[:, order].astype(np.float64), scale.astype(np.float64), 7, moment[np.ix_(order, order)]
    )
    found = round_weights(weights, scale, CHANNELS_4, Rounding.GPTQ, moment)
    np.testing.assert_array_equal(found[:, order], expected)


@given(SEEDS, BITS, st.integers(1, 40), st.booleans())
def test_gptq_loses_no_more_than_the_nearest_and_stays_in_the_grid(
    seed: int, bits: int, inputs: int, narrow: bool
) -> None:
    """For every channel; also where the inputs span few dimensions, and weights lie beyond the grid."""
    spec = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    weights, moment = normal(seed, 5, inputs), correlated(seed + 1, inputs, noise=0.0)
    scale = weight_scale(weights, spec) * np.float32(0.2 if narrow else 1.0)
    nearest, found = (
        round_weights(weights, scale, spec, rounding, moment)
        for rounding in (Rounding.NEAREST, Rounding.GPTQ)
    )
    assert found.dtype == np.int8
    assert np.abs(found).max() <= spec.highest
    limit = error_of(weights, nearest, scale, moment)
    assert (error_of(weights, found, scale, moment) <= limit * (1 + 1e-9) + 1e-12).all()


@given(SEEDS, st.sampled_from([CHANNELS_8, CHANNELS_4, BLOCKS_4]))
def test_without_correlation_gptq_is_the_nearest(seed: int, spec: GridSpec) -> None:
    weights = normal(seed, 4, 64)
    moment = np.diag(np.exp(np.random.default_rng(seed).normal(size=64)))
    scale = weight_scale(weights, spec)
    found = round_weights(weights, scale, spec, Rounding.GPTQ, moment)
    np.testing.assert_array_equal(found, quantize_weights(weights, scale, spec))


def test_without_a_second_moment_gptq_is_the_nearest() -> None:
    weights = normal(0, 4, 64)
    scale = weight_scale(weights, CHANNELS_4)
    found = round_weights(weights, scale, CHANNELS_4, Rounding.GPTQ)
    np.testing.assert_array_equal(found, quantize_weights(weights, scale, CHANNELS_4))


def test_the_same_weights_give_the_same_integers() -> None:
    def made() -> tuple[bytes, bytes]:
        weights, moment = normal(0, 16, 64), correlated(0, 64)
        scale = clipped_scale(weights, BLOCKS_4, moment)
        return scale.tobytes(), round_weights(weights, scale, BLOCKS_4, Rounding.GPTQ, moment).tobytes()

    assert made() == made()


def test_inputs_that_are_always_zero_are_rounded_to_the_nearest_and_change_nothing_else() -> None:
    weights, alive, dead = normal(0, 8, 48), np.arange(48) % 3 != 1, np.arange(48) % 3 == 1
    moment = correlated(0, 48) * np.outer(alive, alive)
    scale = weight_scale(weights, CHANNELS_4)
    found = round_weights(weights, scale, CHANNELS_4, Rounding.GPTQ, moment)
    np.testing.assert_array_equal(found[:, dead], quantize_weights(weights, scale, CHANNELS_4)[:, dead])
    small = moment[np.ix_(alive, alive)]
    expected = round_weights(weights[:, alive], scale, CHANNELS_4, Rounding.GPTQ, small)
    np.testing.assert_array_equal(found[:, alive], expected)


@pytest.mark.parametrize("samples", [0, 1, 3])
def test_a_second_moment_of_few_samples_will_do(samples: int) -> None:
    weights, seen = normal(0, 8, 40), normal(1, samples, 40).astype(np.float64)
    moment, scale = seen.T @ seen / max(1, samples), weight_scale(weights, CHANNELS_4)
    found = round_weights(weights, scale, CHANNELS_4, Rounding.GPTQ, moment)
    nearest = quantize_weights(weights, scale, CHANNELS_4)
    if samples == 0:
        np.testing.assert_array_equal(found, nearest)
    else:
        limit = error_of(weights, nearest, scale, moment).sum()
        assert error_of(weights, found, scale, moment).sum() < 0.1 * limit


def test_a_convolution_is_rounded_as_the_linear_that_it_is() -> None:
    kernel, moment = normal(0, 6, 3, 4, 4), correlated(0, 48)
    scale = clipped_scale(kernel, CHANNELS_4, moment)
    found = round_weights(kernel, scale, CHANNELS_4, Rounding.GPTQ, moment)
    flat = kernel.reshape(6, 48)
    np.testing.assert_array_equal(scale, clipped_scale(flat, CHANNELS_4, moment))
    expected = round_weights(flat, scale, CHANNELS_4, Rounding.GPTQ, moment)
    np.testing.assert_array_equal(found, expected.reshape(kernel.shape))


@pytest.mark.parametrize(
    ("moment", "message"),
    [
        (np.eye(3), r"4 inputs have a second moment of shape \[3, 3\]"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.eye(4) - 3 * np.eye(4)[::-1], "not positive semidefinite"),
    ],
)
def test_what_is_no_second_moment_is_refused(moment: DOUBLES, message: str) -> None:
    weights = normal(0, 2, 4)
    with pytest.raises(DataError, match=message):
        round_weights(weights, weight_scale(weights, CHANNELS_8), CHANNELS_8, Rounding.GPTQ, moment)


AFFINE_4 = replace(BLOCKS_4, scheme=Scheme.AFFINE)
TENSOR_4 = replace(CHANNELS_4, granularity=Granularity.PER_TENSOR)


@given(
    SEEDS,
    BITS,
    st.sampled_from(list(Rounding)),
    st.sampled_from([AFFINE_4, replace(CHANNELS_4, scheme=Scheme.AFFINE)]),
)
def test_affine_weights_stay_in_their_grid_and_near_what_they_were(
    seed: int, bits: int, rounding: Rounding, spec: GridSpec
) -> None:
    weights, spec, moment = (
        normal(seed, 5, 64) + np.float32(0.7),
        replace(spec, bits=bits),
        correlated(seed, 64),
    )
    scale, zero_point = clipped_scale(weights, spec, moment), weight_zero_point(weights, spec)
    assert zero_point is not None
    assert zero_point.shape == scale.shape
    steps = round_weights(weights, scale, spec, rounding, moment, zero_point=zero_point)
    stored = steps + spread(zero_point.astype(np.int16), weights.shape)
    assert stored.min() >= 0
    assert stored.max() <= 2**bits - 1
    nearest = quantize_weights(weights, scale, spec, zero_point)
    limit = error_of(weights, nearest, scale, moment)
    assert (error_of(weights, steps, scale, moment) <= limit * (1 + 1e-9)).all()


def test_zero_points_gain_where_weights_lie_to_one_side() -> None:
    weights = normal(0, 16, 256) + np.float32(2)
    errors = []
    for spec in (BLOCKS_4, AFFINE_4):
        scale, zero_point = clipped_scale(weights, spec), weight_zero_point(weights, spec)
        rounded = quantize_weights(weights, scale, spec, zero_point) * spread(scale, weights.shape)
        errors.append(np.square(weights - rounded).mean())
    assert errors[1] < 0.5 * errors[0]


def test_gptq_loses_far_less_than_the_nearest_with_zero_points_too() -> None:
    weights, moment = normal(0, 48, 96) + np.float32(0.5), correlated(1, 96)
    scale, zero_point = clipped_scale(weights, AFFINE_4, moment), weight_zero_point(weights, AFFINE_4)
    nearest, found = (
        error_of(
            weights,
            round_weights(weights, scale, AFFINE_4, rounding, moment, zero_point=zero_point),
            scale,
            moment,
        ).sum()
        for rounding in Rounding
    )
    assert found < 0.5 * nearest


@given(SEEDS, BITS)
def test_a_tensors_scale_is_the_best_one_for_all_its_channels(seed: int, bits: int) -> None:
    """One channel holds what the tensor holds: the same scale, and the same weights of it."""
    weights, moment = normal(seed, 4, 16), correlated(seed, 16)
    spec = replace(TENSOR_4, bits=bits)
    for found, row in (
        (weight_scale(weights, spec), weight_scale(weights.reshape(1, -1), replace(CHANNELS_4, bits=bits))),
        (
            clipped_scale(weights, spec, moment),
            clipped_scale(
                weights.reshape(1, -1),
                replace(CHANNELS_4, bits=bits),
                np.diag(np.tile(np.diagonal(moment), 4)),
            ),
        ),
    ):
        np.testing.assert_array_equal(found, row.repeat(4))
    least = np.array([0, 3, 0, 1], np.float32)
    assert (clipped_scale(weights, spec, moment, least) >= 3).all()


def weighted_error(weights: FLOATS, scale: FLOATS, spec: GridSpec, importance: DOUBLES) -> DOUBLES:
    steps = spread(scale.astype(np.float64), weights.shape)
    error = (weights - quantize_weights(weights, scale, spec) * steps) ** 2 * importance
    total: DOUBLES = error.reshape(*scale.shape, -1).sum(-1)
    return total


@given(
    hnp.arrays(np.float32, (3, 64), elements=st.floats(-100, 100, width=32)),
    hnp.arrays(np.float64, 64, elements=st.floats(0, 10)),
    BITS,
    st.booleans(),
)
def test_clipped_scales_have_no_larger_error_than_those_that_reach_the_largest_weight(
    weights: FLOATS, importance: DOUBLES, bits: int, by_group: bool
) -> None:
    spec = GridSpec(bits, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
    if by_group:
        spec = replace(BLOCKS_4, bits=bits)
    found = clipped_scale(weights, spec, np.diag(importance))
    widest = weight_scale(weights, spec)
    assert found.dtype == np.float32
    assert found.shape == widest.shape
    assert (found > 0).all()
    assert (found <= widest).all()
    limit = weighted_error(weights, widest, spec, importance)
    assert (weighted_error(weights, found, spec, importance) <= limit * (1 + 1e-9)).all()


@given(hnp.arrays(np.float32, (2, 64), elements=st.floats(-100, 100, width=32)))
def test_clipped_scales_of_groups_are_numbers_that_engines_have(weights: FLOATS) -> None:
    scale = clipped_scale(weights, BLOCKS_4)
    np.testing.assert_array_equal(group_scale(scale), scale)
    np.testing.assert_array_equal(scale.astype(np.float16).astype(np.float32), scale)


def test_clipping_gains_much_where_one_scale_of_few_bits_serves_many_weights() -> None:
    weights, uniform = normal(0, 16, 768), np.ones(768)
    found, widest = clipped_scale(weights, CHANNELS_4), weight_scale(weights, CHANNELS_4)
    clipped = weighted_error(weights, found, CHANNELS_4, uniform).sum()
    assert clipped < 0.75 * weighted_error(weights, widest, CHANNELS_4, uniform).sum()


def test_a_large_weight_of_an_input_that_hardly_moves_is_clipped() -> None:
    weights, importance = normal(0, 1, 32), np.ones(32)
    weights[0, 7], importance[7] = 5.0, 1e-6
    found = clipped_scale(weights, CHANNELS_4, np.diag(importance))
    assert found[0] < 0.6 * clipped_scale(weights, CHANNELS_4)[0]


@given(hnp.arrays(np.float32, (3, 8), elements=st.floats(-10, 10, width=32)), st.floats(2**-10, 1, width=32))
def test_clipped_scales_of_channels_are_never_below_the_least(weights: FLOATS, least: float) -> None:
    each = np.array([least, 0, least / 2], np.float32)
    assert (clipped_scale(weights, CHANNELS_4, None, least) >= np.float32(least)).all()
    assert (clipped_scale(weights, CHANNELS_4, None, each) >= each).all()


def test_a_channel_of_zeros_has_scale_one() -> None:
    assert clipped_scale(np.zeros((2, 4), np.float32), CHANNELS_8).tolist() == [1, 1]


@given(SEEDS, st.sampled_from([CHANNELS_8, CHANNELS_4, BLOCKS_4]), st.sampled_from(list(Rounding)))
def test_a_corrected_bias_keeps_the_mean_output(seed: int, spec: GridSpec, rounding: Rounding) -> None:
    weights, bias, mean = normal(seed, 6, 64), normal(seed + 1, 6), normal(seed + 2, 64).astype(np.float64)
    scale = clipped_scale(weights, spec)
    integers = round_weights(weights, scale, spec, rounding, correlated(seed, 64))
    corrected = correct_bias(bias, weights, integers, scale, mean)
    rounded = integers * spread(scale.astype(np.float64), weights.shape)
    np.testing.assert_allclose(rounded @ mean + corrected, weights @ mean + bias, atol=1e-5)
    assert np.abs(rounded @ mean + bias - (weights @ mean + bias)).max() > 1e-4  # there was something to do


def test_a_grouped_convolution_is_corrected_with_the_means_of_its_group() -> None:
    weights, mean = normal(0, 4, 3, 1, 1), np.array([1.0, 2, 3, 10, 20, 30])
    scale = weight_scale(weights, CHANNELS_4)
    integers = quantize_weights(weights, scale, CHANNELS_4)
    error = (weights - integers * spread(scale, weights.shape)).reshape(4, 3)
    expected = np.concatenate([error[:2] @ mean[:3], error[2:] @ mean[3:]])
    found = correct_bias(np.zeros(4, np.float32), weights, integers, scale, mean)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("means", [0, 2, 4, 9])
def test_means_of_other_inputs_are_refused(means: int) -> None:
    weights = normal(0, 4, 3)
    with pytest.raises(DataError, match=f"means of {means} inputs"):
        correct_bias(
            np.zeros(4, np.float32),
            weights,
            np.zeros((4, 3), np.int8),
            np.ones(4, np.float32),
            np.zeros(means),
        )


class Tiny(nn.Module):
    """ids [B, T] -> [B, T, 4]: a table, a grouped convolution, linears that share their input."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 32)
        self.mix = nn.Conv2d(32, 32, (3, 1), padding=(1, 0), groups=4)
        self.left, self.right = nn.Linear(32, 20), nn.Linear(32, 20)
        self.out = nn.Linear(20, 4, bias=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.table(ids)  # [B, T, 32]
        x = x + torch.tanh(self.mix(x.transpose(1, 2)[..., None])[..., 0].transpose(1, 2))
        y: torch.Tensor = self.out(torch.relu(self.left(x)) + torch.relu(self.right(x)))
        return y


LINEARS, TABLES = ("left", "right", "out"), ("table",)


def tiny(seed: int = 0) -> tuple[Tiny, NDArray[np.int64], Calibration]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Tiny().eval()
    ids = np.random.default_rng(seed).integers(0, 10, (64, 6))
    return module, ids, calibrate(module, [ids], CalibrationSettings(second_moments=True))


def outputs(module: nn.Module, ids: NDArray[np.int64], component: QuantizedComponent | None = None) -> FLOATS:
    with torch.no_grad(), simulated(module, component or QuantizedComponent({})):
        found: FLOATS = module(torch.from_numpy(ids)).numpy()
    return found


def test_specifications_say_what_suits_each_layer() -> None:
    module = Tiny()
    fixed = {"mix": INT8_STATIC, "table": INT8_TABLE}
    assert component_spec(module, Precision.INT8, TABLES).layers == {
        **fixed,
        **dict.fromkeys(LINEARS, INT8_STATIC),
    }
    assert component_spec(module, Precision.INT8DYN, TABLES).layers == {
        **fixed,
        **dict.fromkeys(LINEARS, INT8_DYNAMIC),
    }
    blocks = {"left": INT4_DYNAMIC, "right": INT4_DYNAMIC, "out": INT8_STATIC}  # 32 does not divide 20
    assert component_spec(module, Precision.INT4, TABLES).layers == {**fixed, **blocks}
    last = {"out": INT8_DYNAMIC}
    assert component_spec(module, Precision.INT8, TABLES, "out").layers == {
        **fixed,
        **dict.fromkeys(LINEARS, INT8_STATIC),
        **last,
    }
    assert component_spec(module, Precision.INT4, TABLES, "out").layers == {**fixed, **blocks, **last}
    first = component_spec(module, Precision.INT4, TABLES, "left").layers
    assert first["left"] == INT8_DYNAMIC  # though 32 divides it
    wide = component_spec(nn.Linear(128, 2), Precision.INT4, grids=WeightGrids(64)).layers[""]
    assert wide == LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, group_size=64))
    with pytest.raises(RecipeError, match="group_size is 16"):
        component_spec(module, Precision.INT4, grids=WeightGrids(16))
    for precision in (Precision.FP32, Precision.FP16, Precision.MIXED):
        with pytest.raises(
            RecipeError, match=f"quantized to {precision.value}; there are int8, int8dyn, int4"
        ):
            component_spec(module, precision)


@pytest.mark.parametrize(
    ("precision", "limit"),
    [(Precision.INT8, 0.03), (Precision.INT8DYN, 0.02), (Precision.INT4, 0.1)],
)
def test_a_quantized_component_keeps_the_answers(precision: Precision, limit: float) -> None:
    module, ids, seen = tiny()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    spec = component_spec(module, precision, TABLES)
    component = quantize_component(module, spec, seen)
    assert component.spec == spec
    for name, layer in component.layers.items():
        child, static = module.get_submodule(name), layer.spec.mode is Mode.STATIC
        assert layer.weights.shape == child.get_parameter("weight").shape
        assert (layer.input is not None, layer.output is not None) == (static, static)
        if name in ("table", "out"):
            assert layer.bias is None
        else:
            assert layer.bias is not None
            assert layer.bias.dtype == (np.int32 if static else np.float32)
    expected = outputs(module, ids)
    error = outputs(module, ids, component) - expected
    assert 1e-4 < np.linalg.norm(error) / np.linalg.norm(expected - expected.mean((0, 1))) < limit
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_all_that_the_settings_offer_helps_at_4_bits() -> None:
    module, ids, seen = tiny()
    spec, expected = component_spec(module, Precision.INT4, TABLES), outputs(module, ids)
    plain, default = (
        np.square(outputs(module, ids, quantize_component(module, spec, seen, settings)) - expected).mean()
        for settings in (PLAIN, QuantizeSettings())
    )
    assert default < 0.6 * plain


def test_settings_switch_off_what_they_name() -> None:
    module, _, seen = tiny()
    spec = component_spec(module, Precision.INT4, TABLES)
    weights = module.left.weight.detach().numpy()
    plain = quantize_component(module, spec, seen, PLAIN).layers["left"]
    np.testing.assert_array_equal(plain.scale, weight_scale(weights, BLOCKS_4))
    np.testing.assert_array_equal(plain.weights, quantize_weights(weights, plain.scale, BLOCKS_4))
    np.testing.assert_array_equal(plain.bias, module.left.bias.detach().numpy())
    clipped = quantize_component(module, spec, seen, replace(PLAIN, clip_weights=True)).layers["left"]
    moment = seen.layers["left"].second_moment
    np.testing.assert_array_equal(clipped.scale, clipped_scale(weights, BLOCKS_4, moment))
    learned = quantize_component(module, spec, seen, replace(PLAIN, rounding=Rounding.GPTQ)).layers["left"]
    expected = round_weights(weights, plain.scale, BLOCKS_4, Rounding.GPTQ, moment)
    np.testing.assert_array_equal(learned.weights, expected)
    assert (learned.weights != plain.weights).any()


def test_a_layers_mean_output_is_kept() -> None:
    module, ids, seen = tiny()
    spec = ComponentSpec({name: LayerSpec(Mode.WEIGHT_ONLY, CHANNELS_4) for name in ("mix", "left")})
    for name in ("mix", "left"):
        found: list[FLOATS] = []
        hook = module.get_submodule(name).register_forward_hook(
            lambda layer, args, output, found=found: found.append(output.numpy())
        )
        one = ComponentSpec({name: spec.layers[name]})  # alone, so that what goes in is as it was
        for component in (None, quantize_component(module, one, seen)):
            outputs(module, ids, component)
        hook.remove()
        axes = (0, 2, 3) if name == "mix" else (0, 1)
        np.testing.assert_allclose(found[0].mean(axes), found[1].mean(axes), atol=1e-5)
        assert np.abs(found[0] - found[1]).max() > 1e-3


def test_layers_that_share_their_input_are_factorised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, seen = tiny()
    factorised: list[int] = []

    def counted(moment: DOUBLES) -> Feedback:
        factorised.append(id(moment))
        return error_feedback(moment)

    monkeypatch.setattr("pocketvl.quantize.component.error_feedback", counted)
    quantize_component(module, component_spec(module, Precision.INT8), seen)
    moments = [seen.layers[name].second_moment for name in ("left", "out")]
    # Once for left and right, in whichever order their threads came; never for mix.
    assert sorted(factorised) == sorted(id(moment) for moment in moments)


def test_tables_need_no_calibration_and_are_rounded_to_the_nearest() -> None:
    module, spec = Tiny(), ComponentSpec({"table": INT8_TABLE})
    rows = module.table.weight.detach().numpy()
    for clips, make_scale in ((False, weight_scale), (True, clipped_scale)):
        (layer,) = quantize_component(
            module, spec, Calibration({}), QuantizeSettings(clip_weights=clips)
        ).layers.values()
        np.testing.assert_array_equal(layer.scale, make_scale(rows, CHANNELS_8))
        np.testing.assert_array_equal(layer.weights, quantize_weights(rows, layer.scale, CHANNELS_8))


def test_a_layer_that_calibration_has_not_seen_is_named() -> None:
    module, _, seen = tiny()
    without = Calibration({name: layer for name, layer in seen.layers.items() if name != "right"})
    for spec in (component_spec(module, Precision.INT8), component_spec(module, Precision.INT8DYN)):
        with pytest.raises(DataError, match="right: calibration has not seen this layer"):
            quantize_component(module, spec, without)
    with pytest.raises(DataError, match="right"):
        quantize_component(module, component_spec(module, Precision.INT8), without, PLAIN)
    assert (
        "right"
        in quantize_component(module, component_spec(module, Precision.INT8DYN), without, PLAIN).layers
    )


def test_what_calibration_saw_of_another_layer_is_refused_by_name() -> None:
    module, _, seen = tiny()
    swapped = Calibration({**seen.layers, "right": seen.layers["out"]})
    with pytest.raises(DataError, match=r"right: 32 inputs have a second moment of shape \[20, 20\]"):
        quantize_component(module, component_spec(module, Precision.INT8), swapped)
    with pytest.raises(DataError, match=r"right: .* means of 20 inputs"):
        quantize_component(
            module, component_spec(module, Precision.INT8), swapped, replace(PLAIN, correct_bias=True)
        )


def test_a_correction_beyond_all_bounds_is_refused_by_name() -> None:
    module, _, seen = tiny()
    far = replace(seen.layers["left"], input=Range(0, 1e-6), input_mean=np.full(32, 1e6))
    with pytest.raises(DataError, match="left: a bias is too large"):
        quantize_component(
            module, component_spec(module, Precision.INT8), Calibration({**seen.layers, "left": far})
        )


def test_weights_of_a_static_layer_are_coarse_enough_for_its_bias() -> None:
    layer = nn.Linear(4, 2)
    nn.init.constant_(layer.bias, 5.0)
    moment = 1e-10 * np.eye(4, dtype=np.float32)
    seen = LayerCalibration(Range(0, 1e-5), Range(0, 6), np.full(4, 5e-6), moment)
    found = quantize_component(layer, component_spec(layer, Precision.INT8), Calibration({"": seen})).layers[
        ""
    ]
    assert found.float_bias() == pytest.approx([5.0, 5.0], rel=1e-6)


def test_specifications_that_no_layer_can_have_are_refused_by_name() -> None:
    module, _, seen = tiny()
    grouped = replace(INT8_STATIC, weights=BLOCKS_4)
    for name, spec, message in (
        ("table", INT8_STATIC, "table: a token table cannot be static"),
        ("left", grouped, "left: a static layer has one scale"),
        ("out", INT4_DYNAMIC, "out: groups of 32 do not divide"),
    ):
        with pytest.raises(RecipeError, match=message):
            quantize_component(module, ComponentSpec({name: spec}), seen)


def test_products_get_the_grids_of_their_ranges() -> None:
    module, _, seen = tiny()
    spec = replace(
        component_spec(module, Precision.INT8), products={"a.scores": ProductSpec(ACTIVATION_8, ACTIVATION_8)}
    )
    with pytest.raises(DataError, match=r"a\.scores"):
        quantize_component(module, spec, seen)
    known = replace(seen, products={"a.scores": (Range(-1, 1), Range(0, 2), Range(-1, 3))})
    product = quantize_component(module, spec, known).products["a.scores"]
    assert (product.left.scale, product.right.scale) == pytest.approx((2 / 255, 2 / 255))
    assert product.right.zero_point == 0


def test_pointwise_convolutions_are_quantized_as_linears_are() -> None:
    module = nn.ModuleDict(
        {
            "wide": nn.Conv2d(32, 32, 3),
            "point": nn.Conv2d(32, 32, 1),
            "apart": nn.Conv2d(32, 32, 1),
            "own": nn.Conv2d(32, 32, 1),
        }
    )
    found = {
        precision: component_spec(module, precision, unquantized=("apart",), dynamic=("own",)).layers
        for precision in (Precision.INT8, Precision.INT8DYN, Precision.INT4)
    }
    static, dynamic = INT8_STATIC, INT8_DYNAMIC
    assert found[Precision.INT8] == {"wide": static, "point": static, "own": dynamic}
    assert found[Precision.INT8DYN] == {"wide": static, "point": dynamic, "own": dynamic}
    assert found[Precision.INT4] == {"wide": static, "point": static, "own": dynamic}  # no engine has groups
