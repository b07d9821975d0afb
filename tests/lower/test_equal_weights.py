"""Layers keep their own names and integers, whatever their weights and biases have in common."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower.distinct_weights import distinct_weights
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.network.integers import ActivationGrid, QuantizedComponent
from pocketvl.network.specification import INT8_DYNAMIC, INT8_STATIC, LayerSpec
from pocketvl.quantize.arithmetic import quantize_bias
from pocketvl.quantize.simulate import simulated
from tests.lower.engines import run
from tests.lower.readers import FORMATS, WRITE, onnx_integers, quantized, tflite_integers

EXPORT = {"onnx": export_onnx, "tflite": export_tflite}
READ = {"onnx": onnx_integers, "tflite": tflite_integers}
LINEARS = ("first", "second", "third", "last")


class Fan(nn.Module):
    """An attention of two heads: three linears that read the same, and one of what comes out."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        for seed, name in enumerate(LINEARS):
            generator = torch.Generator().manual_seed(seed)
            linear = nn.Linear(32, 32, bias=bias)
            with torch.no_grad():
                for parameter in linear.parameters():
                    parameter.copy_(torch.randn(parameter.shape, generator=generator) / 6)
            self.add_module(name, linear)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x)
        first, second, third, last = (self.get_submodule(name) for name in LINEARS)
        query, key, value = (each(x).view(1, 3, 2, 16).transpose(1, 2) for each in (first, second, third))
        attended = torch.softmax(query @ key.transpose(2, 3), dim=-1) @ value  # [1, 2, 3, 16]
        result: torch.Tensor = last(attended.transpose(1, 2).reshape(1, 3, 32))
        return result


class Convolutions(nn.Module):
    """Two equal convolutions of the same picture."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 8, 4, 4) for _ in range(2))
        self.second.load_state_dict({**self.first.state_dict(), "bias": torch.linspace(-1, 1, 8)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.first(x) * torch.tanh(self.second(x))
        return result


def fan(kind: str) -> Fan:
    """A `Fan` in which layers have something in common."""
    module = Fan(bias=kind != "no biases").eval()
    first, second, third, last = (module.get_submodule(name) for name in LINEARS)
    with torch.no_grad():
        if kind == "biases of 0":
            for layer in (first, second, third, last):
                layer.get_parameter("bias").zero_()
        elif kind == "one bias of 0":
            second.get_parameter("bias").zero_()
        elif kind == "equal layers":
            third.load_state_dict(second.state_dict())
        elif kind == "weights of 0":
            for layer in (second, third):
                layer.get_parameter("weight").zero_()
        elif kind == "nothing but 0":
            for layer in (second, third):
                layer.load_state_dict(
                    {key: torch.zeros_like(value) for key, value in layer.state_dict().items()}
                )
        elif kind == "one number":
            first.get_parameter("weight").fill_(0.01)
        elif kind == "rows of 0":
            first.get_parameter("weight")[:9] = 0
    return module


def component_of(module: nn.Module, names: tuple[str, ...], spec: LayerSpec) -> QuantizedComponent:
    layers = {}
    grid = ActivationGrid(0.04, 128)
    for name in names:
        layer = quantized(module, name, spec)
        if spec == INT8_STATIC and layer.bias is not None:
            bias = quantize_bias(layer.bias.astype(np.float32), grid.scale, layer.scale)
            layer = replace(layer, bias=bias)
        layers[name] = replace(layer, input=grid, output=grid) if spec == INT8_STATIC else layer
    return QuantizedComponent(layers)


def check(module: nn.Module, names: tuple[str, ...], shape: tuple[int, ...], kind: str, folder: Path) -> None:
    """Both the float graph and quantized ones compute what torch does, with every layer's own integers."""
    values = np.random.default_rng(0).normal(size=(4, *shape)).astype(np.float32)
    feeds = [{"x": value} for value in values]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    EXPORT[kind](module, {"x": torch.from_numpy(values[0])}, folder / f"f.{kind}")
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    with torch.no_grad():
        expected = np.stack([module(torch.from_numpy(value)).numpy() for value in values])
    found = run(folder / f"f.{kind}", feeds).reshape(expected.shape)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    for spec in (INT8_STATIC, INT8_DYNAMIC) if len(shape) == 3 else (INT8_STATIC,):
        component = component_of(module, names, spec)
        WRITE[kind](folder / f"f.{kind}", component, folder / f"q.{kind}")
        stored = READ[kind](folder / f"q.{kind}", component)
        assert set(stored) == set(names)
        for name, layer in component.layers.items():
            np.testing.assert_array_equal(stored[name].weights, layer.weights)
            np.testing.assert_array_equal(stored[name].scale, layer.scale)
            if layer.bias is not None:
                np.testing.assert_array_equal(stored[name].bias, layer.bias)
        with simulated(module, component), torch.no_grad():
            expected = np.stack([module(torch.from_numpy(value)).numpy() for value in values])
        found = run(folder / f"q.{kind}", feeds).reshape(expected.shape)
        assert np.abs(found - expected).max() < 0.06, spec  # a step of the output's grid is 0.04


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    "common",
    [
        *("biases of 0", "one bias of 0", "no biases", "equal layers", "weights of 0", "nothing but 0"),
        *("one number", "rows of 0"),
    ],
)
def test_linears_are_their_own(common: str, kind: str, tmp_path: Path) -> None:
    check(fan(common), LINEARS, (1, 3, 32), kind, tmp_path)


@pytest.mark.parametrize("kind", FORMATS)
def test_convolutions_are_their_own(kind: str, tmp_path: Path) -> None:
    check(Convolutions().eval(), ("first", "second"), (1, 3, 16, 16), kind, tmp_path)


def test_a_shared_parameter_is_left_alone() -> None:
    module = fan("as drawn")
    third, second = module.get_submodule("third"), module.get_submodule("second")
    third.register_parameter("weight", second.get_parameter("weight"))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with distinct_weights(module) as stand_ins:
        assert stand_ins.left == ()
        assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_that_a_converter_lost_are_named(kind: str, tmp_path: Path) -> None:
    class Unused(Fan):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.get_submodule("first")(x)
            return result

    module = Unused(bias=True).eval()
    module.get_submodule("third").load_state_dict(module.get_submodule("second").state_dict())
    with pytest.raises(LoweringError, match=rf"f\.{kind} does not hold the weights of second"):
        EXPORT[kind](module, {"x": torch.zeros(1, 3, 32)}, tmp_path / f"f.{kind}")
