"""Static int8 graphs hold integers where they should, run in integer kernels, and keep torch's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import numpy_helper

from pocketvl.errors import DataError, LoweringError
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.graph import op_counts_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.graph import op_name, read_tflite
from pocketvl.lower.tflite.quantized import weights_of
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import INT8_STATIC, INT8_TABLE
from pocketvl.observe.calibrate import Calibration, calibrate
from pocketvl.observe.structure import token_tables
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.fake import fake_quantize
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.manifest import Precision
from tests.lower.engines import centred_cosines, run, run_onnx
from tests.lower.lowered import COMPONENTS, lowered, samples

INT8 = ("int8.onnx", "int8.tflite")


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("suffix", INT8)
def test_int8_keeps_torchs_answers(component: str, suffix: str) -> None:
    model, feeds = lowered(), samples(component, 64, 5)
    expected = np.concatenate([model.torch_embedding(component, feed[component]) for feed in feeds])
    found = run(model.path(component, suffix), feeds)
    assert np.median(centred_cosines(expected, found)) > 0.99
    assert np.abs(found - expected).max() > 1e-5  # it is not the float graph


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_files_shrink_by_what_the_weights_do(component: str, kind: str) -> None:
    model = lowered()
    module = model.module(component)
    weights = sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.ndim > 1 and "position" not in name
    )
    full, small = (model.path(component, f"{name}.{kind}").stat().st_size for name in ("fp32", "int8"))
    assert full - small > 3 * weights * 0.6  # a tiny model: scales and node names weigh something too


@pytest.mark.parametrize("component", COMPONENTS)
def test_onnxruntime_multiplies_integers(component: str, tmp_path: Path) -> None:
    run_onnx(
        lowered().path(component, "int8.onnx"),
        samples(component, 1, 0),
        optimized=tmp_path / "optimized.onnx",
    )
    counts = op_counts_onnx(tmp_path / "optimized.onnx")
    assert counts["com.microsoft::QGemm"] == 13
    assert counts.get("com.microsoft::QLinearConv", counts.get("QLinearConv", 0)) == (component == "pixels")
    assert "Gemm" not in counts
    assert "Conv" not in counts
    layers = 13 + (component == "pixels")
    assert counts["DequantizeLinear"] == layers  # what comes out of them, and nothing else


@pytest.mark.parametrize("component", COMPONENTS)
def test_tflite_multiplies_integers_in_linears_and_convolutions_only(component: str) -> None:
    from ai_edge_litert.schema_py_generated import TensorType

    model = read_tflite(lowered().path(component, "int8.tflite"))
    (graph,) = model.subgraphs
    seen = set()
    for op in graph.operators:
        kind = op_name(model, op)
        if kind in ("FULLY_CONNECTED", "CONV_2D"):
            types = [graph.tensors[i].type for i in (*op.inputs[:2], *op.outputs)]
            assert types == [TensorType.INT8] * 3
            scales = graph.tensors[op.inputs[1]].quantization.scale
            assert len(scales) == graph.tensors[op.inputs[1]].shape[0]
        elif kind in ("BATCH_MATMUL", "SOFTMAX", "ADD", "MUL", "MEAN", "RSQRT", "CONCATENATION", "LOGISTIC"):
            types = [graph.tensors[i].type for i in (op.inputs[0], *op.outputs)]
            # in whole numbers of 32 bits a text's pooled token is found, from ids
            assert types in ([TensorType.FLOAT32] * 2, [TensorType.INT32] * 2)
        seen.add(kind)
    assert {"FULLY_CONNECTED", "BATCH_MATMUL", "ADD"} <= seen


def onnx_integers(path: Path, component: QuantizedComponent) -> dict[str, QuantizedLayer]:
    """Every quantized layer as an ONNX file holds it, in torch's layout."""
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    readers = {name: node for node in graph.node for name in node.input}

    def grid(node: onnx.NodeProto) -> ActivationGrid:
        assert node.op_type in ("QuantizeLinear", "DequantizeLinear")
        return ActivationGrid(float(stored[node.input[1]]), int(stored[node.input[2]]))

    found = {}
    for name, layer in component.layers.items():
        weights = stored[f"{name}.weight_quantized"]
        assert weights.dtype == np.int8
        scale = stored[f"{name}.weight_scale"].ravel()
        if layer.input is None:
            found[name] = QuantizedLayer(INT8_TABLE, weights, scale)
            continue
        node = readers[f"{name}.weight_dequantized"]
        assert readers[f"{name}.weight_dequantized"].op_type in ("Gemm", "Conv", "MatMul")
        axis = next(a.i for a in made_by[node.input[1]].attribute if a.name == "axis")
        after = readers[node.output[0]]
        found[name] = QuantizedLayer(
            INT8_STATIC,
            weights.T if axis == 1 else weights,
            scale,
            stored.get(f"{name}.bias_quantized"),
            grid(made_by[node.input[0]]),
            grid(after),
        )
    return found


