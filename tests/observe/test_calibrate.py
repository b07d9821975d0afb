"""Calibration sees every sample, keeps no more for more of them, and says what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.families import open_checkpoint
from pocketvl.observe import calibrate as calibration
from pocketvl.observe.calibrate import Calibration, calibrate
from pocketvl.observe.settings import CalibrationSettings, Observer
from tests.families.tiny import IMAGE_SIZE, make_tiny_clip
from tests.memory import peak_bytes

MIN_MAX = CalibrationSettings(Observer.MIN_MAX)
MOMENTS = CalibrationSettings(Observer.MIN_MAX, second_moments=True)


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


class Attentive(nn.Module):
    """Queries and keys of one tensor, values of another with the same shape, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.again = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.query(x) + self.key(x) + self.value(x.clone())
        z: torch.Tensor = self.again(self.again(x) + y)
        return z


class InPlace(nn.Module):
    """Two linears read one tensor object, which is changed in between."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x + 0
        first: torch.Tensor = self.before(y)
        second: torch.Tensor = self.after(y.mul_(10))
        return first + second


class Fickle(nn.Module):
    """The second layer reads what the first one reads, but not where the sample begins below 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.first(x) + self.second(x if x[0, 0] > 0 else x + 1)
        return y


def feeds(*rows: list[float]) -> list[NDArray[Any]]:
    return [np.array(row, np.float32) for row in rows]


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


# ranges


def test_ranges_span_all_samples_of_a_stream() -> None:
    told: list[tuple[int, int, str]] = []
    found = calibrate(Doubles(), feeds([1, 2], [-3, 0]), MIN_MAX, lambda *news: told.append(news))
    inner = found.layers["inner"]
    assert (inner.input.low, inner.input.high) == (-3, 2)
    assert (inner.output.low, inner.output.high) == (-6, 4)
    assert told == [(1, 2, "calibration"), (2, 2, "calibration")]


@pytest.mark.parametrize("observer", Observer)
def test_the_settings_choose_the_observer_of_inputs_and_outputs(observer: Observer) -> None:
    values = random(50, 40, 2) ** 3
    settings = CalibrationSettings(observer, bits=4, percentile=90, momentum=0.5)
    inner = calibrate(Doubles(), [values], settings).layers["inner"]
    assert inner.output.high == pytest.approx(2 * inner.input.high)
    whole = observer is Observer.MIN_MAX
    assert (inner.input.high == values.max()) == whole


@pytest.mark.parametrize("observer", Observer)
def test_the_size_of_batches_does_not_matter(observer: Observer) -> None:
    module, values = Attentive(), random(60, 5, 4)
    settings = CalibrationSettings(observer, second_moments=True)
    one_by_one, uneven = (
        calibrate(module, np.split(values, cuts), settings) for cuts in (range(1, 60), (7, 30))
    )
    once = ("query", "key", "value")  # the calls of the other come in another order, which an average tells
    for name in once if observer is Observer.MOVING_AVERAGE else one_by_one.layers:
        layer, other = one_by_one.layers[name], uneven.layers[name]
        ends = (layer.input.low, layer.input.high, layer.output.low, layer.output.high)
        # a product of matrices is rounded otherwise in another batch, and a value may fall into the next bin
        np.testing.assert_allclose(
            (other.input.low, other.input.high, other.output.low, other.output.high), ends, rtol=0.02
        )
        np.testing.assert_allclose(layer.input_mean, other.input_mean, atol=1e-6)
        assert layer.second_moment is not None
        assert other.second_moment is not None
        np.testing.assert_allclose(layer.second_moment, other.second_moment, rtol=1e-5, atol=1e-5)


# means and second moments


def test_means_and_second_moments_are_over_samples_and_positions() -> None:
    values = random(40, 30, 2) + 3
    inner = calibrate(Doubles(), np.split(values, 8), MOMENTS).layers["inner"]
    rows = values.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(inner.input_mean, rows.mean(0), rtol=1e-12)
    assert inner.second_moment is not None
    assert inner.second_moment.dtype == np.float32
    assert inner.count == len(rows)
    np.testing.assert_array_equal((inner.low, inner.high), (rows.min(0), rows.max(0)))
    np.testing.assert_allclose(inner.second_moment, rows.T @ rows / len(rows), rtol=1e-6)


