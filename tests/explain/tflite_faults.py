"""TFLite graphs that each have one fault of which the explanation must speak, and two that have none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

Array = NDArray[Any]
ROWS, WIDE = 256, 512
_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "int8": schema.TensorType.INT8,
    "int32": schema.TensorType.INT32,
    "bool": schema.TensorType.BOOL,
}
_SCALE = 0.05
_rng = np.random.default_rng(5)


class TfliteGraph:
    """A TFLite graph under construction: a chain of operators from the input x."""

    def __init__(self, *shape: int, dtype: str = "float32") -> None:
        self._model = schema.ModelT()
        self._model.version = 3
        self._model.buffers = [schema.BufferT()]
        self._model.operatorCodes = []
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        self._codes: dict[str, int] = {}
        self._more: list[Any] = []
        self.at = self.input = self.tensor(shape, dtype)

    def tensor(
        self, shape: Sequence[int], dtype: str = "float32", data: Array | None = None, channels: int = 1
    ) -> int:
        tensor = schema.TensorT()
        tensor.name = f"t{len(self._graph.tensors)}".encode()
        tensor.type, tensor.shape, tensor.buffer = _TYPES[dtype], list(shape), 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(data).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        if dtype == "int8":
            grid = schema.QuantizationParametersT()
            grid.scale, grid.zeroPoint = np.full(channels, _SCALE, np.float32), np.zeros(channels, np.int64)
            tensor.quantization = grid
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def add(
        self, op: str, *more: int, shape: Sequence[int], dtype: str = "float32", options: Any = None
    ) -> int:
        """An operator of the value at hand and others; its output is then at hand."""
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(op)
        operator.inputs, self.at = [self.at, *more], self.tensor(shape, dtype)
        operator.outputs = [self.at]
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__[:-1])
            operator.builtinOptions = options
        self._graph.operators.append(operator)
        return self.at

    def linear(
        self, rows: int, inner: int, columns: int, weights: str = "float32", dtype: str = "float32"
    ) -> int:
        """A linear; weights of int8 under floats are quantized dynamically."""
        values = _rng.normal(size=(columns, inner)) / np.sqrt(inner)
        if weights == "int8":
            values = np.clip(np.round(values * 60), -127, 127)
        kept = self.tensor((columns, inner), weights, np.asarray(values, weights), columns)
        return self.add(
            "FULLY_CONNECTED",
            kept,
            -1,
            shape=(rows, columns),
            dtype=dtype,
            options=schema.FullyConnectedOptionsT(),
        )

    def save(self, path: Path, *outputs: int) -> Path:
        self._graph.inputs, self._graph.outputs = [self.input], list(outputs or (self.at,))
        signature = schema.SignatureDefT()
        signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
        signature.inputs = [_named("x", self.input)]
        signature.outputs = [_named(f"y{i}", place) for i, place in enumerate(self._graph.outputs)]
        self._model.signatureDefs, self._model.subgraphs = [signature], [self._graph, *self._more]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))
        return path

    def save_loop(self, path: Path, turns: int) -> Path:
        """A graph that runs a linear and a cumulative sum of its input again and again."""
        shape, ids = (64, 128), "int32"
        main, start = self._graph, self.tensor((), "int32", np.asarray(0, np.int32))
        ends = [self.tensor((), ids), self.tensor(shape)]
        loop = schema.OperatorT()
        loop.opcodeIndex, loop.inputs, loop.outputs = self._code("WHILE"), [start, self.input], ends
        loop.builtinOptionsType, loop.builtinOptions = (
            schema.BuiltinOptions.WhileOptions,
            schema.WhileOptionsT(),
        )
        loop.builtinOptions.condSubgraphIndex, loop.builtinOptions.bodySubgraphIndex = 1, 2
        main.operators.append(loop)
        self.at = ends[1]
        condition, count, _ = self._subgraph(shape)
        self.at = count
        most = self.tensor((), ids, np.asarray(turns, np.int32))
        condition.outputs = [self.add("LESS", most, shape=(), dtype="bool", options=schema.LessOptionsT())]
        body, count, value = self._subgraph(shape)
        self.at = count
        one = self.tensor((), ids, np.asarray(1, np.int32))
        next_count = self.add("ADD", one, shape=(), dtype=ids, options=schema.AddOptionsT())
        self.at = value
        self.linear(64, 128, 128)
        axis = self.tensor((), ids, np.asarray(1, np.int32))
        body.outputs = [next_count, self.add("CUMSUM", axis, shape=shape, options=schema.CumsumOptionsT())]
        self._graph, self.at = main, ends[1]
        self._more = [condition, body]
        return self.save(path)

    def _subgraph(self, shape: Sequence[int]) -> tuple[Any, int, int]:
        """Begins another graph, of a count and a value: that graph, and these inputs."""
        self._graph = schema.SubGraphT()
        self._graph.tensors, self._graph.operators = [], []
        count, value = self.tensor((), "int32"), self.tensor(shape)
        self._graph.inputs = [count, value]
        return self._graph, count, value

    def _code(self, op: str) -> int:
        if op not in self._codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, op)
            code.deprecatedBuiltinCode = min(code.builtinCode, 127)
            code.version = {"FULLY_CONNECTED": 9}.get(op, 1)
            self._model.operatorCodes.append(code)
            self._codes[op] = len(self._codes)
        return self._codes[op]


def _named(name: str, index: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), index
    return entry


def clean(path: Path) -> Path:
    """Linears of floats with an activation between."""
    graph = TfliteGraph(ROWS, WIDE)
    for _ in range(4):
        graph.linear(ROWS, WIDE, WIDE)
        graph.add("RELU", shape=(ROWS, WIDE))
    return graph.save(path)


def clean_int8(path: Path) -> Path:
    """Linears of integers, one after the other."""
    graph = TfliteGraph(4 * ROWS, WIDE, dtype="int8")
    for _ in range(6):
        graph.linear(4 * ROWS, WIDE, WIDE, "int8", "int8")
    return graph.save(path)


def conversions(path: Path, pairs: int = 500) -> Path:
    """Every op quantized: 500 float ops, each between two conversions."""
    shape = (ROWS, WIDE // 4)
    graph = TfliteGraph(*shape, dtype="int8")
    graph.linear(*shape, WIDE // 4, "int8", "int8")
    ones = graph.tensor((WIDE // 4,), data=np.ones(WIDE // 4, np.float32))
    for _ in range(pairs):
        graph.add("DEQUANTIZE", shape=shape, options=schema.DequantizeOptionsT())
        graph.add("MUL", ones, shape=shape, options=schema.MulOptionsT())
        graph.add("QUANTIZE", shape=shape, dtype="int8", options=schema.QuantizeOptionsT())
    return graph.save(path)


def outside_delegate(path: Path) -> Path:
    """Sums along rows, which the delegate has no kernel for."""
    graph = TfliteGraph(ROWS, WIDE)
    axis = graph.tensor((), "int32", np.asarray(1, np.int32))
    graph.linear(ROWS, WIDE, WIDE)
    for _ in range(9):
        graph.add("CUMSUM", axis, shape=(ROWS, WIDE), options=schema.CumsumOptionsT())
    graph.linear(ROWS, WIDE, 16)
    return graph.save(path)


def computed_weights(path: Path) -> Path:
    """Linears whose weights the graph computes, as of LoRA that was never merged."""
    graph = TfliteGraph(ROWS, WIDE)
    for _ in range(4):
        value = graph.at
        graph.at = graph.tensor((WIDE, WIDE), data=_rng.normal(size=(WIDE, WIDE)).astype(np.float32) / WIDE)
        scale = graph.tensor((1,), data=np.ones(1, np.float32))
        weights = graph.add("MUL", scale, shape=(WIDE, WIDE), options=schema.MulOptionsT())
        graph.at = value
        options = schema.FullyConnectedOptionsT()
        graph.add("FULLY_CONNECTED", weights, -1, shape=(ROWS, WIDE), options=options)
    return graph.save(path)


def partitions(path: Path) -> Path:
    """An op that the delegate does not run after every one that it does."""
    graph = TfliteGraph(ROWS, WIDE)
    axis = graph.tensor((), "int32", np.asarray(1, np.int32))
    for _ in range(8):
        graph.linear(ROWS, WIDE, WIDE)
        graph.add("CUMSUM", axis, shape=(ROWS, WIDE), options=schema.CumsumOptionsT())
    graph.linear(ROWS, WIDE, 16)
    return graph.save(path)


def float_among_integers(path: Path) -> Path:
    """One linear of floats among linears of integers."""
    graph = TfliteGraph(ROWS, WIDE, dtype="int8")
    graph.linear(ROWS, WIDE, WIDE, "int8", "int8")
    graph.add("DEQUANTIZE", shape=(ROWS, WIDE), options=schema.DequantizeOptionsT())
    graph.linear(ROWS, WIDE, WIDE)
    graph.add("QUANTIZE", shape=(ROWS, WIDE), dtype="int8", options=schema.QuantizeOptionsT())
    graph.linear(ROWS, WIDE, WIDE, "int8", "int8")
    return graph.save(path)


def stored_integers(path: Path) -> Path:
    """Weights stored as integers that become floats: in the delegate, once for all runs."""
    graph = TfliteGraph(1, 2 * WIDE)
    shape = (2 * WIDE, 2 * WIDE)
    for _ in range(4):
        value = graph.at
        graph.at = graph.tensor(shape, "int8", _rng.integers(-127, 128, shape).astype(np.int8))
        kept = graph.add("DEQUANTIZE", shape=shape, options=schema.DequantizeOptionsT())
        graph.at = value
        graph.add("FULLY_CONNECTED", kept, -1, shape=(1, 2 * WIDE), options=schema.FullyConnectedOptionsT())
    return graph.save(path)


def transposes(path: Path) -> Path:
    """Sizes exchanged over and over around reshapes."""
    graph = TfliteGraph(512, 512)
    swap = graph.tensor((2,), "int32", np.asarray([1, 0], np.int32))
    sizes = [graph.tensor((2,), "int32", np.asarray(each, np.int32)) for each in ((1024, 256), (512, 512))]
    for _ in range(6):
        graph.add("TRANSPOSE", swap, shape=(512, 512), options=schema.TransposeOptionsT())
        graph.add("RESHAPE", sizes[0], shape=(1024, 256), options=schema.ReshapeOptionsT())
        graph.add("TRANSPOSE", swap, shape=(256, 1024), options=schema.TransposeOptionsT())
        graph.add("RESHAPE", sizes[1], shape=(512, 512), options=schema.ReshapeOptionsT())
    graph.linear(512, 512, 16)
    return graph.save(path)


def memory_bound(path: Path) -> Path:
    """One row through linears of many weights."""
    graph = TfliteGraph(1, 2048)
    for _ in range(5):
        graph.linear(1, 2048, 2048)
    return graph.save(path)


def repeated_quantization(path: Path) -> Path:
    """Queries, keys and values that each quantize the same wide input."""
    graph = TfliteGraph(ROWS, 4096)
    outputs = []
    for _ in range(4):
        graph.at = graph.input
        outputs.append(graph.linear(ROWS, 4096, 8, "int8"))
    return graph.save(path, *outputs)


def decomposed_gelu(path: Path) -> Path:
    """Activations written as several ops around a tanh."""
    graph = TfliteGraph(ROWS, WIDE)
    one = graph.tensor((), data=np.asarray(1.0, np.float32))
    for _ in range(4):
        value = graph.at
        graph.add("MUL", one, shape=(ROWS, WIDE), options=schema.MulOptionsT())
        graph.add("TANH", shape=(ROWS, WIDE))
        graph.add("ADD", one, shape=(ROWS, WIDE), options=schema.AddOptionsT())
        graph.add("MUL", value, shape=(ROWS, WIDE), options=schema.MulOptionsT())
        graph.linear(ROWS, WIDE, 32)
        graph.linear(ROWS, 32, WIDE)
    return graph.save(path)


def loop(path: Path, turns: int = 100) -> Path:
    """A loop that takes a product and a sum along rows in each of many turns."""
    graph = TfliteGraph(64, 128)
    return graph.save_loop(path, turns)


FAULTS = (
    ("conversions", conversions),
    ("outside-delegate", outside_delegate),
    ("partitions", partitions),
    ("float-linears", float_among_integers),
    ("float-linears", stored_integers),
    ("layout", transposes),
    ("memory-bound", memory_bound),
    ("repeated-quantization", repeated_quantization),
    ("decomposed-activation", decomposed_gelu),
    ("control-flow", loop),
)
"""The rule that must speak, and what makes the graph."""
