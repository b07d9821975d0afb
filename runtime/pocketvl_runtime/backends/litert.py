"""LiteRT, or an older interpreter of TFLite graphs where only that is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from pocketvl_runtime.backends import Array, Backend, check_feed, check_tensors, first_line, usable_imports
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import Engine, GraphSpec, TensorSpec

# top-level module: (module, distribution, what using it costs)
_INTERPRETERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", "ai-edge-litert", ""),
    "tflite_runtime": (
        "tflite_runtime.interpreter",
        "tflite-runtime",
        "the old tflite-runtime runs these graphs; int8 is 8 to 40 times slower in it: "
        "pip install ai-edge-litert",
    ),
    "tensorflow": (
        "tensorflow.lite.python.interpreter",
        "tensorflow",
        "tensorflow's interpreter runs these graphs; it takes seconds and hundreds of MB more to load: "
        "pip install ai-edge-litert",
    ),
}
_NUMBERED = re.compile(r"(?:^|_)args_(\d+)(?::0)?$")


class LiteRtBackend:
    """An interpreter with XNNPACK on the CPU."""

    def __init__(self, graph: GraphSpec, content: bytes, threads: int) -> None:
        make, self.name, self.notes = _find_interpreter()
        try:
            self._interpreter = make(model_content=content, num_threads=threads)
            self._interpreter.allocate_tensors()
        except Exception as error:  # ValueError, RuntimeError and SystemError all occur
            raise BackendError(
                f"{graph.graph_id}: {self.name} cannot load it ({first_line(error)})"
            ) from error
        self._graph = graph
        engine = self._interpreter
        inputs, outputs = _signature(engine)
        self._inputs = _paired(engine.get_input_details(), inputs, graph.inputs, graph.graph_id)
        self._outputs = _paired(engine.get_output_details(), outputs, graph.outputs, graph.graph_id)
        details = {**self._inputs, **self._outputs}
        check_tensors(graph, {name: _contract(detail) for name, detail in details.items()})

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        try:
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], value)
            self._interpreter.invoke()
            return {
                name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()
            }
        except Exception as error:
            raise BackendError(f"{self._graph.graph_id}: {self.name} failed ({first_line(error)})") from error


def open_graph(graph: GraphSpec, content: bytes, threads: int) -> Backend:
    """Loads a graph; see `open_backend`."""
    return LiteRtBackend(graph, content, threads)


def _find_interpreter() -> tuple[Callable[..., Any], str, tuple[str, ...]]:
    """The best interpreter that can be imported, its name and version, and what using it costs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    broken: list[str] = []
    for name in usable_imports(Engine.TFLITE):
        module, distribution, cost = _INTERPRETERS[name]
        try:
            interpreter = import_module(module).Interpreter
        except Exception as error:  # a broken installation raises anything
            broken.append(f"{distribution} cannot be imported ({first_line(error)})")
            continue
        return interpreter, f"{distribution} {_version(distribution)}", (*broken, cost) if cost else ()
    raise BackendError(f"{'; '.join(broken)}: pip install --force-reinstall ai-edge-litert")


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
    details: list[dict[str, Any]],
    signature: Mapping[str, dict[str, Any]],
    specs: tuple[TensorSpec, ...],
    graph_id: str,
) -> dict[str, dict[str, Any]]:
    """Pairs a graph's tensors with the manifest's names.

    By the signature's names; or else, where they are numbered (args_0, args_1, ...), by their numbers; or
    else by position, which `check_tensors` holds against dtype and shape.

    Raises:
        BackendError: their number differs, or only a guess would tell two of one dtype and shape apart.
    """
    names = [spec.name for spec in specs]
    if len(details) != len(names):
        raise BackendError(f"{graph_id} has {len(details)} tensors where the manifest names {names}")
    if set(signature) == set(names):
        return {name: signature[name] for name in names}
    called = dict(signature) or {str(detail["name"]): detail for detail in details}
    numbers = {match[1]: detail for name, detail in called.items() if (match := _NUMBERED.search(name))}
    if len(numbers) == len(names):
        details = [numbers[number] for number in sorted(numbers, key=int)]
    elif len({(spec.dtype, spec.shape) for spec in specs}) < len(specs):
        raise BackendError(
            f"{graph_id} calls its tensors {sorted(called)}, and which of them is which of {names} cannot be "
            "told; export the bundle again"
        )
    return dict(zip(names, details, strict=True))


def _contract(detail: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    return np.dtype(detail["dtype"]).name, tuple(int(size) for size in detail["shape"])
