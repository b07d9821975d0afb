"""Runs a lowered graph in each engine that the tests ask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def run_onnx(
    path: Path, feeds: Iterable[Mapping[str, NDArray[Any]]], optimized: Path | None = None
) -> NDArray[np.float32]:
    """Embeddings [N, D] from onnxruntime, with exact integer sums also where there is no VNNI."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1  # graphs are tiny, and waiting threads spin
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return np.concatenate([session.run(["embedding"], dict(feed))[0] for feed in feeds])


def run_litert(path: Path, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """Embeddings [N, D] from ai-edge-litert with its XNNPACK kernels."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path), num_threads=1).get_signature_runner()
    return np.concatenate([runner(**feed)["embedding"].copy() for feed in feeds])


def run_tensorflow_reference(path: Path, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """Embeddings [N, D] from tensorflow's interpreter with its plain reference kernels."""
    import tensorflow

    kernels = tensorflow.lite.experimental.OpResolverType.BUILTIN_REF
    interpreter = tensorflow.lite.Interpreter(str(path), experimental_op_resolver_type=kernels)
    runner = interpreter.get_signature_runner()
    return np.concatenate([runner(**feed)["embedding"].copy() for feed in feeds])


def run(path: Path, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> NDArray[np.float32]:
    """Embeddings [N, D] from the engine that the file's suffix names."""
    return run_onnx(path, feeds) if path.suffix == ".onnx" else run_litert(path, feeds)


def centred_cosines(reference: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """Cosine of each pair of rows [N, D] after the reference's mean is taken off both."""
    mean = reference.mean(0)
    first, second = reference - mean, other - mean
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: NDArray[np.float32] = (first * second).sum(1) / norms
    return cosines
