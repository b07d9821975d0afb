"""Quantization-aware training: gradients as the papers have them, and integers that are what training saw."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from pocketvl.errors import RecipeError, TrainingError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl.families.base import example_inputs
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer, QuantizedProduct
from pocketvl.network.specification import (
    ACTIVATION_8,
    BLOCKS_4,
    CHANNELS_8,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    INT8_TABLE,
    Granularity,
    GridSpec,
    LayerSpec,
    Mode,
    ProductSpec,
    Range,
    Scheme,
)
from pocketvl.quantize.arithmetic import (
    activation_grid,
    group_scale,
    least_weight_scale,
    quantize_bias,
    quantize_weights,
    weight_scale,
    weight_zero_point,
)
from pocketvl.quantize.fake import straight_through
from pocketvl.quantize.fold import fold_
from pocketvl.quantize.learned import LearnedActivation, LearnedWeights, learned_fake_quantize
from pocketvl.quantize.learned_component import QatComponent
from pocketvl.quantize.qat import train_qat
from pocketvl.quantize.settings import QatSettings
from pocketvl.quantize.simulate import simulated
from pocketvl.tasks.training import TrainingTask
from pocketvl.tasks.training_tasks import training_task
from pocketvl.train.distil_losses import affinity_loss, answer_response_loss, embedding_losses
from pocketvl.train.loop import Losses, Trainer
from pocketvl.train.samples import PairSamples
from pocketvl.train.settings import LoopSettings, LossWeights, Phase, Precision
from tests.families.tiny import IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip
from tests.families.vilt_folder import make_vilt_folder
from tests.tasks.worlds import question_samples

WIDTHS = range(2, 9)


def backward_(value: torch.Tensor, upstream: torch.Tensor | None = None) -> None:
    torch.autograd.backward(value, upstream)


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def quantized(module: nn.Module, *feeds: torch.Tensor, **specs: LayerSpec) -> QuantizedComponent:
    """Round-to-nearest on the ranges of one batch; layers that `specs` does not name get the "default"."""
    seen: dict[str, list[Range]] = {}

    def watch(name: str) -> Callable[..., None]:
        def look(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
            seen[name] = [Range(float(x.min()), float(x.max())) for x in (inputs[0].float(), output)]

        return look

    found = {n: m for n, m in module.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | nn.Embedding)}
    handles = [m.register_forward_hook(watch(n)) for n, m in found.items()]
    with torch.no_grad():
        module(*feeds)
    for handle in handles:
        handle.remove()
    layers = {}
    for name, ranges in seen.items():
        spec, child = specs.get(name, specs.get("default")), found[name]
        if isinstance(child, nn.Embedding):
            spec = INT8_TABLE
        elif spec is not None and spec.weights.group_size and child.get_parameter("weight")[0].numel() % 32:
            spec = INT8_STATIC
        assert spec is not None
        layers[name] = rounded(child, spec, ranges)
    return QuantizedComponent(layers)


def rounded(child: nn.Module, spec: LayerSpec, ranges: list[Range]) -> QuantizedLayer:
    weights = child.get_parameter("weight").detach().numpy()
    stored = getattr(child, "bias", None)
    bias = None if stored is None else stored.detach().numpy()
    if spec.mode is not Mode.STATIC:
        scale, zero_point = weight_scale(weights, spec.weights), weight_zero_point(weights, spec.weights)
        integers = quantize_weights(weights, scale, spec.weights, zero_point)
        return QuantizedLayer(spec, integers, scale, bias, zero_point=zero_point)
    assert spec.input is not None
    assert spec.output is not None
    grids = [activation_grid(seen, g.bits) for seen, g in zip(ranges, (spec.input, spec.output), strict=True)]
    least = 0.0 if bias is None else least_weight_scale(bias, grids[0].scale)
    scale = weight_scale(weights, spec.weights, least)
    steps = None if bias is None else quantize_bias(bias, grids[0].scale, scale)
    integers = quantize_weights(weights, scale, spec.weights)
    return QuantizedLayer(spec, integers, scale, steps, input=grids[0], output=grids[1])


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 16)).eval()


def static(bits: int, activations: int = 8) -> LayerSpec:
    grid = replace(ACTIVATION_8, bits=activations)
    return LayerSpec(Mode.STATIC, replace(CHANNELS_8, bits=bits), grid, grid)


# --- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", WIDTHS)
def test_gradients_of_weights_are_those_of_lsq(bits: int) -> None:
    """Esser et al., 2019, equations 3 and 5, written out value by value."""
    highest = 2 ** (bits - 1) - 1
    values, scale = drawn(200).requires_grad_(), torch.tensor([0.7 / highest], requires_grad=True)
    upstream = drawn(200, seed=1)
    backward_(learned_fake_quantize(values, scale, None, -highest, highest, 0.25), upstream)
    by_scale, by_value = 0.0, []
    for x, g in zip(values.tolist(), upstream.tolist(), strict=True):
        steps = x / scale.item()
        inside = -highest < steps < highest
        by_value.append(g if inside else 0.0)
        by_scale += g * (round(steps) - steps if inside else highest * np.sign(steps))
    assert values.grad is not None
    assert scale.grad is not None
    assert values.grad.tolist() == pytest.approx(by_value)
    assert scale.grad.item() == pytest.approx(0.25 * by_scale, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("bits", WIDTHS)
def test_gradients_of_activations_are_those_of_lsq_plus_at_the_rounded_offset(bits: int) -> None:
    """Bhalgat et al., 2020: the derivatives by scale and offset, written out value by value."""
    highest = 2**bits - 1
    values = drawn(200).requires_grad_()
    scale, offset = (torch.tensor([v], requires_grad=True) for v in (1.5 / highest, -0.62))
    upstream = drawn(200, seed=1)
    backward_(learned_fake_quantize(values, scale, offset, 0, highest), upstream)
    zero_point = round(0.62 / scale.item())
    by_scale = by_offset = 0.0
    for x, g in zip(values.tolist(), upstream.tolist(), strict=True):
        steps = x / scale.item() + zero_point
        if 0 < steps < highest:
            by_scale += g * (round(steps) - steps)
        else:
            by_scale += g * (highest if steps > 0 else 0)
            by_offset += g
    assert scale.grad is not None
    assert offset.grad is not None
    assert scale.grad.item() == pytest.approx(by_scale, rel=1e-3, abs=1e-3)
    assert offset.grad.item() == pytest.approx(by_offset, rel=1e-4, abs=1e-4)


def test_outside_the_grid_gradients_are_what_finite_differences_say() -> None:
    """There the answer is scale * end + offset, which has derivatives that need no estimator."""
    values, highest, step = torch.tensor([9.0, -9.0], dtype=torch.float64), 15, 1e-5

    def answer(scale: float, zero: int, shift: float) -> torch.Tensor:
        # a grid of a whole zero point, moved afterwards: within a step rounding hides a small move
        steps = (torch.round((values - shift) / scale) + zero).clamp(0, highest) - zero
        return steps * scale + shift

    scale = torch.tensor([0.25], dtype=torch.float64, requires_grad=True)
    offset = torch.tensor([-1.0], dtype=torch.float64, requires_grad=True)
    backward_(learned_fake_quantize(values, scale, offset, 0, highest)[0])
    by_offset = (answer(0.25, 4, step) - answer(0.25, 4, -step))[0] / (2 * step)
    assert offset.grad == pytest.approx(float(by_offset))
    # by the scale with the offset held, not the zero point: s * 15 + z
    up, down = (answer(0.25 + move, 4, 4 * move)[0] for move in (step, -step))
    assert scale.grad == pytest.approx(float((up - down) / (2 * step)))


@given(st.floats(-3, 3), st.floats(-3, 3), st.integers(2, 8), st.floats(1e-3, 10))
def test_what_is_learned_has_a_whole_zero_point_within_its_grid(
    change: float, shift: float, bits: int, scale: float
) -> None:
    learned = LearnedActivation(ActivationGrid(float(np.float32(scale)), 1, bits), rate=2.0)
    with torch.no_grad():
        learned.change.fill_(change)
        learned.shift.fill_(shift)
    grid = learned.grid()
    assert grid.scale > 0
    assert isinstance(grid.zero_point, int)
    assert 0 <= grid.zero_point <= grid.highest
    values = drawn(50) * 5
    steps = (torch.round(values / grid.scale) + grid.zero_point).clamp(0, grid.highest)
    torch.testing.assert_close(learned(values), (steps - grid.zero_point) * grid.scale, rtol=0, atol=0)


@given(st.lists(st.floats(-30, 30), min_size=4, max_size=4), st.integers(2, 8))
def test_scales_of_groups_are_numbers_that_fp16_and_bf16_have(changes: list[float], bits: int) -> None:
    spec = LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=bits))
    weights = drawn(2, 64)
    scale = weight_scale(weights.numpy(), spec.weights)
    learned = LearnedWeights(
        QuantizedLayer(spec, quantize_weights(weights.numpy(), scale, spec.weights), scale), rate=1.0
    )
    np.testing.assert_array_equal(learned.scale().detach().numpy(), scale)
    with torch.no_grad():
        learned.change.copy_(torch.tensor(changes))
        found = learned.scale()
    assert found.shape == (2, 2)
    assert bool((found > 0).all())
    torch.testing.assert_close(found, found.half().float(), rtol=0, atol=0)
    torch.testing.assert_close(found, found.bfloat16().float(), rtol=0, atol=0)
    free = scale.ravel() * np.exp(np.array(changes, np.float32))
    np.testing.assert_allclose(found.numpy().ravel(), group_scale(free), rtol=2**-7)


@given(st.lists(st.floats(-200, 200), min_size=3, max_size=3))
def test_scales_of_channels_stay_above_zero(changes: list[float]) -> None:
    weights = drawn(3, 8).numpy()
    scale = weight_scale(weights, CHANNELS_8)
    learned = LearnedWeights(
        QuantizedLayer(INT8_DYNAMIC, quantize_weights(weights, scale, CHANNELS_8), scale), rate=1.0
    )
    with torch.no_grad():
        learned.change.copy_(torch.tensor(changes))
    assert bool((learned.scale() > 0).all())


def test_a_straight_through_value_is_exact_and_has_the_gradient_of_what_it_stands_for() -> None:
    values, other = drawn(10).requires_grad_(), drawn(10, seed=1)
    found = straight_through(values, other)
    assert torch.equal(found, other)
    backward_(found.sum())
    assert values.grad is not None
    assert torch.equal(values.grad, torch.ones(10))


# --- a component -------------------------------------------------------------------------------------

AFFINE_4 = LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, scheme=Scheme.AFFINE))
SPECS = [
    static(8),
    static(4),
    static(3, 6),
    INT8_DYNAMIC,
    INT4_DYNAMIC,
    LayerSpec(Mode.WEIGHT_ONLY, BLOCKS_4),
    AFFINE_4,
    LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=2, scheme=Scheme.AFFINE)),
    replace(static(8), weights=replace(CHANNELS_8, granularity=Granularity.PER_TENSOR)),
]


@pytest.mark.parametrize("spec", SPECS)
def test_training_starts_at_the_calibrated_model(spec: LayerSpec) -> None:
    module, x = two_layers(), drawn(64, 32)
    component = quantized(module, x, default=spec)
    with simulated(module, component), torch.no_grad():
        expected = module(x)
    assert torch.equal(QatComponent(module, component)(x), expected)


def test_weights_start_as_the_modules_own_where_they_were_rounded_to_the_nearest() -> None:
    module, x = two_layers(), drawn(64, 32)
    student = QatComponent(module, quantized(module, x, default=static(4)))
    step = student.weights[0].scale().detach()[:, None]  # type: ignore[operator]
    moved = (student.finish().state["0.weight"] - module.get_parameter("0.weight")).abs() / step
    assert float(moved.detach().max()) <= 0.0011  # those that lay all but halfway between two steps


def test_weights_rounded_to_other_steps_start_there() -> None:
    """As GPTQ rounds; the first forward pass must be that of its integers, and of the corrected bias."""
    module, x = two_layers(), drawn(64, 32)
    component = quantized(module, x, default=INT4_DYNAMIC)
    shift = np.random.default_rng(0).integers(-1, 2, component.layers["0"].weights.shape)
    moved = (component.layers["0"].weights + shift).clip(-7, 7).astype(np.int8)
    bias = component.layers["0"].bias
    assert bias is not None
    layers = {
        **component.layers,
        "0": replace(component.layers["0"], weights=moved, bias=bias + np.float32(0.1)),
    }
    component = QuantizedComponent(layers)
    student = QatComponent(module, component)
    state, started = student.finish()
    np.testing.assert_array_equal(started.layers["0"].weights, moved)
    middle = np.abs(moved) < 7  # weights beyond the ends stay where they are
    within = state["0.weight"].numpy().reshape(64, -1) / component.layers["0"].scale - moved
    assert 0.2 < np.abs(within[middle]).max() <= 0.2501  # not at a border, to be undone at the first step
    with simulated(module, component), torch.no_grad():
        assert torch.equal(student(x), module(x))


def disturb_(student: QatComponent) -> None:
    """Moves every parameter, as training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in student.parameters():
            if parameter.requires_grad:
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