def tflite_integers(path: Path) -> dict[str, QuantizedLayer]:
    """Every quantized layer as a TFLite file holds it, in torch's layout; activations shifted to unsigned."""
    model = read_tflite(path)
    tensors = model.subgraphs[0].tensors

    def integers(tensor: Any, dtype: type[np.generic]) -> NDArray[Any]:
        return np.asarray(model.buffers[tensor.buffer].data).view(dtype).reshape(tensor.shape)

    def grid(tensor: Any) -> ActivationGrid:
        return ActivationGrid(
            float(tensor.quantization.scale[0]), int(tensor.quantization.zeroPoint[0]) + 128
        )

    found = {}
    for op in model.subgraphs[0].operators:
        kind = op_name(model, op)
        if kind not in ("FULLY_CONNECTED", "CONV_2D", "EMBEDDING_LOOKUP"):
            continue
        weight = weights_of(model, op)
        name = weight.name.decode().split(";", 1)[0].removesuffix(".weight")
        stored = integers(weight, np.int8)
        if kind == "CONV_2D":
            stored = stored.transpose(0, 3, 1, 2)
        scale = np.asarray(weight.quantization.scale, np.float32)
        assert not np.any(weight.quantization.zeroPoint)
        if kind == "EMBEDDING_LOOKUP":
            found[name] = QuantizedLayer(INT8_TABLE, stored, scale)
            continue
        has_bias = len(op.inputs) > 2 and op.inputs[2] >= 0
        bias = integers(tensors[op.inputs[2]], np.int32) if has_bias else None
        found[name] = QuantizedLayer(
            INT8_STATIC, stored, scale, bias, grid(tensors[op.inputs[0]]), grid(tensors[op.outputs[0]])
        )
    return found


@pytest.mark.parametrize("component", COMPONENTS)
def test_both_files_hold_the_integers_that_left_torch(component: str) -> None:
    """Layer by layer: weights, scales, biases, and the scales and zero points of what goes in and out."""
    model = lowered()
    expected = model.integers(component)
    for found in (
        onnx_integers(model.path(component, "int8.onnx"), expected),
        tflite_integers(model.path(component, "int8.tflite")),
    ):
        assert found.keys() == expected.layers.keys()
        for name, layer in expected.layers.items():
            np.testing.assert_array_equal(found[name].weights, layer.weights, err_msg=name)
            np.testing.assert_array_equal(found[name].scale, layer.scale, err_msg=name)
            if layer.bias is not None:
                np.testing.assert_array_equal(found[name].bias, layer.bias, err_msg=name)
            assert found[name].input == layer.input, name
            assert found[name].output == layer.output, name


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_layer_with_weights_is_quantized(component: str) -> None:
    model = lowered()
    weights = {
        name.removesuffix(".weight")
        for name, parameter in model.module(component).named_parameters()
        if parameter.ndim > 1 and "position" not in name
    }
    assert set(model.integers(component).layers) == weights


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("suffix", INT8)
def test_the_engines_compute_what_torch_simulates(component: str, suffix: str) -> None:
    """Far nearer to the simulation than to the float model: the rest is rounding at ties."""
    model, feeds = lowered(), samples(component, 64, 5)
    plain = np.concatenate([model.torch_embedding(component, feed[component]) for feed in feeds])
    with simulated(model.module(component), model.integers(component)):
        expected = np.concatenate([model.torch_embedding(component, feed[component]) for feed in feeds])
    again = np.concatenate([model.torch_embedding(component, feed[component]) for feed in feeds])
    np.testing.assert_array_equal(again, plain)  # the simulation leaves the module as it was
    found = run(model.path(component, suffix), feeds)
    assert np.median(np.abs(found - expected).max(axis=1)) < 0.2 * np.median(
        np.abs(found - plain).max(axis=1)
    )


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    component = lowered().integers("ids")
    component.save(tmp_path)
    again = QuantizedComponent.load(tmp_path)
    assert again.layers.keys() == component.layers.keys()
    for name, layer in component.layers.items():
        assert (again.layers[name].input, again.layers[name].output) == (layer.input, layer.output)
        np.testing.assert_array_equal(again.layers[name].weights, layer.weights)
    (tmp_path / "grids.json").write_text('{"schema_version": 99, "layers": {}}')
    with pytest.raises(DataError, match="version 99"):
        QuantizedComponent.load(tmp_path)


