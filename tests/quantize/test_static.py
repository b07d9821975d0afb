"""Static int8 graphs hold integers where they should, run in integer kernels, and keep torch's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketvl.errors import LoweringError
from pocketvl.lower.ops import op_counts, op_name, read_tflite
from pocketvl.quantize.arithmetic import weight_grid
from pocketvl.quantize.static_onnx import quantize_static_onnx
from tests.lower.engines import centred_cosines, run, run_onnx
from tests.lower.lowered import TOWERS, lowered, samples

INT8 = ("int8.onnx", "int8.tflite")


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("suffix", INT8)
def test_int8_keeps_torchs_answers(tower: str, suffix: str) -> None:
    model, feeds = lowered(), samples(tower, 64, 5)
    expected = np.concatenate([model.torch_embedding(tower, feed[tower]) for feed in feeds])
    found = run(model.path(tower, suffix), feeds)
    assert np.median(centred_cosines(expected, found)) > 0.99
    assert np.abs(found - expected).max() > 1e-5  # it is not the float graph


@pytest.mark.parametrize("tower", TOWERS)
@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_files_shrink_by_what_the_weights_do(tower: str, kind: str) -> None:
    model = lowered()
    module = model.source.image_encoder if tower == "pixels" else model.source.text_encoder
    weights = sum(
        parameter.numel()
        for name, parameter in module.named_parameters()
        if parameter.ndim > 1 and "position" not in name
    )
    full, small = (model.path(tower, f"{name}.{kind}").stat().st_size for name in ("fp32", "int8"))
    assert full - small > 3 * weights * 0.6  # a tiny model: scales and node names weigh something too


@pytest.mark.parametrize("tower", TOWERS)
def test_onnxruntime_multiplies_integers(tower: str, tmp_path: Path) -> None:
    run_onnx(lowered().path(tower, "int8.onnx"), samples(tower, 1, 0), optimized=tmp_path / "optimized.onnx")
    counts = op_counts(tmp_path / "optimized.onnx")
    assert counts["com.microsoft::QGemm"] == 13
    assert counts.get("com.microsoft::QLinearConv", counts.get("QLinearConv", 0)) == (tower == "pixels")
    assert "Gemm" not in counts
    assert "Conv" not in counts
    assert counts.get("DequantizeLinear", 0) <= 1  # the convolution's output; nothing is widened but that


@pytest.mark.parametrize("tower", TOWERS)
def test_tflite_multiplies_integers_in_linears_and_convolutions_only(tower: str) -> None:
    from ai_edge_litert.schema_py_generated import TensorType

    model = read_tflite(lowered().path(tower, "int8.tflite"))
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
            assert types == [TensorType.FLOAT32] * 2
        seen.add(kind)
    assert {"FULLY_CONNECTED", "BATCH_MATMUL", "ADD"} <= seen


@pytest.mark.parametrize("kind", ["onnx", "tflite"])
def test_the_token_table_is_int8_with_a_scale_a_row(kind: str) -> None:
    model = lowered()
    table = model.source.text_encoder.get_parameter("embeddings.token_embedding.weight").detach().numpy()
    grid = weight_grid(table, 0)
    if kind == "onnx":
        stored = constants(onnx.load(model.path("ids", "int8.onnx")))
        integers = stored["embeddings.token_embedding.weight_quantized"]
        scales = stored["embeddings.token_embedding.weight_scale"].ravel().astype(np.float32)
    else:
        flatbuffer = read_tflite(model.path("ids", "int8.tflite"))
        (tensor,) = (
            tensor
            for tensor in flatbuffer.subgraphs[0].tensors
            if tensor.name.startswith(b"embeddings.token_embedding.weight") and tensor.buffer
            and flatbuffer.buffers[tensor.buffer].data is not None
        )  # fmt: skip
        integers = np.asarray(flatbuffer.buffers[tensor.buffer].data).view(np.int8).reshape(table.shape)
        scales = np.asarray(tensor.quantization.scale, np.float32)
    np.testing.assert_allclose(scales, grid.scale, rtol=1e-6)
    assert np.abs(integers.astype(int) - grid.quantize(table).astype(int)).max() <= 1  # ties
    assert (integers == grid.quantize(table)).mean() > 0.999


def constants(model: onnx.ModelProto) -> dict[str, NDArray[np.generic]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_integer_weights_are_the_grid_of_the_float_weights(tmp_path: Path) -> None:
    model = lowered()
    names = quantize_static_onnx(
        model.path("pixels", "fp32.onnx"), tmp_path / "g.onnx", samples("pixels", 2, 0)
    )
    module = model.source.image_encoder
    weights = {
        name: parameter.detach().numpy()
        for name, parameter in module.named_parameters()
        if parameter.ndim > 1 and "position" not in name
    }
    assert set(names) == set(weights)
    stored = constants(onnx.load(tmp_path / "g.onnx"))
    for name, weight in weights.items():
        integers = stored[f"{name}_quantized"]
        expected = weight_grid(weight, 0).quantize(weight)
        transposed = weight.ndim == 2 and stored[f"{name}_scale"].shape[0] != integers.shape[0]
        square = weight.ndim == 2 and integers.shape[0] == integers.shape[1]
        matches = [np.array_equal(integers, expected)]
        if transposed or square:
            matches.append(np.array_equal(integers, expected.T))
        assert any(matches), name
        assert name not in stored  # the float weight is gone


def matmul_graph(path: Path, weights: NDArray[np.float32], op: str = "MatMul", **attributes: Any) -> Path:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, weights.shape[0]])
    out = helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [2, weights.shape[1]])
    node = helper.make_node(op, ["x", "w"], ["embedding"], **attributes)
    graph = helper.make_graph([node], "g", [value], [out], [numpy_helper.from_array(weights, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, path)
    return path


def test_a_plain_matmul_runs_on_integers_without_saturation(tmp_path: Path) -> None:
    # all weights and activations at the end of their grids: the sums that saturate without VNNI
    path = matmul_graph(tmp_path / "f.onnx", np.full((64, 8), 2.0, np.float32))
    feed = {"x": np.ones((2, 64), np.float32)}
    quantize_static_onnx(path, tmp_path / "q.onnx", [feed])
    found = run_onnx(tmp_path / "q.onnx", [feed], optimized=tmp_path / "o.onnx")
    np.testing.assert_allclose(found, 128.0, rtol=1e-5)
    assert any("MatMulInteger" in name or "QLinear" in name for name in op_counts(tmp_path / "o.onnx"))


def test_zero_channels_and_constant_activations_stay_exact(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    weights[:, 1] = 0
    path = matmul_graph(tmp_path / "f.onnx", weights)
    feed = {"x": np.zeros((2, 16), np.float32)}
    quantize_static_onnx(path, tmp_path / "q.onnx", [feed])
    assert not run_onnx(tmp_path / "q.onnx", [feed]).any()


def test_a_scaled_gemm_stays_in_float(tmp_path: Path) -> None:
    path = matmul_graph(tmp_path / "f.onnx", np.ones((4, 4), np.float32), "Gemm", alpha=0.5)
    with pytest.raises(LoweringError, match="constant weights"):
        quantize_static_onnx(path, tmp_path / "q.onnx", [{"x": np.ones((2, 4), np.float32)}])
