"""Graphs that are not what was written, though their checksums are right: an answer or an error."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import onnx
from ai_edge_litert import schema_py_generated as schema

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.manifest import MANIFEST_FILE
from tests.fuzz.bundles import ask_variant, reseal_file
from tests.fuzz.mutations import damage
from tests.fuzz.target import Case
from tests.runtime.bundles import write_bundle

_SIZES = (0, 1, 2, 7, 8, 13, 12, 16, 768, -1, -2, 2**16, 2**31 - 1)
_ONNX_OPS = (
    "Add",
    "Gather",
    "Reshape",
    "Conv",
    "Concat",
    "Squeeze",
    "Loop",
    "If",
    "Identity",
    "Cast",
    "TopK",
    "NoSuch",
)
_LITE_OPS = (
    "ADD",
    "GATHER",
    "RESHAPE",
    "CONV_2D",
    "SPLIT",
    "WHILE",
    "CUSTOM",
    "EMBEDDING_LOOKUP",
    "TRANSPOSE",
    "PAD",
)


class Graphs:
    """One damaged graph in a bundle: its bytes, or what stands in it."""

    name = "graphs"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._whole = write_bundle(folder / "whole")
        self._copy = Path(shutil.copytree(self._whole, folder / "bundle"))
        paths = sorted((self._whole / "graphs").iterdir())
        self._graphs = {path.name: path.read_bytes() for path in paths}
        for engine in ("onnxruntime", "ai_edge_litert.interpreter"):
            import_module(engine)  # or each new process would import it anew

    def make(self, rng: random.Random) -> Case:
        """A graph that another writer could have written, or one with damaged bytes."""
        name = rng.choice(sorted(self._graphs))
        data = self._graphs[name]
        if rng.random() < 0.3:
            content, what = damage(rng, data, rng.choice((1, 1, 2)))
        else:
            content, what = _EDITS[Path(name).suffix](rng, data)
        return Case(f"{name}: {what}", {f"graphs/{name}": content})

    def check(self, case: Case) -> str:
        """Loads the graph's variant, and asks it."""
        ((path, content),) = case.files.items()
        _, precision, engine = Path(path).name.split(".")
        try:
            (self._copy / path).write_bytes(content)
            reseal_file(self._copy, path, content)
            return f"{engine}: {ask_variant(Bundle.open(self._copy), f'{engine}-{precision}')}"
        finally:
            for name in (path, MANIFEST_FILE):
                shutil.copy(self._whole / name, self._copy / name)