def test_positions_are_no_token_table() -> None:
    model = lowered()
    example = torch.from_numpy(samples("ids", 1, 0)[0]["ids"])
    assert token_tables(model.module("ids"), example) == ("text_model.embeddings.token_embedding",)
    example = torch.from_numpy(samples("pixels", 1, 0)[0]["pixels"])
    assert token_tables(model.module("pixels"), example) == ()


def test_a_module_without_layers_is_refused() -> None:
    with pytest.raises(DataError, match="no linear"):
        quantize_component(torch.nn.ReLU(), component_spec(torch.nn.ReLU(), Precision.INT8), Calibration({}))


def test_a_graph_without_the_layers_is_refused(tmp_path: Path) -> None:
    model = lowered()
    with pytest.raises(LoweringError, match="holds no node for"):
        write_quantized_onnx(model.path("pixels", "fp32.onnx"), model.integers("ids"), tmp_path / "g.onnx")


def linear(weights: NDArray[np.float32], bias: list[float]) -> torch.nn.Linear:
    layer = torch.nn.Linear(weights.shape[1], weights.shape[0])
    layer.load_state_dict({"weight": torch.from_numpy(weights), "bias": torch.tensor(bias)})
    return layer.eval()


class Wrapped(torch.nn.Module):
    def __init__(self, layer: torch.nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.layer(x)
        return y


def test_zero_channels_and_inputs_that_are_always_zero_keep_their_bias(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    weights[1] = 0
    module, feed = Wrapped(linear(weights, [1.0, -2.0, 3.0])).eval(), np.zeros((2, 4), np.float32)
    component = quantize_component(module, component_spec(module, Precision.INT8), calibrate(module, [feed]))
    export_onnx(module, {"x": torch.from_numpy(feed)}, tmp_path / "f.onnx")
    write_quantized_onnx(tmp_path / "f.onnx", component, tmp_path / "q.onnx")
    answers = run_onnx(tmp_path / "q.onnx", [{"x": feed}]).reshape(2, 3)
    assert answers == pytest.approx(np.tile([1.0, -2.0, 3.0], (2, 1)), abs=0.011)  # half a step of the output


@given(st.floats(-100, 100), st.floats(1e-3, 10), st.integers(0, 255))
def test_fake_quantization_rounds_to_the_nearest_and_clamps(value: float, scale: float, zero: int) -> None:
    grid = ActivationGrid(scale, zero)
    low, high = -zero * scale, (255 - zero) * scale
    found = float(fake_quantize(torch.tensor(value, dtype=torch.float64), grid))
    if low <= value <= high:
        assert abs(found - value) <= scale / 2 + 1e-9
    else:
        assert found == pytest.approx(low if value < low else high)
    assert float(fake_quantize(torch.tensor(found, dtype=torch.float64), grid)) == pytest.approx(found)