@pytest.mark.parametrize("spec", SPECS)
def test_what_ships_is_what_the_forward_pass_used(spec: LayerSpec) -> None:
    module, x = two_layers(), drawn(64, 32)
    student = QatComponent(module, quantized(module, x, default=spec), scale_rate=3.0).eval()
    disturb_(student)
    with torch.no_grad():
        expected = student(x)
    state, component = student.finish()
    module.load_state_dict(state)
    with simulated(module, component), torch.no_grad():
        torch.testing.assert_close(module(x), expected, rtol=0, atol=1e-5)
    for name, layer in component.layers.items():
        steps = state[f"{name}.weight"].reshape(*layer.scale.reshape(len(layer.scale), -1).shape, -1)
        steps = steps / torch.from_numpy(layer.scale).reshape(*steps.shape[:2], 1)
        ends, zeros = layer.spec.weights, torch.zeros(1)
        if layer.zero_point is not None:
            zeros = torch.from_numpy(layer.zero_point.astype(np.float32)).reshape(*steps.shape[:2], 1)
        assert (layer.zero_point is None) == (ends.scheme is Scheme.SYMMETRIC)
        integers = steps.round().clamp(ends.lowest - zeros, ends.highest - zeros).reshape(layer.weights.shape)
        np.testing.assert_array_equal(layer.weights, integers.numpy())
        assert layer.scale.dtype == np.float32
        assert layer.bias is not None
        assert (layer.bias.dtype == np.int32) == (spec.mode is Mode.STATIC)


