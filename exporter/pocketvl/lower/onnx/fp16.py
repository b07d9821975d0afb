"""The fp16 variant of a float ONNX graph: weights stored as fp16, cast to float32 when an engine loads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from pocketvl.errors import LoweringError
from pocketvl.lower.onnx.files import read_onnx, write_onnx
from pocketvl.lower.onnx.graph import check_ops_onnx

_LEAST_SIZE = 16
"""Smaller tensors save nothing; many are the epsilons and factors of the arithmetic around the weights."""


def cast_fp16_onnx(source: Path, target: Path) -> None:
    """Store the weights of a float ONNX graph as fp16, each followed by a Cast to float32.

    Engines fold the casts when they load the graph, so that all is computed in float32, with rounded weights.
    Vectors, as biases and what LayerNorms scale by, stay in float32.

    Args:
        source: a float graph as `export_onnx` writes it.
        target: where the .onnx file with fp16 weights is written.

    Raises:
        LoweringError: the graph has nothing to cast, or a weight lies beyond fp16's range.
    """
    model = read_onnx(source, weights=True)
    graph = model.graph
    tensors, casts = [], []
    for tensor in graph.initializer:
        if _is_weight(tensor):
            half = _halved(tensor, source.name)
            casts.append(helper.make_node("Cast", [half.name], [tensor.name], half.name, to=tensor.data_type))
            tensors.append(half)
        else:
            tensors.append(tensor)
    if not casts:
        raise LoweringError(f"{source.name} has no weights that could be cast to fp16")
    nodes = [*casts, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(tensors)
    graph.node.extend(nodes)
    write_onnx(model, target)
    check_ops_onnx(target)


def _is_weight(tensor: onnx.TensorProto) -> bool:
    matrix = len(tensor.dims) > 1 and np.prod(tensor.dims) >= _LEAST_SIZE
    return bool(tensor.data_type == onnx.TensorProto.FLOAT and matrix)


def _halved(tensor: onnx.TensorProto, where: str) -> onnx.TensorProto:
    """The nearest fp16 numbers; infinities, as masks hold them, stay what they are."""
    values = numpy_helper.to_array(tensor)
    with np.errstate(over="ignore"):
        half = values.astype(np.float16)
    if np.any(np.isinf(half) & ~np.isinf(values)):
        raise LoweringError(
            f"{where}: {tensor.name} holds {np.abs(values[np.isfinite(values)]).max():.3g}, and fp16 ends at "
            "65504; leave this model in float32"
        )
    return numpy_helper.from_array(half, f"{tensor.name}_fp16")
