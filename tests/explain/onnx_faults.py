"""ONNX graphs that each have one fault of which the explanation must speak, and one that has none."""

from __future__ import annotations

import timeit
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
ROWS, WIDE = 64, 512
_DTYPES = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32, "int64": TensorProto.INT64}
_OPSETS = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
_rng = np.random.default_rng(3)


class OnnxGraph:
    """An ONNX graph under construction: a chain of nodes from the input x."""

    def __init__(self, *shape: int, dtype: str = "float32") -> None:
        self.at = "x"
        self._input = helper.make_tensor_value_info("x", _DTYPES[dtype], shape)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, array: Array) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *more: str | Array, first: str | None = None, **attributes: Any) -> str:
        """A node of the value at hand, or of `first`, and others; its output is then at hand."""
        names = [each if isinstance(each, str) else self.constant(each) for each in more]
        self.at, before = f"v{len(self._nodes)}", self.at if first is None else first
        self._nodes.append(helper.make_node(op, [before, *names], [self.at], name=self.at, **attributes))
        return self.at

    def linear(self, inner: int, columns: int) -> str:
        return self.add("MatMul", weights(inner, columns))

    def quantized(self, op: str, *more: str | Array, **attributes: Any) -> str:
        """A node with QuantizeLinear and DequantizeLinear before it and after it."""
        self._grid()
        self.add(op, *more, **attributes)
        return self._grid()

    def quantized_linear(self, inner: int, columns: int) -> str:
        """A linear whose weights and activations are 8-bit integers."""
        self._grid()
        value = self.at
        scale, zero = np.full(columns, 0.01, np.float32), np.zeros(columns, np.int8)
        kept = self.add(
            "DequantizeLinear",
            scale,
            zero,
            first=self.constant(_rng.integers(-127, 128, (inner, columns)).astype(np.int8)),
            axis=1,
        )
        self.add("MatMul", kept, first=value)
        return self._grid()

    def _grid(self) -> str:
        scale, zero = np.asarray(0.05, np.float32), np.asarray(128, np.uint8)
        self.add("QuantizeLinear", scale, zero)
        return self.add("DequantizeLinear", scale, zero)

    def save(self, path: Path, *outputs: str) -> Path:
        names = outputs or (self.at,)
        given = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names]
        graph = helper.make_graph(self._nodes, "fault", [self._input], given, self._constants)
        model = helper.make_model(graph, opset_imports=_OPSETS, ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model)
        shapes = {value.name: value for value in inferred.graph.value_info}
        for output in inferred.graph.output:
            if output.name in shapes:
                output.CopyFrom(shapes[output.name])
        onnx.save(inferred, path)
        return path


def weights(*shape: int) -> Array:
    return np.asarray(_rng.normal(size=shape) / np.sqrt(shape[0]), np.float32)


def clean(path: Path) -> Path:
    """Linears of some hundred channels with what every model has between them."""
    graph = OnnxGraph(ROWS, WIDE)
    for _ in range(4):
        graph.linear(WIDE, WIDE)
        graph.add("Relu")
        graph.add("LayerNormalization", np.ones(WIDE, np.float32), np.zeros(WIDE, np.float32))
    return graph.save(path)


def clean_int8(path: Path) -> Path:
    """Linears of integers, one after the other."""
    graph = OnnxGraph(4 * ROWS, WIDE)
    for _ in range(6):
        graph.quantized_linear(WIDE, WIDE)
    return graph.save(path)


