"""Sensitivity finds the layers that quantization hurts, whatever batches the samples come in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import DataError
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import INT8_DYNAMIC, INT8_STATIC, INT8_TABLE, Range
from pocketvl.quantize.arithmetic import (
    activation_grid,
    least_weight_scale,
    quantize_bias,
    quantize_weights,
    weight_scale,
)
from pocketvl.quantize.ranking import LayerSensitivity, layer_groups
from pocketvl.quantize.sensitivity import embedding_loss, measure_sensitivity
from pocketvl.quantize.simulate import simulated

WIDTH, SAMPLES = 12, 128
FLOATS = NDArray[np.float32]


class Block(nn.Module):
    """Adds to its input a sum of two layers that read it; tanh keeps what one does to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.out(torch.tanh(self.left(x)) + torch.tanh(self.right(x)))
        return y


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(3))
        self.projection = nn.Linear(WIDTH, 6)
        self.sizes: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.sizes.append(len(x))
        for block in self.blocks:
            x = block(x)
        y: torch.Tensor = self.projection(x)
        return y


def make_encoder(seed: int = 0) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = Encoder().eval()
        for parameter in module.blocks.parameters():
            nn.init.normal_(parameter, std=WIDTH**-0.5)
        return module


def samples(count: int = SAMPLES) -> FLOATS:
    drawn: FLOATS = np.random.default_rng(3).normal(size=(count, WIDTH)).astype(np.float32)
    return drawn


def quantize(module: nn.Module, feed: FLOATS) -> QuantizedComponent:
    """Static int8 of every linear, on the ranges that one feed shows."""
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    linears = {name: child for name, child in module.named_modules() if isinstance(child, nn.Linear)}
    handles = [
        child.register_forward_hook(lambda _, inputs, out, name=name: seen.update({name: (inputs[0], out)}))
        for name, child in linears.items()
    ]
    with torch.inference_mode():
        module(torch.from_numpy(feed))
    for handle in handles:
        handle.remove()
    return QuantizedComponent({name: static_layer(child, *seen[name]) for name, child in linears.items()})


def static_layer(child: nn.Linear, inputs: torch.Tensor, outputs: torch.Tensor) -> QuantizedLayer:
    weights, bias = child.weight.detach().numpy(), child.bias.detach().numpy()
    before, after = (activation_grid(Range(float(t.min()), float(t.max()))) for t in (inputs, outputs))
    scale = weight_scale(weights, INT8_STATIC.weights, least_weight_scale(bias, before.scale))
    integers = quantize_weights(weights, scale, INT8_STATIC.weights)
    steps = quantize_bias(bias, before.scale, scale)
    return QuantizedLayer(INT8_STATIC, integers, scale, steps, before, after)


def sabotage_(module: Encoder, block: int) -> None:
    """One large weight makes the grids of its channel's other weights and of the layer's output coarse."""
    weights = module.blocks[block].get_submodule("left").get_parameter("weight")
    with torch.no_grad():
        weights[4, weights[4].abs().argmax()] *= 50


def by_layers(found: tuple[LayerSensitivity, ...]) -> dict[tuple[str, ...], LayerSensitivity]:
    return {each.layers: each for each in found}


@pytest.mark.parametrize("block", [0, 2])
def test_a_layer_with_a_coarse_grid_is_the_worst(block: int) -> None:
    module, feed = make_encoder(), samples()
    sabotage_(module, block)
    found = measure_sensitivity(module, quantize(module, feed), [feed])
    assert found[0].layers == (f"blocks.{block}.left", f"blocks.{block}.right")
    assert found[0].loss > 3 * found[1].loss
    assert found[0].squared > 3 * found[1].squared


def test_of_many_groups_the_worst_are_measured_on_all_samples_and_the_others_on_a_few() -> None:
    module, feed = make_encoder(), samples()
    module.blocks.extend(Block() for _ in range(12))
    sabotage_(module, 11)
    component = quantize(module.eval(), feed)
    groups = layer_groups(component)
    assert len(groups) > 30
    module.sizes.clear()
    told: list[tuple[int, int]] = []
    found = measure_sensitivity(
        module, component, [feed], lambda done, total, what: told.append((done, total))
    )
    whole = by_layers(measure_sensitivity(module, component, [feed[:2], feed[2:]]))
    assert module.sizes[: 1 + len(groups)].count(4) == len(groups)
    assert len(found) == len(groups)
    assert found[0].layers == ("blocks.11.left", "blocks.11.right")
    assert found[0].loss == pytest.approx(whole[found[0].layers].loss, rel=1e-6)
    assert told == [(done, len(told)) for done in range(1, len(told) + 1)]
    assert len(told) == len(groups) + 8


def test_every_group_is_measured_once_and_the_worst_comes_first() -> None:
    module, feed = make_encoder(), samples()
    component = quantize(module, feed)
    found = measure_sensitivity(module, component, [feed])
    assert sorted(each.layers for each in found) == sorted(layer_groups(component))
    assert [each.loss for each in found] == sorted((each.loss for each in found), reverse=True)
    assert {each.bits for each in found} == {8}
    assert measure_sensitivity(module, component, [feed]) == found


