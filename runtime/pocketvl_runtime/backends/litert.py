"""LiteRT, or an older interpreter of TFLite graphs where only that is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl_runtime.backends import Array, Backend, check_feed, check_tensor, checked_output
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import GraphSpec

# module, distribution, what using it costs
_INTERPRETERS = (
    ("ai_edge_litert.interpreter", "ai-edge-litert", ""),
    (
        "tflite_runtime.interpreter",
        "tflite-runtime",
        "the old tflite-runtime runs these graphs; int8 is 8 to 40 times slower in it: pip install ai-edge-litert",
    ),
    (
        "tensorflow.lite.python.interpreter",
        "tensorflow",
        "tensorflow's interpreter runs these graphs; it takes seconds and hundreds of MB more to load: "
        "pip install ai-edge-litert",
    ),
)


class LiteRtBackend:
    """An interpreter with XNNPACK on the CPU."""

    def __init__(self, graph: GraphSpec, path: Path, threads: int) -> None:
        make, self.name, warning = _find_interpreter()
        self.notes = (warning,) if warning else ()
        try:
            self._interpreter = make(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError and SystemError all occur
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BackendError(f"{path.name}: {self.name} cannot load it ({reason})") from error
        self._graph = graph
        self._inputs = _by_name(self._interpreter.get_input_details(), [s.name for s in graph.inputs], path)
        self._outputs = _by_name(
            self._interpreter.get_output_details(), [s.name for s in graph.outputs], path
        )
        for name, detail in {**self._inputs, **self._outputs}.items():
            check_tensor(graph, name, np.dtype(detail["dtype"]).name, tuple(int(n) for n in detail["shape"]))

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        try:
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], value)
            self._interpreter.invoke()
            values = {
                name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()
            }
        except Exception as error:
            raise BackendError(f"{self._graph.graph_id}: {self.name} failed ({error})") from error
        return checked_output(self._graph, values)


def open_graph(graph: GraphSpec, path: Path, threads: int) -> Backend:
    """Loads a graph; see `open_backend`."""
    return LiteRtBackend(graph, path, threads)


def _find_interpreter() -> tuple[Callable[..., Any], str, str]:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for module, distribution, warning in _INTERPRETERS:
        try:
            interpreter = import_module(module).Interpreter
        except ImportError:
            continue
        return interpreter, f"{distribution} {_version(distribution)}", warning
    raise BackendError("no interpreter of TFLite graphs can be imported: pip install ai-edge-litert")


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:  # tensorflow goes by several names
        return "of unknown version"


def _by_name(details: list[dict[str, Any]], names: list[str], path: Path) -> dict[str, dict[str, Any]]:
    """Pairs tensors with the manifest's names: by the name's own word, or alone by being the only one."""
    if len(details) != len(names):
        raise BackendError(f"{path.name} has {len(details)} tensors where the manifest names {names}")
    if len(names) == 1:
        return {names[0]: details[0]}
    found = {}
    for name in names:
        fitting = [d for d in details if name in str(d["name"]).replace(":", "_").split("_")]
        if len(fitting) != 1:
            raise BackendError(f"{path.name}: none, or several, of its tensors is called {name!r}")
        found[name] = fitting[0]
    return found