def small_floats(path: Path) -> Path:
    """What `conversions` computes, in floats and with few of its ops."""
    graph = OnnxGraph(ROWS, WIDE // 4)
    graph.linear(WIDE // 4, WIDE // 4)
    for _ in range(10):
        graph.add("Neg")
    return graph.save(path)


def large_floats(path: Path) -> Path:
    """More than `clean_int8` multiplies, in floats."""
    graph = OnnxGraph(8 * ROWS, WIDE)
    for _ in range(6):
        graph.linear(WIDE, WIDE)
    return graph.save(path)


def conversions(path: Path, pairs: int = 150) -> Path:
    """Every op quantized: ops that have no kernel for integers, two conversions around each.

    There are few: ONNX Runtime takes many seconds to load a thousand.
    """
    graph = OnnxGraph(ROWS, WIDE // 4)
    graph.quantized_linear(WIDE // 4, WIDE // 4)
    for _ in range(pairs):
        graph.quantized("Neg")
    return graph.save(path)


def float_among_integers(path: Path) -> Path:
    """One linear left in float among linears of integers."""
    graph = OnnxGraph(4 * ROWS, WIDE)
    graph.quantized_linear(WIDE, WIDE)
    graph.quantized_linear(WIDE, WIDE)
    graph.linear(WIDE, WIDE)
    graph.quantized_linear(WIDE, WIDE)
    return graph.save(path)


def unpacked_weights(path: Path) -> Path:
    """Weights stored as integers, without a grid for what they are multiplied with."""
    graph = OnnxGraph(1, 2 * WIDE)
    for _ in range(4):
        value = graph.at
        stored = graph.constant(_rng.integers(-127, 128, (2 * WIDE, 2 * WIDE)).astype(np.int8))
        kept = graph.add("DequantizeLinear", np.asarray(0.01, np.float32), first=stored)
        graph.add("MatMul", kept, first=value)
    return graph.save(path)


def slow_kernel(path: Path) -> Path:
    """A convolution of integers that ONNX Runtime has only a plain kernel for."""
    graph = OnnxGraph(1, 64, 56, 56)
    graph.add("QuantizeLinear", np.asarray(0.05, np.float32), np.asarray(128, np.uint8))
    kernel = _rng.integers(-127, 128, (64, 64, 3, 3)).astype(np.int8)
    graph.add("ConvInteger", kernel, np.asarray(128, np.uint8), pads=[1, 1, 1, 1])
    graph.add("Cast", to=TensorProto.FLOAT)
    return graph.save(path)


def transposes(path: Path) -> Path:
    """Sizes exchanged over and over, so that no transpose meets the one that would undo it."""
    graph = OnnxGraph(512, 512)
    for _ in range(6):
        graph.add("Transpose", perm=[1, 0])
        graph.add("Reshape", np.asarray([1024, 256]))
        graph.add("Transpose", perm=[1, 0])
        graph.add("Reshape", np.asarray([512, 512]))
    graph.linear(512, 16)
    return graph.save(path)


def memory_bound(path: Path) -> Path:
    """One row through linears of many weights."""
    graph = OnnxGraph(1, 2048)
    for _ in range(5):
        graph.linear(2048, 2048)
    return graph.save(path)


def decomposed_gelu(path: Path) -> Path:
    """Activations written as five ops each, between small linears."""
    graph = OnnxGraph(256, WIDE)
    for _ in range(4):
        value = graph.at
        graph.add("Div", np.asarray(1.5, np.float32))  # by another number than the fusion knows
        graph.add("Erf")
        graph.add("Add", np.asarray(1, np.float32))
        graph.add("Mul", value)
        graph.add("Mul", np.asarray(0.5, np.float32))
        graph.linear(WIDE, 64)
        graph.linear(64, WIDE)
    return graph.save(path)


def loop(path: Path) -> Path:
    """A product in a loop of 200 turns."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "w"], ["next"], name="turn"),
            helper.make_node("Identity", ["go"], ["going"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turns", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [1, 32]),
        ],
        [
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [1, 32]),
        ],
        [numpy_helper.from_array(weights(32, 32), "w")],
    )
    node = helper.make_node("Loop", ["count", "yes", "x"], ["y"], name="loop", body=body)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in ("x", "y")]
    constants = [
        numpy_helper.from_array(np.asarray(200), "count"),
        numpy_helper.from_array(np.asarray(True), "yes"),
    ]
    graph = helper.make_graph([node], "loop", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def tiny_ops(path: Path) -> Path:
    """Thousands of ops on a few numbers."""
    graph = OnnxGraph(1, 8)
    for _ in range(1500):
        graph.add("Neg")
        graph.add("Abs")
    return graph.save(path)


def lookups(path: Path) -> Path:
    """Numbers looked up one by one in a table that is larger than caches."""
    graph = OnnxGraph(512, 1024, dtype="int64")
    graph.add("GatherElements", graph.at, first=graph.constant(weights(4096, 1024)), axis=0)
    graph.add("MatMul", weights(1024, 16))
    return graph.save(path)


def vocabulary(path: Path) -> Path:
    """A linear to many outputs after a small model."""
    graph = OnnxGraph(1, 128)
    for _ in range(4):
        graph.linear(128, 128)
        graph.add("Relu")
    graph.linear(128, 60000)
    return graph.save(path)


def repeated_quantization(path: Path) -> Path:
    """Queries, keys and values that each quantize the same wide input."""
    graph = OnnxGraph(ROWS, 4096)
    blocks = 4096 // 32
    outputs = [
        graph.add(
            "MatMulNBits",
            _rng.integers(0, 256, (8, blocks, 16)).astype(np.uint8),
            np.full(8 * blocks, 0.01, np.float32),
            first="x",
            domain="com.microsoft",
            K=4096,
            N=8,
            bits=4,
            block_size=32,
            accuracy_level=4,
        )
        for _ in range(4)
    ]
    return graph.save(path, *outputs)


def _cost_of_denormals() -> float:
    """How many times as long as other products those of denormal numbers take here; AMD's Zen 4: once."""
    factors, products = np.full((256, 1024), 0.97, np.float32), np.empty((256, 1024), np.float32)

    def seconds(value: float) -> float:
        values = np.full_like(factors, value)
        return min(timeit.repeat(lambda: np.multiply(values, factors, out=products), number=1, repeat=30))

    return seconds(1e-39) / seconds(1.0)


def denormals(path: Path) -> Path:
    """Products of numbers too small for a float's normal range."""
    cost = _cost_of_denormals()
    if cost < 8:
        pytest.skip(f"products of denormal numbers take {cost:.1f} times as long here: they are no fault")
    graph = OnnxGraph(256, 1024)
    graph.add("Tanh")
    graph.add("Mul", np.asarray(1e-39, np.float32))
    for _ in range(6):
        graph.add("Mul", np.full((256, 1024), 0.97, np.float32))
        graph.add("Add", np.full((256, 1024), 1e-40, np.float32))
    return graph.save(path)


def softmax(path: Path) -> Path:
    """Attention's softmax over many tokens, beside a small product."""
    graph = OnnxGraph(4, 512, 512)
    for _ in range(3):
        graph.add("Softmax", axis=-1)
    graph.linear(512, 16)
    return graph.save(path)


def elementwise(path: Path) -> Path:
    """A chain of sums and products of everything, beside a small linear."""
    graph = OnnxGraph(512, 1024)
    for index in range(10):
        graph.add("Add", np.full((1, 1024), 0.1 * index, np.float32))
        graph.add("Mul", np.full((512, 1), 1.01, np.float32))
    graph.linear(1024, 16)
    return graph.save(path)


def half_stored(path: Path) -> Path:
    """Linears whose weights are floats of 16 bits."""
    graph = OnnxGraph(256, WIDE)
    graph.add("Cast", to=TensorProto.FLOAT16)
    for _ in range(4):
        graph.add("MatMul", weights(WIDE, WIDE).astype(np.float16))
    graph.add("Cast", to=TensorProto.FLOAT)
    return graph.save(path)


def masks(path: Path) -> Path:
    """Sums and remainders of everything, before a small product."""
    graph = OnnxGraph(512, 512)
    for _ in range(3):
        graph.add("CumSum", np.asarray(1))
        graph.add("Mod", np.asarray(3.0, np.float32), fmod=1)
    graph.linear(512, 16)
    return graph.save(path)


def concat(path: Path) -> Path:
    """Wide tensors put together and taken apart."""
    graph = OnnxGraph(64, 4096)
    for _ in range(4):
        value = graph.at
        graph.add("Concat", value, value, value, axis=1)
        graph.add("Slice", np.asarray([4096]), np.asarray([8192]), np.asarray([1]))
        graph.add("Relu")
    return graph.save(path)


FAULTS = (
    ("conversions", conversions),
    ("float-linears", float_among_integers),
    ("unpacked-weights", unpacked_weights),
    ("slow-products", slow_kernel),
    ("layout", transposes),
    ("memory-bound", memory_bound),
    ("decomposed-activation", decomposed_gelu),
    ("control-flow", loop),
    ("tiny-ops", tiny_ops),
    ("lookups", lookups),
    ("dominant-op", vocabulary),
    ("repeated-quantization", repeated_quantization),
    ("other-work", softmax),
    ("other-work", elementwise),
    ("half-stored", half_stored),
    ("slow-ops", denormals),
    ("slow-ops", masks),
    ("layout", concat),
)
"""The rule that must speak, and what makes the graph."""