def test_second_moments_are_kept_only_where_asked_for() -> None:
    assert calibrate(Doubles(), feeds([1, 2]), MIN_MAX).layers["inner"].second_moment is None


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(3, 5, 2, stride=2),
        nn.Conv2d(3, 5, 3, padding=1, dilation=2),
        nn.Conv2d(3, 5, 3, padding="same"),
        nn.Conv2d(3, 5, (2, 3), padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 6, 3, padding=1, groups=2),
        nn.Conv2d(4, 4, 3, groups=4),
    ],
    ids=["patches", "dilated", "same", "reflected", "two groups", "depthwise"],
)
def test_the_mean_of_a_convolutions_input_explains_the_mean_of_its_output(layer: nn.Conv2d) -> None:
    values = random(6, layer.in_channels, 8, 8) + 1
    seen = calibrate(nn.Sequential(layer), [values], MOMENTS).layers["0"]
    weights = layer.weight.detach().double().reshape(layer.groups, layer.out_channels // layer.groups, -1)
    means = torch.from_numpy(seen.input_mean).reshape(layer.groups, -1)  # [groups, inputs]
    assert layer.bias is not None
    wanted = layer(torch.from_numpy(values)).double().mean((0, 2, 3)) - layer.bias
    found = torch.einsum("goi,gi->go", weights, means).flatten()
    torch.testing.assert_close(found, wanted.detach(), atol=1e-5, rtol=1e-5)
    assert (seen.second_moment is None) == (layer.groups > 1)


def test_the_second_moment_of_a_convolutions_input_explains_the_power_of_its_output() -> None:
    layer, values = nn.Conv2d(3, 5, 3, padding=1, bias=False), random(6, 3, 8, 8)
    moment = calibrate(nn.Sequential(layer), [values], MOMENTS).layers["0"].second_moment
    weights = layer.weight.detach().double().reshape(5, -1).numpy()
    wanted = layer(torch.from_numpy(values)).detach().double().square().mean((0, 2, 3)).numpy()
    assert moment is not None
    np.testing.assert_allclose(np.einsum("oi,ij,oj->o", weights, moment, weights), wanted, rtol=1e-5)


# who reads what


def test_layers_that_read_the_same_tensor_share_what_is_kept_of_it() -> None:
    layers = calibrate(Attentive(), [random(4, 4)], MOMENTS).layers
    query, key, value, again = (layers[name] for name in ("query", "key", "value", "again"))
    assert query.second_moment is key.second_moment
    assert query.input_mean is key.input_mean
    assert value.second_moment is not query.second_moment
    assert again.second_moment is not query.second_moment
    assert value.second_moment is not None
    np.testing.assert_array_equal(value.second_moment, query.second_moment)


def test_a_shared_input_is_observed_once_and_wholly(monkeypatch: pytest.MonkeyPatch) -> None:
    counts: dict[str, int] = {}
    observe = calibration.TensorObserver.observe

    def counting(self: calibration.TensorObserver, values: torch.Tensor, samples: int = 1) -> None:
        counts[self.name] = counts.get(self.name, 0) + 1
        observe(self, values, samples)

    monkeypatch.setattr(calibration.TensorObserver, "observe", counting)
    values = random(10, 3, 4)
    layers = calibrate(Attentive(), list(values), MIN_MAX).layers
    assert (layers["key"].input.low, layers["key"].input.high) == (values.min(), values.max())
    assert counts["the input of query"] == 10
    assert counts["the input of key"] == 1  # in the first forward, which finds out who shares
    assert counts["the input of again"] == 20


def test_every_call_of_a_layer_is_seen() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Doubles().inner

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = self.inner(input=self.inner(x))
            return y

    inner = calibrate(Twice(), feeds([1, 2], [3, 4]), MIN_MAX).layers["inner"]
    assert (inner.input.low, inner.input.high) == (1, 8)
    assert inner.output.high == 16
    np.testing.assert_allclose(inner.input_mean, [(1 + 2 + 3 + 6) / 4, (2 + 4 + 4 + 8) / 4])


def test_a_tensor_that_was_changed_in_place_is_another() -> None:
    layers = calibrate(InPlace(), feeds([1, 2]), MIN_MAX).layers
    assert (layers["before"].input.high, layers["after"].input.high) == (2, 20)
    assert layers["before"].input_mean is not layers["after"].input_mean


@pytest.mark.parametrize("signs", [(1, -1), (-1, 1)])
def test_a_module_whose_course_depends_on_values_is_refused(signs: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="second shares its input with other layers in some samples"):
        calibrate(Fickle(), [np.full((1, 2), sign, np.float32) for sign in signs], MIN_MAX)


def test_modules_of_several_inputs_are_fed_tuples() -> None:
    class Adds(Doubles):
        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            assert y is not None
            z: torch.Tensor = self.inner(x + y)
            return z

    one, ten = np.ones((2, 2), np.float32), np.full((2, 2), 10, np.float32)
    found = calibrate(Adds(), [(one, ten), (one, one[:1])], MIN_MAX)  # an input may be for all samples
    assert (found.layers["inner"].input.low, found.layers["inner"].input.high) == (2, 11)
    assert "2 of 4 calibration samples repeat an earlier one; give it different ones" in found.warnings


# the module


def test_the_module_is_left_as_it_was() -> None:
    module = Attentive()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    calibrate(module, [random(4, 4)])
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert all(not part._forward_hooks and not part._forward_pre_hooks for part in module.modules())


def test_the_module_is_left_as_it_was_after_an_error() -> None:
    module = Doubles()
    with pytest.raises(DataError):
        calibrate(module, feeds([np.nan, 1]))
    assert not module.inner._forward_hooks
    assert not module.inner._forward_pre_hooks


def test_a_feed_is_not_changed_and_need_not_be_writable() -> None:
    feed = random(3, 2)
    feed.setflags(write=False)
    kept = feed.copy()
    calibrate(InPlace(), [feed])
    np.testing.assert_array_equal(feed, kept)


# errors


@pytest.mark.parametrize("nothing", [[], [np.zeros((0, 2), np.float32)]])
def test_no_sample_is_an_error(nothing: list[NDArray[Any]]) -> None:
    with pytest.raises(DataError, match="at least one sample"):
        calibrate(Doubles(), iter(nothing))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("observer", Observer)
def test_what_is_not_finite_is_named(value: float, observer: Observer) -> None:
    with pytest.raises(DataError, match="the input of inner holds NaN or infinity"):
        calibrate(Doubles(), feeds([1, 2], [value, 1]), CalibrationSettings(observer))


def test_a_layer_that_never_ran_is_named() -> None:
    with pytest.raises(DataError, match="never ran the input of spare"):
        calibrate(Doubles(spare=True), feeds([1, 2]))


# warnings


def warnings_of(*batches: NDArray[Any]) -> tuple[str, ...]:
    return calibrate(Doubles(), list(batches), MIN_MAX).warnings


def test_enough_different_samples_give_no_warning() -> None:
    assert warnings_of(random(32, 2)) == ()


def test_few_samples_are_warned_of() -> None:
    assert warnings_of(random(20, 2), random(11, 2, seed=1)) == (
        "calibration saw 31 samples only; give it 32 or more",
    )


def test_samples_that_repeat_are_warned_of_across_batches() -> None:
    values = random(40, 2)
    assert warnings_of(values[:25], values[22:]) == (
        "3 of 43 calibration samples repeat an earlier one; give it different ones",
    )


def test_repeats_are_looked_for_among_so_many_samples_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "MOST_DIGESTS", 40)
    values = random(50, 2)
    assert warnings_of(values, values) == ()
    assert warnings_of(values[:39], values) == (
        "39 of 79 calibration samples repeat an earlier one; give it different ones",
    )


