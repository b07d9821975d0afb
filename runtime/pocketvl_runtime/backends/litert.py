"""LiteRT, or an older interpreter of TFLite graphs where only that is installed."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import Any

import numpy as np

from pocketvl_runtime.backends import (
    Array,
    Backend,
    check_feed,
    check_tensors,
    engine_errors,
    first_line,
    usable_imports,
)
from pocketvl_runtime.backends.versions import described, distribution
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, TensorSpec

# top-level module: (module, what using it costs)
_INTERPRETERS = {
    "ai_edge_litert": ("ai_edge_litert.interpreter", ""),
    "tflite_runtime": (
        "tflite_runtime.interpreter",
        "the old tflite-runtime runs these graphs, and of the int8 and int4 variants none: "
        "pip install ai-edge-litert",
    ),
    "tensorflow": (
        "tensorflow.lite.python.interpreter",
        "tensorflow's interpreter runs these graphs; it takes seconds and hundreds of MB more to load: "
        "pip install ai-edge-litert",
    ),
}
_NUMBERED = re.compile(r"(?:^|_)args_(\d+)(?::0)?$")


class LiteRtBackend:
    """An interpreter with XNNPACK on the CPU; it gives one answer at a time, others wait."""

    def __init__(self, graph: GraphSpec, content: bytes, threads: int) -> None:
        make, self.name, self.notes = _find_interpreter(graph.precision)
        with engine_errors(f"{graph.graph_id}: {self.name} cannot load it"):
            engine = make(model_content=content, num_threads=threads)
            engine.allocate_tensors()
            inputs, outputs = engine.get_input_details(), engine.get_output_details()
            signature = _signature(engine, (*inputs, *outputs), graph.graph_id)
            self._inputs = _paired(inputs, signature["inputs"], graph.inputs, graph.graph_id)
            self._outputs = _paired(outputs, signature["outputs"], graph.outputs, graph.graph_id)
            details = {**self._inputs, **self._outputs}
            check_tensors(graph, {name: _contract(detail) for name, detail in details.items()})
        self._graph = graph
        self._interpreter = engine
        self._answering = threading.Lock()  # inputs and outputs lie in the interpreter, one of each

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        with self._answering, engine_errors(f"{self._graph.graph_id}: {self.name} failed"):
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], value)
            self._interpreter.invoke()
            return {  # get_tensor copies
                name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()
            }


def open_graph(graph: GraphSpec, content: bytes, threads: int) -> Backend:
    """Loads a graph; see `open_backend`."""
    return LiteRtBackend(graph, content, threads)


def _find_interpreter(precision: Precision) -> tuple[Callable[..., Any], str, tuple[str, ...]]:
    """The best interpreter that can be imported, its name and version, and what using it costs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    broken: list[str] = []
    for name in usable_imports(Engine.TFLITE, precision):
        module, cost = _INTERPRETERS[name]
        try:
            interpreter = import_module(module).Interpreter
        except Exception as error:  # a broken installation raises anything
            broken.append(f"{distribution(name)[0]} cannot be imported ({first_line(error)})")
            continue
        return interpreter, described(name), (*broken, cost) if cost else ()
    raise BackendError(f"{'; '.join(broken)}: pip install --force-reinstall ai-edge-litert")


def _signature(
    interpreter: Any, details: Iterable[dict[str, Any]], graph_id: str
) -> Mapping[str, Mapping[str, dict[str, Any]]]:
    """The tensors of the only signature by name, "inputs" and "outputs"; none where there is no single one.

    By its indices, since `get_signature_runner` reads whatever lies at one that is no tensor's, and crashes.

    Raises:
        BackendError: it names a tensor that is neither an input nor an output.
    """
    signatures = list(interpreter._get_full_signature_list().values())
    if len(signatures) != 1:
        return {"inputs": {}, "outputs": {}}
    by_index = {detail["index"]: detail for detail in details}
    try:
        return {
            kind: {name: by_index[index] for name, index in signatures[0][kind].items()}
            for kind in ("inputs", "outputs")
        }
    except KeyError as error:
        raise BackendError(
            f"{graph_id}: its signature names tensor {error}, which it neither takes nor gives; "
            "export the bundle again"
        ) from error


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
