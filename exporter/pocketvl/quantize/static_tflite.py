"""Static int8 for TFLite: linears and convolutions between integers, an int8 token table, the rest float."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl.errors import LoweringError
from pocketvl.quantize.arithmetic import Range
from pocketvl.quantize.calibrate import Feed, Progress, observe_tflite

_LAYERS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D")
_TABLE = "EMBEDDING_LOOKUP"


def quantize_static_tflite(
    src: Path, dst: Path, feeds: Iterable[Feed], progress: Progress | None = None
) -> tuple[str, ...]:
    """Quantizes a float TFLite graph to static int8.

    Activations of linears and convolutions are int8, one asymmetric grid a tensor; weights int8, one
    symmetric grid an output channel; the token table int8, weights only.

    Args:
        src: a float graph of one signature, as `export_tflite` writes it.
        dst: where the int8 graph is written.
        feeds: calibration samples: per sample, the signature's inputs by name; read once.
        progress: called after each sample.

    Returns:
        Names of the weights that are int8 now.

    Raises:
        DataError: the samples cannot be used.
        LoweringError: the graph bears no weights that could be quantized.
    """
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(src))
    ops = [(_kind(model, op), op) for op in model.subgraphs[0].operators]
    present = {kind for kind, _ in ops}
    if not present & {*_LAYERS, _TABLE}:
        raise LoweringError(f"{src.name} holds no linear, convolution or token table")
    tensors = model.subgraphs[0].tensors
    wanted: dict[str, int] = {}
    weights: dict[str, None] = {}
    for kind, op in ops:
        if kind in _LAYERS or kind == _TABLE:
            weights[_name(tensors[op.inputs[1]])] = None
        if kind in _LAYERS:
            for index in (int(op.inputs[0]), int(op.outputs[0])):
                wanted[_name(tensors[index])] = index
    ranges = observe_tflite(src, wanted, feeds, progress)
    dst.write_bytes(_quantize(src, present, {name: _statistics(seen) for name, seen in ranges.items()}))
    return tuple(weights)


def _quantize(src: Path, present: set[str], statistics: dict[str, dict[str, Any]]) -> bytes:
    from ai_edge_quantizer import qtyping, quantizer

    tool = quantizer.Quantizer(str(src))
    for kind in sorted(present & set(_LAYERS)):
        tool.add_static_config(".*", qtyping.TFLOperationName(kind), activation_num_bits=8, weight_num_bits=8)
    if _TABLE in present:
        tool.add_weight_only_config(".*", qtyping.TFLOperationName.EMBEDDING_LOOKUP, num_bits=8)
    # one of its progress bars cannot be switched off, and it warns of the memory of an interpreter of its own
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tool.quantize(statistics, enable_progress_bar=False, enable_progress_report=False)
    return bytes(result.quantized_model)


def _statistics(seen: Range) -> dict[str, Any]:
    """A range in the shape in which ai-edge-quantizer keeps its own."""
    return {"min": np.array([[seen.low]], np.float32), "max": np.array([[seen.high]], np.float32)}


def _kind(model: Any, op: Any) -> str:
    from ai_edge_litert.tools import flatbuffer_utils

    return str(flatbuffer_utils.opcode_to_name(model, op.opcodeIndex))


def _name(tensor: Any) -> str:
    return tensor.name.decode("utf-8") if isinstance(tensor.name, bytes) else str(tensor.name)