def test_input_channels_that_never_change_are_warned_of() -> None:
    values = random(40, 3, 4)
    values[..., 1:3] = 5
    assert calibrate(Attentive(), [values], MIN_MAX).warnings == (
        "2 of 4 input channels of query, key never change",
        "2 of 4 input channels of value never change",
    )


def test_colours_that_never_change_are_not_warned_of() -> None:
    values = random(40, 3, 4, 4)
    values[:, 1] = 0
    assert calibrate(nn.Sequential(nn.Conv2d(3, 2, 2)), [values], MIN_MAX).warnings == ()


# a whole component


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Calibration, set[str]]:
    folder: Path = make_tiny_clip(tmp_path_factory.mktemp("clip"))
    module = open_checkpoint(folder).component("image_encoder").module
    pictures = np.random.default_rng(0).integers(0, 256, (40, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
    settings = CalibrationSettings(second_moments=True)
    names = {name for name, part in module.named_modules() if isinstance(part, (nn.Linear, nn.Conv2d))}
    return calibrate(module, np.split(pictures, 10), settings), names


def test_every_layer_of_a_clip_component_is_seen(seen: tuple[Calibration, set[str]]) -> None:
    found, names = seen
    assert set(found.layers) == names
    assert found.warnings == ()
    for layer in found.layers.values():
        assert layer.input.low <= 0 < layer.input.high
        assert layer.second_moment is not None
        spread = layer.second_moment - np.outer(layer.input_mean, layer.input_mean)
        assert np.linalg.eigvalsh(spread).min() > -1e-4 * np.abs(layer.second_moment).max()


def test_attentions_projections_share_what_goes_in(seen: tuple[Calibration, set[str]]) -> None:
    layers = seen[0].layers
    for place in (name.removesuffix("q_proj") for name in layers if name.endswith("q_proj")):
        query, key, value, out = (
            layers[f"{place}{kind}"] for kind in ("q_proj", "k_proj", "v_proj", "out_proj")
        )
        assert query.second_moment is key.second_moment is value.second_moment
        assert out.second_moment is not query.second_moment


def test_what_calibration_holds_does_not_grow_with_the_samples() -> None:
    def peak(count: int) -> int:
        module, values = nn.Sequential(nn.Linear(4, 4)), random(16, 8, 4)  # again and again: 16 digests

        def stream() -> Iterator[NDArray[Any]]:
            for place in range(count):
                yield values[place % 16][None]

        return peak_bytes(lambda: calibrate(module, stream(), CalibrationSettings(second_moments=True)))

    peak(4)  # what is imported and cached at the first call is not held by the second
    assert abs(peak(1_024) - peak(64)) < 65_536
