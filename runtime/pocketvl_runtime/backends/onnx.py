"""ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pocketvl_runtime.backends import Array, Backend, check_feed, check_tensor, checked_output, first_line
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.isa import has_exact_int8, instruction_set
from pocketvl_runtime.manifest import GraphSpec

_DTYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(int8)": "int8",
}


class OnnxBackend:
    """A session of ONNX Runtime on the CPU."""

    def __init__(self, graph: GraphSpec, path: Path, threads: int) -> None:
        # Without this, importing onnxruntime writes a device id into the home folder.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendError(
                f"onnxruntime cannot be imported ({first_line(error)}): "
                "pip install --force-reinstall onnxruntime"
            ) from error

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.notes: tuple[str, ...] = ()
        if not has_exact_int8():
            # Without VNNI its int8 kernels add pairs of products in 16 bits, which saturates: wrong answers.
            options.add_session_config_entry("session.x64quantprecision", "1")
            if graph.precision.multiplies_integers:
                self.notes = (
                    "ONNX Runtime's int8 kernels saturate on x86 without VNNI, and this is "
                    f"{instruction_set()}: its exact mode is on (session.x64quantprecision=1), which costs "
                    "some speed",
                )
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the engine raises many kinds, all below Exception
            raise BackendError(f"{path.name}: ONNX Runtime cannot load it ({first_line(error)})") from error
        for tensor in (*self._session.get_inputs(), *self._session.get_outputs()):
            shape = tuple(size if isinstance(size, int) else -1 for size in tensor.shape)
            check_tensor(graph, tensor.name, _DTYPES.get(tensor.type, tensor.type), shape)
        self.name = f"onnxruntime {onnxruntime.__version__}"
        self._graph = graph
        self._outputs = [spec.name for spec in graph.outputs]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        try:
            values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise BackendError(
                f"{self._graph.graph_id}: ONNX Runtime failed ({first_line(error)})"
            ) from error
        named = {name: np.asarray(value) for name, value in zip(self._outputs, values, strict=True)}
        return checked_output(self._graph, named)


def open_graph(graph: GraphSpec, path: Path, threads: int) -> Backend:
    """Loads a graph; see `open_backend`."""
    return OnnxBackend(graph, path, threads)
