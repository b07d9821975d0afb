"""ONNX files; where weights exceed what a protobuf holds, the large ones lie in a second file beside it."""

from __future__ import annotations

import mmap
from pathlib import Path

import onnx
from onnx import external_data_helper

from pocketvl.errors import LoweringError
from pocketvl.lower.base import weights_path
from pocketvl.lower.onnx.weightless import without_weights

MOST_INSIDE = (1 << 31) - (1 << 24)
"""Bytes of tensors up to which a graph keeps all of them in its own file: 2 GiB, with room for its nodes."""
_LEAST_OUTSIDE = 1024  # bytes; smaller tensors stay inside, for shape inference reads some of them


def read_onnx(path: Path, weights: bool = False) -> onnx.ModelProto:
    """Read a .onnx file.

    Args:
        path: of the file.
        weights: whether large ones are read, too. Without them, which then seem to lie in another file, a
            large model is read at once, and small enough for onnx's own functions.

    Raises:
        LoweringError: the file cannot be read.
    """
    try:
        if weights:
            return onnx.load(path)
        with path.open("rb") as file:
            content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        model: onnx.ModelProto = onnx.ModelProto.FromString(without_weights(content, _LEAST_OUTSIDE))
        return model
    except Exception as error:  # protobuf's DecodeError, OSError, ...
        raise LoweringError(f"{path} is not a readable ONNX file: {error}") from error


def write_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Check a model and write it, bytes in a fixed order; large weights beside it where they are too many.

    Args:
        model: with all its weights; changed where they are written beside it.
        path: of the .onnx file; that of the weights follows from it (`weights_path`).

    Raises:
        LoweringError: the model is not valid ONNX.
    """
    outside = tensor_bytes(model) > MOST_INSIDE
    try:
        if outside:
            _write_weights_(model, weights_path(path))
        else:
            onnx.checker.check_model(model, full_check=True)
        content = model.SerializeToString(deterministic=True)
        path.write_bytes(content)
        if outside:
            onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and ValueError or EncodeError over 2 GB
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise LoweringError(f"{path.name} is not valid ONNX: {lines[0].strip()}") from error


def tensor_bytes(model: onnx.ModelProto) -> int:
    """Bytes of a model's weights."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer)


def _write_weights_(model: onnx.ModelProto, path: Path) -> None:
    """Move large tensors into a file, in their order."""
    path.unlink(missing_ok=True)  # onnx would append to it
    external_data_helper.convert_model_to_external_data(
        model, location=path.name, size_threshold=_LEAST_OUTSIDE
    )
    external_data_helper.write_external_data_tensors(model, str(path.parent))