@pytest.mark.parametrize("spec", [static(4), AFFINE_4], ids=["static", "affine"])
def test_a_finished_component_can_be_saved_and_read(spec: LayerSpec, tmp_path: Path) -> None:
    module, x = two_layers(), drawn(64, 32)
    student = QatComponent(module, quantized(module, x, default=spec))
    disturb_(student)
    component = student.finish().component
    component.save(tmp_path)
    again = QuantizedComponent.load(tmp_path)
    assert again.layers["2"].output == component.layers["2"].output
    np.testing.assert_array_equal(again.layers["2"].scale, component.layers["2"].scale)
    before, after = (each.layers["2"].zero_point for each in (component, again))
    assert (before is None) == (after is None) == (spec.mode is Mode.STATIC)
    if before is not None and after is not None:
        np.testing.assert_array_equal(after, before)


def test_zero_points_of_weights_are_learned() -> None:
    """Weights below 0 alone, on grids that begin with as much above it: their zero points rise."""
    module, x = two_layers(), drawn(64, 32)
    with torch.no_grad():
        module.get_parameter("0.weight").abs_().neg_()
    component = quantized(module, x, default=AFFINE_4)
    layer = component.layers["0"]
    assert layer.zero_point is not None
    assert (layer.zero_point == 15).all()
    low = replace(layer, zero_point=layer.zero_point - np.uint8(6), weights=layer.weights.clip(-9, 6))
    student = QatComponent(module, QuantizedComponent({**component.layers, "0": low}), scale_rate=10.0)
    with torch.no_grad():
        expected = module(x)
    optimizer = torch.optim.Adam(student.weights.parameters(), 1e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = (student(x) - expected).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    found = student.finish().component.layers["0"].zero_point
    assert found is not None
    assert found.dtype == np.uint8
    assert found.mean() > 11
    assert losses[-1] < 0.5 * losses[0]


def test_a_static_layers_scales_stay_coarse_enough_for_its_bias() -> None:
    module, x = two_layers(), drawn(64, 32)
    student = QatComponent(module, quantized(module, x, default=static(8)))
    with torch.no_grad():
        student.weights[0].change.fill_(-80.0)  # type: ignore[operator]
        student.module.get_parameter("0.bias").fill_(1000.0)
    layer = student.finish().component.layers["0"]
    assert layer.bias is not None
    assert np.abs(layer.bias).max() <= 2**30 * 1.01


def test_a_copy_learns_by_itself_and_a_state_comes_back() -> None:
    module, x = two_layers(), drawn(64, 32)
    student = QatComponent(module, quantized(module, x, default=static(4))).eval()
    before = student(x).detach()
    copy = deepcopy(student)
    disturb_(copy)
    assert torch.equal(student(x), before)
    assert not torch.equal(copy(x), before)
    student.load_state_dict(copy.state_dict())
    assert torch.equal(student(x), copy(x))


def test_the_module_and_its_modes_are_left_alone() -> None:
    module, x = nn.Sequential(nn.Linear(32, 64), nn.Dropout(0.5), nn.Linear(64, 16)).eval(), drawn(8, 32)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    student = QatComponent(module, quantized(module, x, default=static(4)))
    student.train()
    assert torch.equal(student(x), student(x))  # no dropout: what ships has none
    disturb_(student)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not module.get_submodule("0")._forward_hooks
    assert not student.module.get_submodule("0")._forward_hooks
    assert student.finish().state.keys() == before.keys()


def test_weight_decay_passes_over_scales_and_offsets() -> None:
    module = two_layers()
    student = QatComponent(module, quantized(module, drawn(64, 32), default=INT4_DYNAMIC))
    grids = [p for name, p in student.named_parameters() if not name.startswith("module.")]
    assert grids
    assert all(parameter.ndim == 1 for parameter in grids)


def test_layers_of_small_weights_are_kept_in_a_larger_unit_and_come_out_in_their_own() -> None:
    """An optimizer's steps are of one size: such as a patch embedding's of raw pixels would be lost."""
    module, x = two_layers().append(nn.Linear(16, 16)), drawn(64, 32)
    with torch.no_grad():
        module.get_parameter("0.weight").mul_(1e-3)
        expected = module.get_parameter("0.weight").clone()
    student = QatComponent(module, quantized(module, 1000 * x, default=static(8)))
    kept = [student.module.get_parameter(f"{layer}.weight").detach().square().mean() for layer in (0, 2)]
    assert 0.2 < float(kept[0] / kept[1]) < 5
    torch.testing.assert_close(student.finish().state["0.weight"], expected, rtol=0, atol=1e-7)


def test_folded_layer_norms_stay_folded() -> None:
    module = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 8), nn.LayerNorm(8)).eval()
    with torch.no_grad():
        module.get_parameter("2.weight").mul_(1.5)
    student = QatComponent(module, quantized(module, drawn(16, 32), default=static(8)))
    learns = {name: p.requires_grad for name, p in student.module.named_parameters()}
    assert learns == {
        "0.weight": False,
        "0.bias": False,
        "1.weight": True,
        "1.bias": True,
        "2.weight": True,
        "2.bias": True,
    }


