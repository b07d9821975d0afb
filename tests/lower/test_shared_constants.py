"""Each layer gets the numbers of the component, whatever constants the float graph or a tool shares."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import (
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    INT8_STATIC,
    LayerSpec,
)
from pocketvl.quantize.arithmetic import quantize_bias
from pocketvl.quantize.simulate import simulated
from tests.lower.engines import run, run_onnx
from tests.lower.lowered import FLOATS
from tests.lower.readers import FORMATS, INT8_WIDENED, WRITE, onnx_integers, quantized, tflite_integers


class Pair(nn.Module):
    """Two linears that read the same, and whose equal biases become one constant, or none at all."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        for seed, child in enumerate((self.first, self.second)):
            generator = torch.Generator().manual_seed(seed)
            weight = torch.randn(32, 32, generator=generator) / 6
            child.load_state_dict({"weight": weight, "bias": torch.full((32,), bias)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.first(x) * torch.tanh(self.second(x))
        return product


def static_layer(module: nn.Module, name: str, bias: FLOATS) -> QuantizedLayer:
    layer = quantized(module, name, INT8_STATIC)
    grid = ActivationGrid(0.04, 128)
    return replace(layer, bias=quantize_bias(bias, grid.scale, layer.scale), input=grid, output=grid)


@pytest.mark.parametrize("bias", [0.0, 0.5])
@pytest.mark.parametrize("kind", FORMATS)
def test_each_layer_gets_the_components_bias_whatever_the_float_graph_shares(
    bias: float, kind: str, tmp_path: Path
) -> None:
    module = Pair(bias).eval()
    values = np.random.default_rng(0).normal(size=(4, 1, 3, 32)).astype(np.float32)
    feeds, biases = [{"x": value} for value in values], np.linspace(-2, 2, 32, dtype=np.float32)
    export = export_onnx if kind == "onnx" else export_tflite
    export(module, {"x": torch.from_numpy(values[0])}, tmp_path / f"f.{kind}")
    for spec in (INT8_STATIC, INT8_DYNAMIC, INT4_DYNAMIC, INT8_WIDENED):
        first = (
            static_layer(module, "first", biases)
            if spec is INT8_STATIC
            else replace(quantized(module, "first", spec), bias=biases)
        )
        component = QuantizedComponent({"first": first})  # the second one stays in float, with its own bias
        WRITE[kind](tmp_path / f"f.{kind}", component, tmp_path / f"q.{kind}")
        with simulated(module, component), torch.no_grad():
            expected = np.concatenate([module(torch.from_numpy(value)).numpy() for value in values])
        found = run(tmp_path / f"q.{kind}", feeds).reshape(expected.shape)
        assert np.abs(found - expected).max() < 0.06, spec  # a step of the output's grid is 0.04


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_scales_of_two_layers_are_not_one_buffer(kind: str, tmp_path: Path) -> None:
    """ai-edge-quantizer derives the same scales for both, and the component holds others for one."""
    module = Pair(0.5).eval()
    module.second.load_state_dict({**module.second.state_dict(), "weight": -module.first.weight.detach()})
    values = np.random.default_rng(0).normal(size=(4, 1, 3, 32)).astype(np.float32)
    export = export_onnx if kind == "onnx" else export_tflite
    export(module, {"x": torch.from_numpy(values[0])}, tmp_path / f"f.{kind}")
    first, second = (quantized(module, name, INT4_DYNAMIC) for name in ("first", "second"))
    np.testing.assert_array_equal(first.scale, second.scale)
    component = QuantizedComponent(
        {"first": first, "second": replace(second, scale=second.scale / np.float32(2))}
    )
    WRITE[kind](tmp_path / f"f.{kind}", component, tmp_path / f"q.{kind}")
    read = onnx_integers if kind == "onnx" else tflite_integers
    found = read(tmp_path / f"q.{kind}", component)
    for name, layer in component.layers.items():
        np.testing.assert_array_equal(found[name].scale, layer.scale)
        np.testing.assert_array_equal(found[name].weights, layer.weights)


@pytest.mark.parametrize("spec", [INT8_STATIC, INT8_DYNAMIC, INT4_DYNAMIC, INT8_WIDENED])
def test_a_bias_that_onnx_adds_in_a_node_of_its_own_is_replaced(spec: LayerSpec, tmp_path: Path) -> None:
    """So products of more than two dimensions are exported where they are not flattened."""
    module = Pair(0.5).eval()
    weights = module.first.weight.detach().numpy().T.copy()
    constants = {"first.weight": weights, "first.bias": np.full(32, 0.5, np.float32)}
    shapes = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [2, 3, 32])
        for name in ("x", "embedding")
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "first.weight"], ["product"]),
        onnx.helper.make_node("Add", ["product", "first.bias"], ["embedding"]),
    ]
    stored = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = onnx.helper.make_graph(nodes, "graph", shapes[:1], shapes[1:], stored)
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "f.onnx")
    bias = np.linspace(-2, 2, 32, dtype=np.float32)
    layer = static_layer(module, "first", bias) if spec is INT8_STATIC else quantized(module, "first", spec)
    component = QuantizedComponent({"first": layer if spec is INT8_STATIC else replace(layer, bias=bias)})
    write_quantized_onnx(tmp_path / "f.onnx", component, tmp_path / "q.onnx")
    x = np.random.default_rng(0).normal(size=(2, 3, 32)).astype(np.float32)
    with simulated(module, component), torch.no_grad():
        expected = module.first(torch.from_numpy(x)).numpy()
    assert np.abs(run_onnx(tmp_path / "q.onnx", [{"x": x}]) - expected).max() < 0.06
