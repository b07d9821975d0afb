"""Writes the graphs in runtime/pocketvl_runtime/peak_graphs, by which a machine is measured.

One large linear in each engine and precision, and a chain of ops that do nothing.

    python -m bench.peak_graphs [FOLDER]

Their weights are zeros, which a processor multiplies as quickly as any others, and which pack into nothing.
"""

from __future__ import annotations

import gzip
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from pocketvl_runtime import op_profile, peaks

FOLDER = Path(peaks.__file__).parent / "peak_graphs"
_SCALE = 1 / 64
_X, _W, _Y = (peaks.ROWS, peaks.CHANNELS), (peaks.CHANNELS, peaks.CHANNELS), (peaks.ROWS, peaks.CHANNELS)


def main() -> None:
    folder = Path(sys.argv[1]) if sys.argv[1:] else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in written().items():
        (folder / f"{name}.gz").write_bytes(gzip.compress(content, mtime=0))


def written() -> dict[str, bytes]:
    """The graphs' files by name."""
    return {
        "chain.onnx": _chain(),
        "linear.fp32.onnx": _onnx("MatMul", TensorProto.FLOAT, w=np.zeros(_W, np.float32)),
        "linear.int8.onnx": _onnx("QLinearMatMul", TensorProto.UINT8, **dict(_quantized_inputs())),
        "linear.fp32.tflite": _tflite(schema.TensorType.FLOAT32, np.float32),
        "linear.int8.tflite": _tflite(schema.TensorType.INT8, np.int8),
    }


def _quantized_inputs() -> Iterator[tuple[str, NDArray[Any]]]:
    """The constants of QLinearMatMul, in the order in which it takes them around its input x."""
    scale, zero = np.float32(_SCALE), np.uint8(128)
    yield "x_scale", np.asarray(scale)
    yield "x_zero", np.asarray(zero)
    yield "w", np.zeros(_W, np.int8)
    yield "w_scale", np.full(peaks.CHANNELS, _SCALE, np.float32)
    yield "w_zero", np.zeros(peaks.CHANNELS, np.int8)
    yield "y_scale", np.asarray(scale)
    yield "y_zero", np.asarray(zero)


def _onnx(op: str, dtype: int, **constants: NDArray[Any]) -> bytes:
    node = helper.make_node(op, ["x", *constants], ["y"])
    graph = helper.make_graph(
        [node],
        "linear",
        [helper.make_tensor_value_info("x", dtype, _X)],
        [helper.make_tensor_value_info("y", dtype, _Y)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _chain() -> bytes:
    """Ops that do next to nothing, one after the other: what the engine's profiler adds to each."""
    names = ["x", *(f"v{index}" for index in range(1, op_profile.CHAINED)), "y"]
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in pairwise(names)]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "chain", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


def _tflite(dtype: int, weights: type[np.generic]) -> bytes:
    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version = 3
    model.buffers = [schema.BufferT(), schema.BufferT()]
    model.buffers[1].data = np.zeros(_W, weights).reshape(-1).view(np.uint8)
    graph.name = "linear"
    graph.tensors = [_tensor(n, s, dtype, b) for n, s, b in (("x", _X, 0), ("w", _W, 1), ("y", _Y, 0))]
    graph.inputs, graph.outputs = [0], [2]
    op, code, signature = schema.OperatorT(), schema.OperatorCodeT(), schema.SignatureDefT()
    op.inputs, op.outputs = [0, 1, -1], [2]
    op.builtinOptionsType = schema.BuiltinOptions.FullyConnectedOptions
    op.builtinOptions = schema.FullyConnectedOptionsT()
    graph.operators = [op]
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.FULLY_CONNECTED
    code.version = 4
    model.operatorCodes = [code]
    model.subgraphs = [graph]
    signature.signatureKey = b"serving_default"
    signature.subgraphIndex = 0
    signature.inputs, signature.outputs = [_named("x", 0)], [_named("y", 2)]
    model.signatureDefs = [signature]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _tensor(name: str, shape: tuple[int, ...], dtype: int, buffer: int) -> Any:
    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type, tensor.buffer = name.encode(), list(shape), dtype, buffer
    if dtype == schema.TensorType.INT8:
        channels = peaks.CHANNELS if buffer else 1
        grid = schema.QuantizationParametersT()
        grid.scale = np.full(channels, _SCALE, np.float32)
        grid.zeroPoint = np.zeros(channels, np.int64)
        tensor.quantization = grid
    return tensor


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


if __name__ == "__main__":
    main()