def test_linears_that_read_one_tensor_keep_one_grid() -> None:
    class Three(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.q(x) * self.k(x) + self.v(x)
            return found

    module = Three().eval()
    student = QatComponent(module, quantized(module, drawn(16, 8), default=static(8)))
    disturb_(student)
    layers = student.finish().component.layers
    assert layers["q"].input == layers["k"].input == layers["v"].input
    assert layers["q"].output != layers["v"].output


def test_pixels_stay_as_they_are() -> None:
    pixels = torch.arange(256.0).reshape(8, 32)
    module = two_layers()
    student = QatComponent(module, quantized(module, pixels, default=static(8)))
    disturb_(student)
    layers = student.finish().component.layers
    assert layers["0"].input == ActivationGrid(1.0, 0)
    assert layers["2"].input != quantized(module, pixels, default=static(8)).layers["2"].input


def test_static_grids_of_groups_and_blocks_of_products_are_refused() -> None:
    module = two_layers()
    component = quantized(module, drawn(4, 32), default=static(8))
    layer = replace(component.layers["0"], spec=replace(component.layers["0"].spec, weights=BLOCKS_4))
    with pytest.raises(RecipeError, match="0 is static"):
        QatComponent(module, QuantizedComponent({"0": layer}))
    product = QuantizedProduct(
        ProductSpec(ACTIVATION_8, ACTIVATION_8), ActivationGrid(0.1, 0), ActivationGrid(0.1, 0)
    )
    with pytest.raises(RecipeError, match="block of a product"):
        QatComponent(module, QuantizedComponent(component.layers, {"attn.scores.text_image": product}))


# --- training ------------------------------------------------------------------------------------


def test_training_beats_rounding_to_the_nearest(tmp_path: Path) -> None:
    """4-bit weights and activations, on new samples: nearly half of the error is gone."""
    module, unseen = two_layers(), drawn(256, 32, seed=99)
    component = quantized(module, drawn(256, 32), default=static(4, 4))
    student = QatComponent(module, component, scale_rate=10.0)

    teacher = module

    def objective(module: nn.Module, batch: torch.Tensor, step: int) -> Losses:
        return {"error": F.mse_loss(module(batch), teacher(batch).detach())}

    settings = LoopSettings(120, 2e-3, weight_decay=0.0, warmup_steps=5, clip_norm=10.0)
    before = [parameter.clone() for parameter in student.activations.parameters()]
    report = Trainer(
        student, lambda step: drawn(64, 32, seed=1000 + step), objective, settings, tmp_path
    ).run()
    losses = [row["error"] for row in report.losses]
    assert np.mean(losses[-10:]) < 0.55 * np.mean(losses[:10])
    moved = [bool((a != b).all()) for a, b in zip(before, student.activations.parameters(), strict=True)]
    assert all(moved)
    state, trained = student.finish()
    errors = []
    with torch.no_grad():
        expected = module(unseen)
        for weights, integers in ((module.state_dict(), component), (state, trained)):
            copy = deepcopy(module)
            copy.load_state_dict(weights)
            with simulated(copy, integers):
                errors.append(float(F.mse_loss(copy(unseen), expected)))
    assert errors[1] < 0.6 * errors[0]


Modules = dict[str, nn.Module]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip(folder: Path) -> Modules:
    """Image encoder and text encoder, folded."""
    components = open_checkpoint(folder).components
    for component in components.values():
        fold_(component.module.requires_grad_(False), example_inputs(component))
    return {name: component.module for name, component in components.items()}


@pytest.fixture(scope="module")
def task(folder: Path) -> TrainingTask:
    return training_task(read_contract(folder))


@pytest.fixture(scope="module")
def data() -> PairSamples:
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
    images = coarse.repeat(IMAGE_SIZE // 4, axis=1).repeat(IMAGE_SIZE // 4, axis=2)
    ids = random.integers(0, 380, (60, TEXT_LENGTH), dtype=np.int32)
    ids[:, 0], ids[:, -1] = 380, 381
    return PairSamples(images, ids, [(row, 24 + row) if row % 2 else (row,) for row in range(24)])


def components_of(clip: Modules, data: PairSamples, spec: LayerSpec) -> dict[str, QuantizedComponent]:
    images, ids = torch.from_numpy(data.images), torch.from_numpy(data.ids)
    return {
        "image_encoder": quantized(clip["image_encoder"], images, default=spec, **{PATCHES: static(8)}),
        "text_encoder": quantized(clip["text_encoder"], ids, default=spec),
    }


@pytest.mark.parametrize("spec", [static(8), INT4_DYNAMIC])
def test_components_of_a_clip_start_as_calibrated_and_ship_what_they_computed(
    clip: Modules, data: PairSamples, spec: LayerSpec
) -> None:
    feeds = (torch.from_numpy(data.images), torch.from_numpy(data.ids))
    components = components_of(clip, data, spec).values()
    for module, component, feed in zip(clip.values(), components, feeds, strict=True):
        student = QatComponent(module, component).eval()
        with torch.no_grad(), simulated(module, component):
            torch.testing.assert_close(student(feed), module(feed), rtol=0, atol=1e-6)
        disturb_(student)
        state, trained = student.finish()
        copy = deepcopy(module)
        copy.load_state_dict(state)
        with torch.no_grad(), simulated(copy, trained):
            torch.testing.assert_close(student(feed), copy(feed), rtol=0, atol=1e-5)


def test_grids_of_products_are_learned_too(clip: Modules, data: PairSamples) -> None:
    component, feed = components_of(clip, data, static(8))["text_encoder"], torch.from_numpy(data.ids)
    names = [f"text_model.encoder.layers.0.self_attn.{kind}" for kind in ("scores", "values")]
    grids = [activation_grid(Range(-3, 4)), activation_grid(Range(0, 1))]
    spec = ProductSpec(ACTIVATION_8, ACTIVATION_8)
    component = QuantizedComponent(component.layers, {name: QuantizedProduct(spec, *grids) for name in names})
    student = QatComponent(clip["text_encoder"], component).eval()
    backward_(embedding_losses(student(feed), drawn(60, 24))["cosine"])
    changes = [p for name, p in student.activations.named_parameters() if name.endswith("change")]
    assert all(change.grad is not None and bool(change.grad.any()) for change in changes)
    disturb_(student)
    state, trained = student.finish()
    assert trained.products[names[0]].left != grids[0]
    copy = deepcopy(clip["text_encoder"])
    copy.load_state_dict(state)
    with torch.no_grad(), simulated(copy, trained):
        torch.testing.assert_close(student(feed), copy(feed), rtol=0, atol=1e-5)


PATCHES = "vision_model.embeddings.patch_embedding"
IMAGE, TEXT = ("image_encoder",), ("text_encoder",)
TOGETHER = LossWeights(embedding=0.1)
SETTINGS = QatSettings(
    (Phase(8, IMAGE), Phase(7, TEXT), Phase(6, losses=TOGETHER)),
    batch_size=8,
    learning_rate=1e-3,
    save_every=3,
)


class StopError(Exception):
    pass


def test_an_interrupted_training_ends_as_an_undisturbed_one(
    clip: Modules, task: TrainingTask, data: PairSamples, tmp_path: Path
) -> None:
    components = components_of(clip, data, static(4))
    told: list[str] = []
    expected = train_qat(
        task, clip, components, data, SETTINGS, tmp_path / "a", lambda d, t, news: told.append(news)
    )
    assert len(told) == 21
    assert told[0].startswith("1-image_encoder: cosine")
    assert told[-1].startswith("3-image_encoder+text_encoder: response")

    def stop(phase: str, step: int) -> None:
        def watch(done: int, total: int, news: str) -> None:
            if news.startswith(phase) and done == step:
                raise StopError

        with pytest.raises(StopError):
            train_qat(task, clip, components, data, SETTINGS, tmp_path / "b", watch)

    stop("1-", 5)
    stop("2-", 4)
    stop("3-", 5)
    told.clear()
    found = train_qat(
        task, clip, components, data, SETTINGS, tmp_path / "b", lambda d, t, news: told.append(news)
    )
    assert [news.split("-")[0] for news in told] == ["3"] * 3  # finished phases are not run again
    for name, one in expected.items():
        assert all(torch.equal(value, found[name].state[key]) for key, value in one.state.items())
        for key, layer in one.component.layers.items():
            assert layer.input == found[name].component.layers[key].input
            np.testing.assert_array_equal(layer.weights, found[name].component.layers[key].weights)
    with pytest.raises(TrainingError, match="holds a training of another"):
        train_qat(task, clip, components, data, replace(SETTINGS, seed=1), tmp_path / "b")


def test_distillation_brings_a_clip_nearer_to_its_float_self(
    clip: Modules, task: TrainingTask, data: PairSamples, tmp_path: Path
) -> None:
    components = components_of(clip, data, static(3))
    settings = replace(
        SETTINGS,
        phases=(Phase(40, IMAGE), Phase(40, TEXT), Phase(20, losses=TOGETHER)),
        learning_rate=3e-4,
        scale_rate=3.0,
        save_every=100,
    )
    results = train_qat(task, clip, components, data, settings, tmp_path)
    feeds = dict(zip(clip, (torch.from_numpy(data.images), torch.from_numpy(data.ids)), strict=True))
    for name, module in clip.items():
        copy, losses = deepcopy(module), []
        with torch.no_grad():
            for state, integers in ((module.state_dict(), components[name]), results[name]):
                copy.load_state_dict(state)
                with simulated(copy, integers):
                    losses.append(float(embedding_losses(copy(feeds[name]), module(feeds[name]))["centred"]))
        assert losses[1] < 0.6 * losses[0]


def test_components_that_no_phase_trains_stay_as_they_are(
    clip: Modules, task: TrainingTask, data: PairSamples, tmp_path: Path
) -> None:
    components = components_of(clip, data, static(8))
    settings = replace(SETTINGS, phases=(Phase(2, TEXT),))
    image, text = train_qat(task, clip, components, data, settings, tmp_path).values()
    assert [each.name for each in tmp_path.iterdir() if each.is_dir()] == ["1-text_encoder"]
    before = components["image_encoder"].layers["visual_projection"].scale
    np.testing.assert_array_equal(image.component.layers["visual_projection"].scale, before)
    before = components["text_encoder"].layers["text_projection"].scale
    assert np.any(text.component.layers["text_projection"].scale != before)


@pytest.mark.parametrize("spec", [static(4), INT4_DYNAMIC], ids=["static", "int4"])
def test_distillation_brings_a_vilt_nearer_to_its_float_self(spec: LayerSpec, tmp_path: Path) -> None:
    opened = open_checkpoint(make_vilt_folder(tmp_path / "vilt"))
    samples, module = question_samples(), opened.component("fusion").module
    inputs = (torch.from_numpy(samples.images[samples.image_rows]), torch.from_numpy(samples.ids))
    patches = "vilt.embeddings.patch_embeddings.projection"
    component = quantized(module, *inputs, default=spec, **{patches: static(8)})
    settings = QatSettings(
        (Phase(30),), batch_size=12, learning_rate=3e-4, scale_rate=3.0, losses=LossWeights(answer=0.01)
    )
    (result,) = train_qat(
        training_task(opened.contract),
        {"fusion": module},
        {"fusion": component},
        samples,
        settings,
        tmp_path / "work",
    ).values()
    copy, errors = deepcopy(module), []
    with torch.no_grad():
        for state, integers in ((module.state_dict(), component), result):
            copy.load_state_dict(state)
            with simulated(copy, integers):
                errors.append(float(answer_response_loss(copy(*inputs), module(*inputs))))
    assert errors[1] < 0.8 * errors[0]


# --- losses --------------------------------------------------------------------------------------


def test_losses_are_zero_where_student_and_teacher_agree_and_positive_elsewhere() -> None:
    images, texts, other = (F.normalize(drawn(n, 12, seed=n), dim=-1) for n in (6, 12, 7))
    same = embedding_losses(images, images)
    assert float(same["cosine"]) == pytest.approx(0, abs=1e-6)
    assert float(same["centred"]) == 0
    assert float(affinity_loss((images, texts), (images, texts), 20.0)) == pytest.approx(0, abs=1e-6)
    assert float(affinity_loss((other[:6], texts), (images, texts), 20.0)) > 0.1


def test_affinity_is_the_divergence_of_softmaxes_both_ways() -> None:
    student, teacher = (
        (F.normalize(drawn(2, 4, seed=s), dim=-1), F.normalize(drawn(3, 4, seed=s + 1), dim=-1))
        for s in (0, 5)
    )

    def divergence(wanted: torch.Tensor, found: torch.Tensor) -> float:
        p, q = (np.exp(x.double().numpy()) for x in (wanted, found))
        p, q = p / p.sum(1, keepdims=True), q / q.sum(1, keepdims=True)
        return float((p * np.log(p / q)).sum(1).mean())

    found, wanted = (5 / 2 * images @ texts.T for images, texts in (student, teacher))
    expected = 4 * (divergence(wanted, found) + divergence(wanted.T, found.T)) / 2
    assert float(affinity_loss(student, teacher, 5.0, temperature=2.0)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [
        {"batch_size": 1},
        {"phases": ()},
        {"learning_rate": 0.0},
        {"temperature": -1.0},
        {"losses": LossWeights(hidden=1)},
        {"precision": Precision.BFLOAT16},
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RecipeError, match=next(iter(wrong))):
        replace(SETTINGS, **wrong)  # type: ignore[arg-type]


def test_grid_specs_reach_two_bits() -> None:
    """The narrowest weights are -1, 0 and 1."""
    module, x = two_layers(), drawn(64, 32)
    narrow: GridSpec = static(2).weights
    assert (narrow.lowest, narrow.highest) == (-1, 1)
    student = QatComponent(module, quantized(module, x, default=static(2)))
    disturb_(student)
    assert set(np.unique(student.finish().component.layers["0"].weights)) == {-1, 0, 1}
