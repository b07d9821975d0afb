"""Tiny hand-made graphs: one linear layer over the pixels, one sum over token vectors, in ONNX and TFLite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

SIZE = 16
LENGTH = 12
DIM = 8
WORDS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "a",
    "photo",
    "of",
    "red",
    "blue",
    "cube",
    "ball",
    "green",
    "the",
)

_rng = np.random.default_rng(7)
IMAGE_WEIGHTS = _rng.normal(size=(SIZE * SIZE * 3, DIM)).astype(np.float32)
TOKEN_TABLE = _rng.normal(size=(len(WORDS), DIM)).astype(np.float32)
TOKEN_TABLE[0] = 0  # padding adds nothing
ANSWERS = DIM
"""How many answers the graphs know that read a picture and a question."""
HIDDEN = (2, DIM // 2)
"""Positions and width of what the image graph gives that is read together with a text."""
FIT_WEIGHTS = np.random.default_rng(8).normal(size=(DIM, 2), scale=0.1).astype(np.float32)
Floats = NDArray[np.float32]


def image_embedding(pixels: NDArray[np.uint8]) -> Floats:
    """What the image graphs compute, of uint8 [H, W, 3]."""
    value = pixels.reshape(-1).astype(np.float32) @ IMAGE_WEIGHTS
    return np.asarray(value / np.linalg.norm(value), np.float32)


def text_embedding(ids: NDArray[np.int32]) -> Floats:
    """What the text graphs compute, of int32 [T]."""
    value = TOKEN_TABLE[ids].sum(axis=0)
    return np.asarray(value / np.linalg.norm(value), np.float32)


def fusion_logits(pixels: NDArray[np.uint8], ids: NDArray[np.int32], loudness: float = 0.0005) -> Floats:
    """What the graphs compute that read uint8 [H, W, 3] and int32 [T]: float32 [ANSWERS]."""
    seen = pixels.reshape(-1).astype(np.float32) @ IMAGE_WEIGHTS * np.float32(loudness)
    return np.asarray(seen + TOKEN_TABLE[ids].sum(axis=0), np.float32)


def image_hidden(pixels: NDArray[np.uint8], loudness: float = 0.0005) -> Floats:
    """What the image graph gives beside its embedding, of uint8 [H, W, 3]: float32 [1, *HIDDEN]."""
    seen = pixels.reshape(-1).astype(np.float32) @ IMAGE_WEIGHTS * np.float32(loudness)
    return np.asarray(seen, np.float32).reshape(1, *HIDDEN)


def fit_logits(hidden: Floats, ids: NDArray[np.int32]) -> Floats:
    """What the graphs compute that read float32 [1, *HIDDEN] and int32 [T]: float32 [2]."""
    return np.asarray((hidden.reshape(-1) + TOKEN_TABLE[ids].sum(axis=0)) @ FIT_WEIGHTS, np.float32)


# --- ONNX --------------------------------------------------------------------------------------------


def save_onnx(
    path: Path, nodes: list[Any], values_in: list[Any], *values_out: Any, **initializers: NDArray[Any]
) -> None:
    """Writes a graph whose constants are `initializers`."""
    constants = [numpy_helper.from_array(array, name) for name, array in initializers.items()]
    graph = helper.make_graph(nodes, "tiny", values_in, values_out, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def embedding_info(name: str = "embedding") -> Any:
    """An output of [1, DIM]."""
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, DIM])


def onnx_image_graph(path: Path, scale: float = 1.0, length: float = 1.0) -> None:
    """pixels uint8 [1, H, W, 3] -> embedding of a `length`; a `scale` of infinity makes it answer NaN."""
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("Mul", ["float", "scale"], ["scaled"]),
        node("Reshape", ["scaled", "flat"], ["row"]),
        node("MatMul", ["row", "weights"], ["raw"]),
        node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        node("Div", ["raw", "norm"], ["unit"]),
        node("Mul", ["unit", "length"], ["embedding"]),
    ]
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, SIZE, SIZE, 3])
    save_onnx(
        path,
        nodes,
        [pixels],
        embedding_info(),
        scale=np.asarray(scale, np.float32),
        length=np.asarray(length, np.float32),
        flat=np.asarray([1, -1]),
        weights=IMAGE_WEIGHTS,
        last=np.asarray([-1]),
    )


def onnx_text_graph(path: Path, masked: bool = False) -> None:
    """ids int32 [1, T] (and, if `masked`, a mask of that shape) -> embedding."""
    node = helper.make_node
    masking = [
        node("Unsqueeze", ["mask", "last"], ["column"]),
        node("Cast", ["column"], ["kept"], to=TensorProto.FLOAT),
        node("Mul", ["all", "kept"], ["tokens"]),
    ]
    nodes = [
        node("Gather", ["table", "ids"], ["all"]),
        *(masking if masked else [node("Identity", ["all"], ["tokens"])]),
        node("ReduceSum", ["tokens", "middle"], ["raw"], keepdims=0),
        node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        node("Div", ["raw", "norm"], ["embedding"]),
    ]
    names = ("ids", "mask") if masked else ("ids",)
    ids = [helper.make_tensor_value_info(name, TensorProto.INT32, [1, LENGTH]) for name in names]
    save_onnx(
        path,
        nodes,
        ids,
        embedding_info(),
        table=TOKEN_TABLE,
        middle=np.asarray([1]),
        last=np.asarray([-1]),
    )


def onnx_fusion_graph(path: Path, loudness: float = 0.0005) -> None:
    """pixels uint8 [1, H, W, 3], ids int32 [1, T] -> logits; a `loudness` of infinity makes them NaN."""
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("Reshape", ["float", "flat"], ["row"]),
        node("MatMul", ["row", "weights"], ["loud"]),
        node("Mul", ["loud", "loudness"], ["seen"]),
        node("Gather", ["table", "ids"], ["tokens"]),
        node("ReduceSum", ["tokens", "middle"], ["read"], keepdims=0),
        node("Add", ["seen", "read"], ["logits"]),
    ]
    save_onnx(
        path,
        nodes,
        [
            helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, SIZE, SIZE, 3]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, [1, LENGTH]),
        ],
        embedding_info("logits"),
        loudness=np.asarray(loudness, np.float32),
        flat=np.asarray([1, -1]),
        weights=IMAGE_WEIGHTS,
        table=TOKEN_TABLE,
        middle=np.asarray([1]),
    )


def onnx_seeing_graph(path: Path, loudness: float = 0.0005) -> None:
    """pixels uint8 [1, H, W, 3] -> embedding, hidden; a `loudness` of infinity makes the hidden states so."""
    node = helper.make_node
    nodes = [
        node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
        node("Reshape", ["float", "flat"], ["row"]),
        node("MatMul", ["row", "weights"], ["raw"]),
        node("Mul", ["raw", "loudness"], ["seen"]),
        node("Reshape", ["seen", "by_position"], ["hidden"]),
        node("ReduceL2", ["raw", "last"], ["norm"], keepdims=1),
        node("Div", ["raw", "norm"], ["embedding"]),
    ]
    save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, [1, SIZE, SIZE, 3])],
        embedding_info(),
        helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, *HIDDEN]),
        loudness=np.asarray(loudness, np.float32),
        flat=np.asarray([1, -1]),
        by_position=np.asarray([1, *HIDDEN]),
        weights=IMAGE_WEIGHTS,
        last=np.asarray([-1]),
    )


def onnx_fit_graph(path: Path, logits: int = 2) -> None:
    """hidden float32 [1, *HIDDEN], ids int32 [1, T] -> logits, as many as are asked for."""
    node = helper.make_node
    nodes = [
        node("Reshape", ["hidden", "flat"], ["seen"]),
        node("Gather", ["table", "ids"], ["tokens"]),
        node("ReduceSum", ["tokens", "middle"], ["read"], keepdims=0),
        node("Add", ["seen", "read"], ["both"]),
        node("MatMul", ["both", "weights"], ["logits"]),
    ]
    save_onnx(
        path,
        nodes,
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, [1, *HIDDEN]),
            helper.make_tensor_value_info("ids", TensorProto.INT32, [1, LENGTH]),
        ],
        helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, logits]),
        flat=np.asarray([1, -1]),
        table=TOKEN_TABLE,
        middle=np.asarray([1]),
        weights=FIT_WEIGHTS[:, :logits],
    )


def onnx_saturating_graph(path: Path, depth: int = 64) -> None:
    """One QDQ MatMul, all weights at 127: of all ones [1, depth] the answer is depth, eight times."""
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "step", "zero"], ["q"]),
        node("DequantizeLinear", ["q", "step", "zero"], ["d"]),
        node("DequantizeLinear", ["weights", "step", "zero"], ["w"]),
        node("MatMul", ["d", "w"], ["y"]),
    ]
    save_onnx(
        path,
        nodes,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, depth])],
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, DIM]),
        step=np.asarray(1 / 127, np.float32),
        zero=np.asarray(0, np.int8),
        weights=np.full((depth, DIM), 127, np.int8),
    )


# --- TFLite ------------------------------------------------------------------------------------------

_TYPES = {
    "float32": schema.TensorType.FLOAT32,
    "float16": schema.TensorType.FLOAT16,
    "int4": schema.TensorType.INT4,
    "int32": schema.TensorType.INT32,
    "uint8": schema.TensorType.UINT8,
}


class _Lite:
    """A TFLite graph under construction."""

    def __init__(self) -> None:
        self.model = schema.ModelT()
        self.model.version = 3
        self.model.buffers = [schema.BufferT()]
        self.model.operatorCodes = []
        self.graph = schema.SubGraphT()
        self.graph.tensors, self.graph.operators = [], []
        self.model.subgraphs = [self.graph]

    def tensor(self, name: str, dtype: str, shape: tuple[int, ...], data: NDArray[Any] | None = None) -> int:
        tensor = schema.TensorT()
        tensor.name, tensor.type, tensor.shape = name.encode(), _TYPES[dtype], list(shape)
        tensor.buffer = 0
        if data is not None:
            buffer = schema.BufferT()
            buffer.data = np.frombuffer(data.tobytes(), np.uint8)
            self.model.buffers.append(buffer)
            tensor.buffer = len(self.model.buffers) - 1
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def operator(self, name: str, inputs: list[int], output: int, options: str = "") -> None:
        code = schema.OperatorCodeT()
        code.builtinCode = getattr(schema.BuiltinOperator, name)
        code.deprecatedBuiltinCode = code.builtinCode
        code.version = 1
        self.model.operatorCodes.append(code)
        operator = schema.OperatorT()
        operator.opcodeIndex = len(self.model.operatorCodes) - 1
        operator.inputs, operator.outputs = inputs, [output]
        if options:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(schema, f"{options}T")()
        self.graph.operators.append(operator)

    def save(self, path: Path, inputs: dict[str, int], outputs: dict[str, int], signed: bool = True) -> None:
        self.graph.inputs, self.graph.outputs = list(inputs.values()), list(outputs.values())
        if signed:
            signature = schema.SignatureDefT()
            signature.signatureKey, signature.subgraphIndex = b"serving_default", 0
            signature.inputs, signature.outputs = (
                [_tensor_map(name, place) for name, place in tensors.items()] for tensors in (inputs, outputs)
            )
            self.model.signatureDefs = [signature]
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        path.write_bytes(bytes(builder.Output()))


def _tensor_map(name: str, place: int) -> Any:
    entry = schema.TensorMapT()
    entry.name, entry.tensorIndex = name.encode(), place
    return entry


def tflite_image_graph(path: Path) -> None:
    """pixels uint8 [1, H, W, 3] -> embedding."""
    lite = _Lite()
    pixels = lite.tensor("serving_default_pixels", "uint8", (1, SIZE, SIZE, 3))
    floats = lite.tensor("floats", "float32", (1, SIZE, SIZE, 3))
    lite.operator("CAST", [pixels], floats, "CastOptions")
    shape = lite.tensor("shape", "int32", (2,), np.asarray([1, SIZE * SIZE * 3], np.int32))
    row = lite.tensor("row", "float32", (1, SIZE * SIZE * 3))
    lite.operator("RESHAPE", [floats, shape], row, "ReshapeOptions")
    weights = lite.tensor("weights", "float32", (DIM, SIZE * SIZE * 3), IMAGE_WEIGHTS.T)
    raw = lite.tensor("raw", "float32", (1, DIM))
    lite.operator("FULLY_CONNECTED", [row, weights, -1], raw, "FullyConnectedOptions")
    out = lite.tensor("StatefulPartitionedCall_output", "float32", (1, DIM))
    lite.operator("L2_NORMALIZATION", [raw], out, "L2NormOptions")
    lite.save(path, {"pixels": pixels}, {"embedding": out})


def tflite_text_graph(path: Path) -> None:
    """ids int32 [1, T] -> embedding."""
    lite = _Lite()
    ids = lite.tensor("serving_default_ids", "int32", (1, LENGTH))
    table = lite.tensor("table", "float32", TOKEN_TABLE.shape, TOKEN_TABLE)
    tokens = lite.tensor("tokens", "float32", (1, LENGTH, DIM))
    lite.operator("GATHER", [table, ids], tokens, "GatherOptions")
    axis = lite.tensor("axis", "int32", (1,), np.asarray([1], np.int32))
    raw = lite.tensor("raw", "float32", (1, DIM))
    lite.operator("SUM", [tokens, axis], raw, "ReducerOptions")
    out = lite.tensor("StatefulPartitionedCall_output", "float32", (1, DIM))
    lite.operator("L2_NORMALIZATION", [raw], out, "L2NormOptions")
    lite.save(path, {"ids": ids}, {"embedding": out})


def tflite_fusion_graph(path: Path, loudness: float = 0.0005) -> None:
    """pixels uint8 [1, H, W, 3], ids int32 [1, T] -> logits."""
    lite = _Lite()
    pixels = lite.tensor("serving_default_pixels", "uint8", (1, SIZE, SIZE, 3))
    ids = lite.tensor("serving_default_ids", "int32", (1, LENGTH))
    floats = lite.tensor("floats", "float32", (1, SIZE, SIZE, 3))
    lite.operator("CAST", [pixels], floats, "CastOptions")
    shape = lite.tensor("shape", "int32", (2,), np.asarray([1, SIZE * SIZE * 3], np.int32))
    row = lite.tensor("row", "float32", (1, SIZE * SIZE * 3))
    lite.operator("RESHAPE", [floats, shape], row, "ReshapeOptions")
    quiet = np.asarray(IMAGE_WEIGHTS.T * np.float32(loudness), np.float32)
    weights = lite.tensor("weights", "float32", quiet.shape, quiet)
    seen = lite.tensor("seen", "float32", (1, DIM))
    lite.operator("FULLY_CONNECTED", [row, weights, -1], seen, "FullyConnectedOptions")
    table = lite.tensor("table", "float32", TOKEN_TABLE.shape, TOKEN_TABLE)
    tokens = lite.tensor("tokens", "float32", (1, LENGTH, DIM))
    lite.operator("GATHER", [table, ids], tokens, "GatherOptions")
    axis = lite.tensor("axis", "int32", (1,), np.asarray([1], np.int32))
    read = lite.tensor("read", "float32", (1, DIM))
    lite.operator("SUM", [tokens, axis], read, "ReducerOptions")
    out = lite.tensor("StatefulPartitionedCall_output", "float32", (1, DIM))
    lite.operator("ADD", [seen, read], out, "AddOptions")
    lite.save(path, {"pixels": pixels, "ids": ids}, {"logits": out})


def tflite_seeing_graph(path: Path, loudness: float = 0.0005) -> None:
    """pixels uint8 [1, H, W, 3] -> embedding, hidden."""
    lite = _Lite()
    pixels = lite.tensor("serving_default_pixels", "uint8", (1, SIZE, SIZE, 3))
    floats = lite.tensor("floats", "float32", (1, SIZE, SIZE, 3))
    lite.operator("CAST", [pixels], floats, "CastOptions")
    shape = lite.tensor("shape", "int32", (2,), np.asarray([1, SIZE * SIZE * 3], np.int32))
    row = lite.tensor("row", "float32", (1, SIZE * SIZE * 3))
    lite.operator("RESHAPE", [floats, shape], row, "ReshapeOptions")
    quiet = np.asarray(IMAGE_WEIGHTS.T * np.float32(loudness), np.float32)
    weights = lite.tensor("weights", "float32", quiet.shape, quiet)
    seen = lite.tensor("seen", "float32", (1, DIM))
    lite.operator("FULLY_CONNECTED", [row, weights, -1], seen, "FullyConnectedOptions")
    out = lite.tensor("embedding", "float32", (1, DIM))
    lite.operator("L2_NORMALIZATION", [seen], out, "L2NormOptions")
    by_position = lite.tensor("by_position", "int32", (3,), np.asarray([1, *HIDDEN], np.int32))
    hidden = lite.tensor("hidden", "float32", (1, *HIDDEN))
    lite.operator("RESHAPE", [seen, by_position], hidden, "ReshapeOptions")
    lite.save(path, {"pixels": pixels}, {"embedding": out, "hidden": hidden})


def tflite_fit_graph(path: Path) -> None:
    """hidden float32 [1, *HIDDEN], ids int32 [1, T] -> logits."""
    lite = _Lite()
    hidden = lite.tensor("serving_default_hidden", "float32", (1, *HIDDEN))
    ids = lite.tensor("serving_default_ids", "int32", (1, LENGTH))
    shape = lite.tensor("shape", "int32", (2,), np.asarray([1, DIM], np.int32))
    seen = lite.tensor("seen", "float32", (1, DIM))
    lite.operator("RESHAPE", [hidden, shape], seen, "ReshapeOptions")
    table = lite.tensor("table", "float32", TOKEN_TABLE.shape, TOKEN_TABLE)
    tokens = lite.tensor("tokens", "float32", (1, LENGTH, DIM))
    lite.operator("GATHER", [table, ids], tokens, "GatherOptions")
    axis = lite.tensor("axis", "int32", (1,), np.asarray([1], np.int32))
    read = lite.tensor("read", "float32", (1, DIM))
    lite.operator("SUM", [tokens, axis], read, "ReducerOptions")
    both = lite.tensor("both", "float32", (1, DIM))
    lite.operator("ADD", [seen, read], both, "AddOptions")
    weights = lite.tensor("weights", "float32", (2, DIM), np.ascontiguousarray(FIT_WEIGHTS.T))
    out = lite.tensor("StatefulPartitionedCall_output", "float32", (1, 2))
    lite.operator("FULLY_CONNECTED", [both, weights, -1], out, "FullyConnectedOptions")
    lite.save(path, {"hidden": hidden, "ids": ids}, {"logits": out})


def tflite_difference_graph(path: Path, names: tuple[str, str] | None, swapped: bool = False) -> None:
    """Two int32 [1, 4] -> the first minus the second; `names` are the signature's, None for no signature.

    With `swapped`, the graph lists the second before the first.
    """
    lite = _Lite()
    first = lite.tensor("serving_default_args_0", "int32", (1, 4))
    second = lite.tensor("serving_default_args_1", "int32", (1, 4))
    out = lite.tensor("PartitionedCall", "int32", (1, 4))
    lite.operator("SUB", [first, second], out, "SubOptions")
    inputs = dict(zip(names or ("", "-"), (first, second), strict=True))
    if swapped:
        inputs = dict(reversed(inputs.items()))
    lite.save(path, inputs, {"embedding": out}, signed=names is not None)


BLOCK = 32
BLOCK_WEIGHTS = _rng.integers(-7, 8, (DIM, 2 * BLOCK))
BLOCK_SCALES = np.asarray(2.0 ** _rng.integers(-6, 0, (DIM, 2)), np.float16)


def blocks_product(x: Floats) -> Floats:
    """What the graph of blocks computes, of float32 [1, 2 BLOCK]: [1, DIM]."""
    return np.asarray(x @ (BLOCK_WEIGHTS * np.repeat(BLOCK_SCALES, BLOCK, axis=1)).T, np.float32)


def tflite_blocks_graph(path: Path) -> None:
    """x float32 [1, 2 BLOCK] -> y [1, DIM]; weights of 4 bits in blocks, each with a scale of its own."""
    lite = _Lite()
    x = lite.tensor("x", "float32", (1, 2 * BLOCK))
    halves = BLOCK_WEIGHTS.astype(np.uint8) & 15
    weights = lite.tensor("weights", "int4", (DIM, 2 * BLOCK), halves[:, 0::2] | (halves[:, 1::2] << 4))
    blocks = schema.BlockwiseQuantizationT()
    blocks.scales, blocks.zeroPoints, blocks.blockSize = (
        lite.tensor("scales", "float16", BLOCK_SCALES.shape, BLOCK_SCALES),
        -1,
        BLOCK,
    )
    quantization = schema.QuantizationParametersT()
    quantization.detailsType = schema.QuantizationDetails.BlockwiseQuantization
    quantization.details = blocks
    lite.graph.tensors[weights].quantization = quantization
    y = lite.tensor("y", "float32", (1, DIM))
    lite.operator("FULLY_CONNECTED", [x, weights, -1], y, "FullyConnectedOptions")
    lite.save(path, {"x": x}, {"y": y})
