"""The oldest TensorFlow Lite or LiteRT that computes a .tflite file rightly.

A file says of each op which version of it the engine must have. Where a converter wrote a float graph, that
says all. Where a quantizer then changed the types of an op, it does not: ai-edge-quantizer leaves version and
`min_runtime_version` as they were, and an engine that opens the file may take weights with a scale per
channel for a tensor with one. So the types of quantized ops count too.

Versions here are as `min_engine` counts them: 0.N is TensorFlow Lite 2.N; LiteRT, which came after TensorFlow
Lite 2.17, has its own numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ai_edge_litert.tools import flatbuffer_utils

from pocketvl.lower.least_engine import LeastEngine, newest
from pocketvl.lower.tflite.graph import op_name, read_tflite, text_of
from pocketvl_runtime.backends.versions import distribution, release

# Per op and version of it: the N of the first TensorFlow Lite 2.N that has it, 0 for those before 2.1.
# Source: tflite/converter/tools/versioning/runtime_version.cc of google-ai-edge/LiteRT (119ae63), where the
# same numbers stand as in TensorFlow's file of that name. Here are the ops that lowered graphs hold, and of
# their versions those that were there before TensorFlow Lite became LiteRT.
_OP_VERSIONS = MappingProxyType(
    {
        "ADD": (0, 0, 4, 6, 13),
        "BATCH_MATMUL": (3, 3, 4, 5),
        "CAST": (0, 7, 8, 9, 12, 15, 17),
        "CONCATENATION": (0, 0, 3, 14),
        "CONV_2D": (0, 0, 0, 3, 4, 9, 11, 15),
        "DEPTHWISE_CONV_2D": (0, 0, 0, 2, 3, 3, 11),
        "DEQUANTIZE": (0, 0, 0, 2, 7),
        "DIV": (0, 3),
        "EMBEDDING_LOOKUP": (0, 0, 0),
        "EQUAL": (0, 0, 3, 13),
        "FULLY_CONNECTED": (0, 0, 0, 0, 0, 1, 3, 3, 3, 11, 15, 17),
        "GATHER_ND": (0, 3, 5),
        "GELU": (9, 9),
        "LOGISTIC": (0, 0, 3),
        "MAXIMUM": (0, 0, 3, 3),
        "MEAN": (0, 0, 4),
        "MUL": (0, 0, 0, 3, 6, 11, 13),
        "NOT_EQUAL": (0, 0, 3),
        "PAD": (0, 0, 4, 6),
        "QUANTIZE": (0, 0, 7),
        "REDUCE_MAX": (0, 0, 5),
        "REDUCE_MIN": (0, 0, 5),
        "RESHAPE": (0,),
        "RSQRT": (0, 5, 15),
        "SLICE": (0, 0, 0, 4, 5, 14),
        "SOFTMAX": (0, 0, 3),
        "SQRT": (0,),
        "SQUARED_DIFFERENCE": (0, 5),
        "SUB": (0, 0, 3, 4, 4),
        "SUM": (0, 0),
        "TANH": (0, 0, 3),
        "TRANSPOSE": (0, 0, 0, 3, 4, 12, 15),  # the seventh: "2.14.4", which was never released
    }
)

_PLAIN = ("FLOAT32", "INT32", "BOOL", "UINT8")
"""Types that an op's version tells of: a converter wrote both."""
_PER_TENSOR, _PER_CHANNEL, _BLOCKS = "INT8", "INT8 with a scale per channel", "INT4 in blocks"

# By op and the other types in it. "Measured": see pocketvl_runtime/backends/versions.py; the rest are the
# versions that the same source has for the op versions which op_version.cc beside it gives to such types.
_CHANNELS_OF_LINEARS = "0.16"  # measured: TensorFlow 2.12 to 2.15 are wrong, 2.16 and LiteRT 1.0 right
_QUANTIZED_OPS = MappingProxyType(
    {
        ("BATCH_MATMUL", (_PER_TENSOR,)): "0.3",
        ("CONV_2D", (_PER_TENSOR,)): "0.0",
        ("CONV_2D", (_PER_CHANNEL,)): "0.4",
        ("CONV_2D", (_PER_TENSOR, _PER_CHANNEL)): "0.0",
        ("DEPTHWISE_CONV_2D", (_PER_TENSOR,)): "0.0",
        ("DEPTHWISE_CONV_2D", (_PER_TENSOR, _PER_CHANNEL)): "0.0",
        ("DEQUANTIZE", ("FLOAT16",)): "0.14",  # measured: TensorFlow 2.12 and 2.13 cannot run some
        ("DEQUANTIZE", (_PER_TENSOR,)): "0.0",
        ("DEQUANTIZE", (_PER_CHANNEL,)): "0.7",
        ("FULLY_CONNECTED", (_PER_TENSOR,)): "0.3",
        ("FULLY_CONNECTED", (_PER_CHANNEL,)): _CHANNELS_OF_LINEARS,
        ("FULLY_CONNECTED", (_PER_TENSOR, _PER_CHANNEL)): _CHANNELS_OF_LINEARS,
        ("FULLY_CONNECTED", (_BLOCKS,)): "2.1",  # measured: TensorFlow 2.20 and LiteRT 2.0 are wrong
        ("QUANTIZE", (_PER_TENSOR,)): "0.0",
    }
)


def least_engine_tflite(path: Path) -> LeastEngine:
    """The oldest engine that is known to compute a .tflite file rightly, and the op that asks for it.

    Of an op that is not in the tables: the LiteRT that is installed here, which has opened the file or will.

    Raises:
        LoweringError: the file cannot be read.
    """
    found = newest(_asked_for(read_tflite(path, weights=False), path.name))
    return found or LeastEngine("0.0", f"{path.name}: it holds no op")


def _asked_for(model: Any, file: str) -> Iterator[LeastEngine]:
    for graph in model.subgraphs:
        for op in graph.operators:
            name, version = op_name(model, op), model.operatorCodes[op.opcodeIndex].version
            minors = _OP_VERSIONS.get(name, ())
            if not 1 <= version <= len(minors):
                yield _unknown(f"{file}: {name} of version {version}")
                continue
            yield LeastEngine(f"0.{minors[version - 1]}", f"{file}: {name} of version {version}")
            others = _other_types(graph, op)
            if others:
                known = _QUANTIZED_OPS.get((name, others))
                what = f"{file}: {name} of {' and '.join(others)}"
                yield LeastEngine(known, what) if known else _unknown(what)


def _other_types(graph: Any, op: Any) -> tuple[str, ...]:
    """The types of an op's tensors that are not plain, each once: first those of numbers with one scale."""
    tensors = [graph.tensors[index] for index in (*op.inputs, *op.outputs) if index >= 0]
    found = {_type_of(tensor) for tensor in tensors} - set(_PLAIN)
    return tuple(sorted(found))


def _type_of(tensor: Any) -> str:
    name, grid = text_of(flatbuffer_utils.type_to_name(tensor.type)), tensor.quantization
    if grid is not None and grid.details is not None:
        return f"{name} in blocks"
    scales = 0 if grid is None or grid.scale is None else len(grid.scale)
    return f"{name} with a scale per channel" if scales > 1 and name not in _PLAIN else name


def _unknown(what: str) -> LeastEngine:
    name, installed = distribution("ai_edge_litert")
    version = ".".join(map(str, release(installed)))
    return LeastEngine(version, f"{what}: of {name} before {version} it is not known")