def _edit_onnx(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Changes an ONNX graph in up to three places."""
    model = onnx.load_from_string(data)
    told = [rng.choice(_ONNX_EDITS)(rng, model.graph) for _ in range(rng.choice((1, 1, 2, 3)))]
    return model.SerializeToString(), ", ".join(told)


def _onnx_weights(rng: random.Random, graph: Any) -> str:
    weights = rng.choice(graph.initializer)
    what = rng.choice(("dims", "type", "short", "values", "name"))
    if what == "dims":
        weights.dims[:] = [rng.choice(_SIZES) for _ in range(rng.choice((0, 1, 2, len(weights.dims))))]
    elif what == "type":
        weights.data_type = rng.choice((0, 1, 2, 3, 6, 7, 8, 9, 10, 16, 22, 99))
    elif what == "short":
        weights.raw_data = weights.raw_data[: rng.randrange(len(weights.raw_data))]
    elif what == "values":
        length = len(weights.raw_data)
        weights.raw_data = rng.choice((rng.randbytes(length), b"\xff" * length, b"\x7f" * length))
    else:
        weights.name = rng.choice(("", "pixels", "embedding"))
    return f"weights {weights.name!r}: other {what} {list(weights.dims)} {weights.data_type}"


def _onnx_node(rng: random.Random, graph: Any) -> str:
    place = rng.randrange(len(graph.node))
    node = graph.node[place]
    what = rng.choice(("op", "input", "output", "more", "gone", "twice", "attribute"))
    names = [name for each in graph.node for name in (*each.input, *each.output)]
    if what == "op":
        node.op_type = rng.choice(_ONNX_OPS)
    elif what == "input":
        node.input[rng.randrange(len(node.input))] = rng.choice((*names, "", "none"))
    elif what == "output":
        node.output[0] = rng.choice((*names, ""))
    elif what == "more":
        node.input.append(rng.choice(names))
    elif what == "gone":
        del graph.node[place]
    elif what == "twice":
        graph.node.append(node)
    else:
        value = rng.choice((rng.choice(_SIZES), float("nan"), "x", [rng.choice(_SIZES)] * 3))
        node.attribute.append(
            onnx.helper.make_attribute(rng.choice(("axis", "to", "keepdims", "axes", "perm")), value)
        )
    return f"node {place}: {what}"


def _onnx_port(rng: random.Random, graph: Any) -> str:
    port = rng.choice((*graph.input, *graph.output))
    tensor = port.type.tensor_type
    what = rng.choice(("size", "symbol", "rank", "type"))
    if what == "type":
        tensor.elem_type = rng.choice((1, 2, 3, 6, 7, 8, 10))
    elif what == "rank":
        tensor.shape.dim.add().dim_value = 1
    else:
        size = rng.choice(tensor.shape.dim)
        if what == "symbol":
            size.dim_param = "n"
        else:
            size.dim_value = rng.choice(_SIZES)
    return f"port {port.name!r}: {what}"


_ONNX_EDITS: tuple[Callable[[random.Random, Any], str], ...] = (_onnx_weights, _onnx_node, _onnx_port)


def _edit_lite(rng: random.Random, data: bytes) -> tuple[bytes, str]:
    """Changes a TFLite graph in up to three places."""
    model = schema.ModelT.InitFromPackedBuf(data, 0)
    told = [rng.choice(_LITE_EDITS)(rng, model) for _ in range(rng.choice((1, 1, 2, 3)))]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output()), ", ".join(told)


def _lite_tensor(rng: random.Random, model: Any) -> str:
    tensors = model.subgraphs[0].tensors
    place = rng.randrange(len(tensors))
    tensor = tensors[place]
    what = rng.choice(("shape", "shape", "type", "buffer", "variable"))
    if what == "shape":
        rank = rng.choice((0, 1, 2, len(tensor.shape), len(tensor.shape)))
        tensor.shape = np.asarray([rng.choice(_SIZES) for _ in range(rank)], np.int32)
    elif what == "type":
        tensor.type = rng.randrange(20)
    elif what == "buffer":
        tensor.buffer = rng.choice((*range(len(model.buffers)), 99, 2**32 - 1))
    else:
        tensor.isVariable = True
    return f"tensor {place}: {what} {_numbers(tensor.shape)} {tensor.type} {tensor.buffer}"


def _lite_operator(rng: random.Random, model: Any) -> str:
    graph = model.subgraphs[0]
    place = rng.randrange(len(graph.operators))
    operator = graph.operators[place]
    what = rng.choice(("inputs", "inputs", "outputs", "op", "code", "gone", "twice", "options"))
    index = rng.choice((*range(len(graph.tensors)), -1, -2, 99, 2**31 - 1))
    if what == "inputs":
        inputs = _numbers(operator.inputs)
        inputs[rng.randrange(len(inputs))] = index
        operator.inputs = inputs[: rng.choice((0, 1, len(inputs), len(inputs)))]
    elif what == "outputs":
        operator.outputs = [index] * rng.choice((0, 1, 1, 2))
    elif what == "op":
        operator.opcodeIndex = rng.choice((*range(len(model.operatorCodes)), 99))
    elif what == "code":
        code = rng.choice(model.operatorCodes)
        code.builtinCode = getattr(schema.BuiltinOperator, rng.choice(_LITE_OPS))
        code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    elif what == "gone":
        del graph.operators[place]
    elif what == "twice":
        graph.operators.append(operator)
    else:
        operator.builtinOptionsType, operator.builtinOptions = 0, None
    return f"operator {place}: {what} {_numbers(operator.inputs)} -> {_numbers(operator.outputs)}"


def _numbers(array: Any) -> list[int]:
    return [int(number) for number in array]


def _lite_buffer(rng: random.Random, model: Any) -> str:
    place = rng.randrange(len(model.buffers))
    buffer = model.buffers[place]
    held = b"" if buffer.data is None else bytes(bytearray(buffer.data))
    what = rng.choice(("short", "empty", "values", "ones"))
    content = {"short": held[: len(held) // 2], "empty": b"", "ones": b"\xff" * len(held)}.get(what)
    content = rng.randbytes(len(held)) if content is None else content
    buffer.data = np.frombuffer(content, np.uint8) if content else None
    return f"buffer {place} of {len(held)} bytes: {what}"


def _lite_ports(rng: random.Random, model: Any) -> str:
    graph = model.subgraphs[0]
    what = rng.choice(("inputs", "outputs", "no signature", "signature"))
    index = rng.choice((*range(len(graph.tensors)), -1, 99))
    if what == "inputs":
        graph.inputs = [index] * rng.choice((0, 1, 2))
    elif what == "outputs":
        graph.outputs = [index] * rng.choice((0, 1, 2))
    elif what == "signature" and model.signatureDefs:
        model.signatureDefs[0].inputs[0].tensorIndex = max(index, 0)
    else:
        model.signatureDefs = None
    return f"{what}: tensor {index}"


_LITE_EDITS: tuple[Callable[[random.Random, Any], str], ...] = (
    _lite_tensor,
    _lite_operator,
    _lite_buffer,
    _lite_ports,
)
_EDITS: Mapping[str, Callable[[random.Random, bytes], tuple[bytes, str]]] = {
    ".onnx": _edit_onnx,
    ".tflite": _edit_lite,
}
