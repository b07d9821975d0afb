"""Inference engines behind one small interface; each is imported only when a graph is opened with it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import Engine, GraphSpec

Array = npt.NDArray[Any]

# Per engine: the module that wraps it, what it can be imported from (best first), and what to install.
_MODULES = {Engine.ONNX: "pocketvl_runtime.backends.onnx", Engine.TFLITE: "pocketvl_runtime.backends.litert"}
_IMPORTS = {Engine.ONNX: ("onnxruntime",), Engine.TFLITE: ("ai_edge_litert", "tflite_runtime", "tensorflow")}
_PACKAGES = {Engine.ONNX: "onnxruntime", Engine.TFLITE: "ai-edge-litert"}


class Backend(Protocol):
    """One graph, loaded.

    Attributes:
        name: the engine and its version.
        notes: what the backend did on its own account, one sentence each.
    """

    name: str
    notes: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph; inputs and outputs go by the names of the manifest."""
        ...


def is_installed(engine: Engine) -> bool:
    """Whether anything that runs this engine's graphs can be imported."""
    return any(find_spec(name) is not None for name in _IMPORTS[engine])


def open_backend(graph: GraphSpec, path: Path, threads: int) -> Backend:
    """Loads a graph.

    Args:
        graph: what the manifest says of it; the loaded graph is held against that.
        path: the graph's file.
        threads: for one inference.

    Raises:
        BackendError: the engine is not installed, refuses the file, or its tensors are not the manifest's.
    """
    if threads < 1:
        raise BackendError(f"threads must be at least 1, not {threads}")
    if not is_installed(graph.engine):
        package = _PACKAGES[graph.engine]
        raise BackendError(f"{path.name} needs an engine that is not installed: pip install {package}")
    opened: Backend = import_module(_MODULES[graph.engine]).open_graph(graph, path, threads)
    return opened


def first_line(error: Exception) -> str:
    """What an engine said, in one line; some say nothing, and then it is the error's type."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_feed(graph: GraphSpec, inputs: Mapping[str, Array]) -> None:
    """Raises BackendError where inputs are not those of the graph, in name, shape or dtype."""
    wanted = {spec.name: spec for spec in graph.inputs}
    if set(inputs) != set(wanted):
        raise BackendError(f"{graph.graph_id} takes {sorted(wanted)}, not {sorted(inputs)}")
    for name, value in inputs.items():
        spec = wanted[name]
        if value.shape != spec.shape or value.dtype.name != spec.dtype:
            raise BackendError(
                f"{graph.graph_id}: {name} is {value.dtype.name} {list(value.shape)}, "
                f"and {spec.dtype} {list(spec.shape)} is wanted"
            )


def check_tensor(graph: GraphSpec, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Raises BackendError where a loaded graph's tensor is not what the manifest says."""
    specs = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    spec = specs.get(name)
    if spec is None or spec.dtype != dtype or spec.shape != shape:
        said = f"{spec.dtype} {list(spec.shape)}" if spec else "no such tensor"
        raise BackendError(
            f"{graph.graph_id}: its tensor {name!r} is {dtype} {list(shape)}, but the manifest says {said}; "
            "export the bundle again"
        )


def checked_output(graph: GraphSpec, outputs: dict[str, Array]) -> dict[str, Array]:
    """Raises BackendError where an output is not finite; such an answer must not pass as one."""
    for name, value in outputs.items():
        if not np.isfinite(value).all():
            raise BackendError(f"{graph.graph_id} gave NaN or infinity in {name}; use another variant")
    return outputs
