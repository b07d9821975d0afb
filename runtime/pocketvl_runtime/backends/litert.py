"""LiteRT, or an older interpreter of TFLite graphs where only that is installed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl_runtime.backends import Array, Backend, check_feed, check_tensor, checked_output, first_line
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import GraphSpec, TensorSpec

# module, distribution, what using it costs
_INTERPRETERS = (
    ("ai_edge_litert.interpreter", "ai-edge-litert", ""),
    (
        "tflite_runtime.interpreter",
        "tflite-runtime",
        "the old tflite-runtime runs these graphs; int8 is 8 to 40 times slower in it, and with numpy 2 it "
        "does not start: pip install ai-edge-litert",
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
        self.notes: tuple[str, ...] = (warning,) if warning else ()
        try:
            self._interpreter = make(model_path=str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError and SystemError all occur
            raise BackendError(f"{path.name}: {self.name} cannot load it ({first_line(error)})") from error
        self._graph = graph
        engine = self._interpreter
        inputs, outputs = _signature(engine)
        self._inputs = _paired(engine.get_input_details(), inputs, graph.inputs, path)
        self._outputs = _paired(engine.get_output_details(), outputs, graph.outputs, path)
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
            raise BackendError(f"{self._graph.graph_id}: {self.name} failed ({first_line(error)})") from error
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


def _signature(interpreter: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The tensors of the only signature by name, inputs and outputs; none where there is no single one."""
    if len(interpreter.get_signature_list()) != 1:
        return {}, {}
    runner = interpreter.get_signature_runner()
    return runner.get_input_details(), runner.get_output_details()


def _paired(
    details: list[dict[str, Any]], signature: Mapping[str, Any], specs: tuple[TensorSpec, ...], path: Path
) -> dict[str, dict[str, Any]]:
    """Pairs a graph's tensors with the manifest's names: by the signature's names, or else by position."""
    names = [spec.name for spec in specs]
    if len(details) != len(names):
        raise BackendError(f"{path.name} has {len(details)} tensors where the manifest names {names}")
    if set(signature) == set(names):
        return {name: signature[name] for name in names}
    return dict(zip(names, details, strict=True))
