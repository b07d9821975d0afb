"""What a lowered graph holds: its op types with counts, and its inputs and outputs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvl.errors import LoweringError
from pocketvl_runtime.manifest import TensorSpec

if TYPE_CHECKING:
    import onnx

BLOCKS_DOMAIN, BLOCKS_OP = "com.microsoft", "MatMulNBits"
"""ONNX Runtime's product with weights of 4 bits in blocks, for which ai.onnx has nothing that is fast."""

_ONNX_DOMAINS = ("", "ai.onnx")
_ALLOWED = (f"{BLOCKS_DOMAIN}::{BLOCKS_OP}",)
_TFLITE_CUSTOM = "CUSTOM"


@dataclass(frozen=True)
class GraphIO:
    """A graph's inputs and outputs, in order, under the names that callers use; and a TFLite's signature."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signature: str | None = None


def op_counts(path: Path) -> dict[str, int]:
    """Counts the ops of a .onnx or .tflite file by type.

    Args:
        path: the graph file; its suffix tells the format.

    Returns:
        Op type -> count, by name. A foreign ONNX op is "domain::Type", a custom TFLite op "CUSTOM:Name".

    Raises:
        LoweringError: the file is neither, or cannot be read.
    """
    if path.suffix == ".onnx":
        names = [_onnx_name(node) for node in read_onnx(path).graph.node]
    else:
        model = read_tflite(path)
        names = [op_name(model, op) for graph in model.subgraphs for op in graph.operators]
    return dict(sorted(Counter(names).items()))


def foreign_ops(path: Path) -> tuple[str, ...]:
    """The ops that only some engines run: outside ai.onnx, or Flex and custom ops of TFLite.

    One op outside ai.onnx is none of them: com.microsoft's MatMulNBits, which every official build of ONNX
    Runtime has.
    """
    return tuple(
        name
        for name in op_counts(path)
        if name not in _ALLOWED and ("::" in name or name.startswith(_TFLITE_CUSTOM))
    )


def check_ops(path: Path) -> None:
    """Raises LoweringError, naming them, where the graph holds ops that not every engine runs."""
    foreign = foreign_ops(path)
    if foreign:
        raise LoweringError(
            f"{path.name} holds ops that the device's engine does not run: {', '.join(foreign)}; "
            "write that part of the module in plain tensor ops"
        )


def graph_io(path: Path) -> GraphIO:
    """Reads the inputs and outputs of a .onnx file, or of the one signature of a .tflite file.

    Raises:
        LoweringError: the file cannot be read, has dynamic shapes, or (TFLite) not exactly one signature.
    """
    if path.suffix == ".onnx":
        import onnx

        graph = read_onnx(path).graph
        constants = {tensor.name for tensor in graph.initializer}
        return GraphIO(
            tuple(_onnx_spec(value, path, onnx) for value in graph.input if value.name not in constants),
            tuple(_onnx_spec(value, path, onnx) for value in graph.output),
        )
    model = read_tflite(path)
    signatures = model.signatureDefs or []
    if len(signatures) != 1:
        raise LoweringError(f"{path.name} has {len(signatures)} signatures; exactly one is needed")
    (signature,) = signatures
    tensors = model.subgraphs[signature.subgraphIndex].tensors
    return GraphIO(
        tuple(_tflite_spec(entry, tensors, path) for entry in signature.inputs),
        tuple(_tflite_spec(entry, tensors, path) for entry in signature.outputs),
        text_of(signature.signatureKey),
    )


def read_onnx(path: Path) -> onnx.ModelProto:
    """Reads a .onnx file.

    Raises:
        LoweringError: the file cannot be read.
    """
    import onnx

    try:
        return onnx.load(path)
    except Exception as error:  # protobuf's DecodeError, OSError, ...
        raise LoweringError(f"{path} is not a readable ONNX file: {error}") from error


def read_tflite(path: Path) -> Any:
    """Reads a .tflite file into flatbuffers' object tree (ModelT).

    Raises:
        LoweringError: the file cannot be read.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    try:
        content = path.read_bytes()
        if content[4:8] != b"TFL3":
            raise LoweringError(f"{path} is not a TFLite file")
        return flatbuffer_utils.read_model_from_bytearray(bytearray(content))
    except LoweringError:
        raise
    except Exception as error:  # flatbuffers fail wherever the bytes first make no sense
        raise LoweringError(f"{path} is not a readable TFLite file: {error}") from error


def op_name(model: Any, op: Any) -> str:
    """The type of an op of a TFLite object tree; "CUSTOM:Name" for one that is not built in."""
    from ai_edge_litert.tools import flatbuffer_utils

    code = model.operatorCodes[op.opcodeIndex]
    builtin = str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))
    custom = code.customCode
    if custom is None:
        return builtin
    return f"{_TFLITE_CUSTOM}:{text_of(custom)}"


def text_of(name: bytes | str) -> str:
    """A name out of a TFLite object tree, which holds some as bytes."""
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else name


def _onnx_name(node: onnx.NodeProto) -> str:
    return node.op_type if node.domain in _ONNX_DOMAINS else f"{node.domain}::{node.op_type}"


def _onnx_spec(value: onnx.ValueInfoProto, path: Path, onnx: Any) -> TensorSpec:
    tensor = value.type.tensor_type
    shape = tuple(dim.dim_value for dim in tensor.shape.dim)
    if not tensor.HasField("shape") or not all(shape):
        raise LoweringError(f"{path.name}: {value.name} has a dynamic shape; lower it with static shapes")
    return TensorSpec(value.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name, shape)


def _tflite_spec(entry: Any, tensors: list[Any], path: Path) -> TensorSpec:
    from ai_edge_litert.tools import flatbuffer_utils

    tensor = tensors[entry.tensorIndex]
    name = text_of(entry.name)
    signature = tensor.shapeSignature
    if signature is not None and any(side < 0 for side in signature):
        raise LoweringError(f"{path.name}: {name} has a dynamic shape; lower it with static shapes")
    return TensorSpec(
        name,
        flatbuffer_utils.type_to_name(tensor.type).lower(),
        tuple(int(side) for side in (tensor.shape if tensor.shape is not None else ())),
    )
