"""Inference engines behind one small interface; each is imported only when a graph is opened with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.errors import BackendError, InputError
from pocketvl_runtime.isa import MAX_THREADS
from pocketvl_runtime.manifest import Engine, GraphSpec

Array = npt.NDArray[Any]

PACKAGES = {Engine.ONNX: "onnxruntime", Engine.TFLITE: "ai-edge-litert"}
"""What to install for each engine."""

# Per engine: the module that wraps it, and what it can be imported from: the engine itself, then stand-ins.
_MODULES = {Engine.ONNX: "pocketvl_runtime.backends.onnx", Engine.TFLITE: "pocketvl_runtime.backends.litert"}
_IMPORTS = {Engine.ONNX: ("onnxruntime",), Engine.TFLITE: ("ai_edge_litert", "tflite_runtime", "tensorflow")}


class Backend(Protocol):
    """One graph, loaded.

    Attributes:
        name: the engine and its version.
        notes: what the backend did on its own account and what that costs, one sentence each.
    """

    name: str
    notes: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph; inputs and outputs go by the names of the manifest."""
        ...


def usable_imports(engine: Engine) -> list[str]:
    """The installed top-level modules that can run this engine's graphs, best first."""
    return [name for name in _IMPORTS[engine] if find_spec(name) is not None and not _cannot_start(name)]


def is_installed(engine: Engine) -> bool:
    """Whether anything that runs this engine's graphs can be imported."""
    return bool(usable_imports(engine))


def is_stand_in(engine: Engine) -> bool:
    """Whether this engine's graphs would be run by something older or larger than the engine itself."""
    return usable_imports(engine)[:1] != list(_IMPORTS[engine][:1])


def missing_engine(what: str, engine: Engine, instead: Sequence[str] = ()) -> BackendError:
    """The error for something whose engine is not installed.

    Args:
        what: what needs the engine.
        engine: which.
        instead: what runs with that which is installed.
    """
    unfit = [name for name in _IMPORTS[engine] if find_spec(name) is not None and _cannot_start(name)]
    why = "".join(f"; {name.replace('_', '-')} is, but does not start with numpy 2" for name in unfit)
    hint = f" (with what is installed, these run: {', '.join(instead)})" if instead else ""
    return BackendError(
        f"{what} needs an engine that is not installed{why}: pip install {PACKAGES[engine]}{hint}"
    )


def open_backend(graph: GraphSpec, content: bytes, threads: int) -> Backend:
    """Loads a graph.

    Args:
        graph: what the manifest says of it; the loaded graph is held against that.
        content: the graph's file.
        threads: for one inference.

    Raises:
        InputError: there are no such numbers of threads.
        BackendError: the engine is not installed, refuses the graph, or its tensors are not the manifest's.
    """
    if not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
    if not is_installed(graph.engine):
        raise missing_engine(graph.graph_id, graph.engine)
    opened: Backend = import_module(_MODULES[graph.engine]).open_graph(graph, content, threads)
    return opened


def first_line(error: BaseException) -> str:
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


def check_tensors(graph: GraphSpec, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raises BackendError where a loaded graph's tensors (name -> dtype, shape) are not the manifest's."""
    specs = {spec.name: spec for spec in (*graph.inputs, *graph.outputs)}
    for name, (dtype, shape) in found.items():
        spec = specs.pop(name, None)
        if spec is None or spec.dtype != dtype or spec.shape != shape:
            said = f"{spec.dtype} {list(spec.shape)}" if spec else "no such tensor"
            raise BackendError(
                f"{graph.graph_id}: its tensor {name!r} is {dtype} {list(shape)}, but the manifest says "
                f"{said}; export the bundle again"
            )
    if specs:
        raise BackendError(
            f"{graph.graph_id}: it has no {', '.join(sorted(specs))}, which the manifest names; "
            "export the bundle again"
        )


def _cannot_start(name: str) -> bool:
    return name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2