def test_a_group_alone_costs_what_a_component_of_these_layers_does() -> None:
    module, feed = make_encoder(), samples()
    component = quantize(module, feed)
    found = by_layers(measure_sensitivity(module, component, [feed]))
    with torch.inference_mode():
        expected = module(torch.from_numpy(feed)).numpy().astype(np.float64)
        with simulated(module, QuantizedComponent({"blocks.1.out": component.layers["blocks.1.out"]})):
            got = module(torch.from_numpy(feed)).numpy().astype(np.float64)
    assert found["blocks.1.out",].squared == pytest.approx(np.square(expected - got).mean(), rel=1e-9)
    assert found["blocks.1.out",].squared > 0


def test_the_module_is_left_as_it_was() -> None:
    module, feed = make_encoder(), samples()
    component = quantize(module, feed)
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def stop(done: int, total: int, what: str) -> None:
        if done == 2:
            raise KeyboardInterrupt

    measure_sensitivity(module, component, [feed])
    with pytest.raises(KeyboardInterrupt):
        measure_sensitivity(module, component, [feed], stop)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_samples_are_run_64_at_a_time_and_their_batches_do_not_matter() -> None:
    module, feed = make_encoder(), samples(150)
    component = quantize(module, feed)
    module.sizes.clear()
    singly = measure_sensitivity(module, component, (row[None] for row in feed))
    assert module.sizes == [64, 64, 22] * (len(layer_groups(component)) + 1)
    together = measure_sensitivity(module, component, [feed[:100], feed[100:]])
    for one, other in zip(singly, together, strict=True):
        assert one.layers == other.layers
        assert one.squared == pytest.approx(other.squared, rel=1e-3)


def test_modules_of_several_inputs_are_fed_all_of_them() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(WIDTH, 5), nn.Linear(WIDTH, 5)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            z: torch.Tensor = self.one(x) - self.two(y)
            return z

    module, feed = Pair().eval(), samples()
    seen = torch.from_numpy(feed)
    component = QuantizedComponent({"two": static_layer(module.two, seen, module.two(seen).detach())})
    (found,) = measure_sensitivity(module, component, [(feed, feed[::-1].copy())])
    assert found.layers == ("two",)
    assert found.squared > 0


def test_progress_tells_of_every_group() -> None:
    module, feed = make_encoder(), samples()
    told: list[tuple[int, int, str]] = []
    measure_sensitivity(module, quantize(module, feed), [feed], lambda *news: told.append(news))
    assert told == [(done, 7, "sensitivity") for done in range(1, 8)]


def test_layers_that_read_the_same_tensor_belong_together() -> None:
    module, feed = make_encoder(), samples()
    groups = layer_groups(quantize(module, feed))
    blocks = [((f"blocks.{i}.left", f"blocks.{i}.right"), (f"blocks.{i}.out",)) for i in range(3)]
    assert groups == (*(group for block in blocks for group in block), ("projection",))


def test_equal_grids_alone_do_not_make_a_group() -> None:
    zeros, ones = np.zeros((2, 2), np.int8), np.ones(2, np.float32)
    grid = activation_grid(Range(-1, 1))
    static = QuantizedLayer(INT8_STATIC, zeros, ones, None, grid, grid)
    dynamic, table = QuantizedLayer(INT8_DYNAMIC, zeros, ones), QuantizedLayer(INT8_TABLE, zeros, ones)
    coarse = QuantizedLayer(INT8_STATIC, zeros, ones, None, activation_grid(Range(-1, 2)), grid)
    layers = {"a.q": static, "a.out": coarse, "a.k": static, "b.q": static, "c.q": dynamic, "c.k": dynamic}
    assert layer_groups(QuantizedComponent(layers)) == (
        ("a.q", "a.k"),
        ("a.out",),
        ("b.q",),
        ("c.q",),
        ("c.k",),
    )
    top = QuantizedComponent({"table": table, "one": static, "two": static})
    assert layer_groups(top) == (("table",), ("one", "two"))


@pytest.mark.parametrize(
    ("layers", "name"),
    [
        (("a.b.q",), "a.b.q"),
        (("a.b.q", "a.b.k", "a.b.v"), "a.b.{q,k,v}"),
        (("q", "k"), "{q,k}"),
    ],
)
def test_a_group_has_one_name(layers: tuple[str, ...], name: str) -> None:
    assert LayerSensitivity(layers, 8, 0.1, 0.1).name == name


def test_too_few_samples_and_a_broken_model_are_refused() -> None:
    module, feed = make_encoder(), samples()
    component = quantize(module, feed)
    for few in ([], [feed[:1]]):
        with pytest.raises(DataError, match="at least two samples"):
            measure_sensitivity(module, component, few)
    broken = feed.copy()
    broken[3, 3] = np.nan
    with pytest.raises(DataError, match="the float model itself"):
        measure_sensitivity(module, component, [broken])


def test_the_loss_by_hand() -> None:
    expected = np.array([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
    assert embedding_loss(expected, expected) == embedding_loss(expected, expected.copy())
    assert (embedding_loss(expected, expected).cosine, embedding_loss(expected, expected).squared) == (0, 0)
    shifted = expected + np.array([0, 1])
    turned = expected @ np.array([[0.0, 1], [-1, 0]])
    assert embedding_loss(expected, turned).cosine == pytest.approx(1)
    assert embedding_loss(expected, 3 * expected).cosine == pytest.approx(0)
    assert embedding_loss(expected, shifted).squared == pytest.approx(0.5)
    assert embedding_loss(expected, shifted).cosine > 0.1  # a shift of all is a loss too
    lost = expected.copy()
    lost[:3] = np.nan
    assert embedding_loss(expected, lost).cosine == pytest.approx(2)
    assert embedding_loss(expected, lost).squared == 0  # of the row that is left
