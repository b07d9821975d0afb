"""LiteRT, or an older interpreter of TFLite graphs where only that is installed."""

from __future__ import annotations

import os
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
from pocketvl_runtime.errors import BackendError, quoted
from pocketvl_runtime.manifest import Engine, GraphSpec, TensorSpec

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


class LiteRtBackend:
    """An interpreter with XNNPACK on the CPU; it gives one answer at a time, others wait."""

    def __init__(self, graph: GraphSpec, content: bytes, threads: int) -> None:
        make, self.name, self.notes = _find_interpreter(graph)
        with engine_errors(f"{graph.graph_id}: {self.name} cannot load it"):
            engine = make(model_content=content, num_threads=threads)
            engine.allocate_tensors()
            inputs, outputs = engine.get_input_details(), engine.get_output_details()
            signature = _signature(engine, (*inputs, *outputs), graph)
            self._inputs = _named(inputs, signature["inputs"], graph.inputs, graph.graph_id)
            self._outputs = _named(outputs, signature["outputs"], graph.outputs, graph.graph_id)
            details = {**self._inputs, **self._outputs}
            check_tensors(graph, {name: _contract(detail) for name, detail in details.items()})
        self._graph = graph
        self._failed = f"{graph.graph_id}: {self.name} failed"
        self._interpreter = engine
        self._answering = threading.Lock()  # inputs and outputs lie in the interpreter, one of each

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        check_feed(self._graph, inputs)
        with self._answering, engine_errors(self._failed):
            for name, value in inputs.items():
                self._interpreter.set_tensor(self._inputs[name]["index"], value)
            self._interpreter.invoke()
            return {  # get_tensor copies
                name: self._interpreter.get_tensor(detail["index"]) for name, detail in self._outputs.items()
            }


def open_graph(graph: GraphSpec, content: bytes, threads: int, weights: bytes | None = None) -> Backend:
    """Loads a graph; see `open_backend`. A manifest lists no weights beside a TFLite file."""
    assert weights is None
    return LiteRtBackend(graph, content, threads)


def read_io(content: bytes) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """The inputs and outputs of a graph that no manifest describes, as its one signature calls them.

    Raises:
        BackendError: LiteRT is not installed or refuses it, or it has another number of signatures.
    """
    with engine_errors("LiteRT cannot load the graph"):
        from ai_edge_litert.interpreter import Interpreter

        engine = Interpreter(model_content=content, num_threads=1)
        signatures = engine._get_full_signature_list()
        if len(signatures) != 1:
            raise BackendError(f"the graph has {len(signatures)} signatures, and must have one")
        (signature,) = signatures.values()
        details = {
            each["index"]: each for each in (*engine.get_input_details(), *engine.get_output_details())
        }
        inputs, outputs = (
            tuple(TensorSpec(name, *_contract(details[index])) for name, index in signature[kind].items())
            for kind in ("inputs", "outputs")
        )
        return inputs, outputs


def _find_interpreter(graph: GraphSpec) -> tuple[Callable[..., Any], str, tuple[str, ...]]:
    """The best interpreter that can be imported, its name and version, and what using it costs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    broken: list[str] = []
    for name in usable_imports(Engine.TFLITE, graph.precision, graph.min_engine):
        module, cost = _INTERPRETERS[name]
        try:
            interpreter = import_module(module).Interpreter
        except Exception as error:  # a broken installation raises anything
            broken.append(f"{distribution(name)[0]} cannot be imported ({first_line(error)})")
            continue
        return interpreter, described(name), (*broken, cost) if cost else ()
    raise BackendError(f"{'; '.join(broken)}: pip install --force-reinstall ai-edge-litert")


def _signature(
    interpreter: Any, details: Iterable[dict[str, Any]], graph: GraphSpec
) -> Mapping[str, Mapping[str, dict[str, Any]]]:
    """The tensors of the graph's one signature by name, "inputs" and "outputs".

    By its indices, since `get_signature_runner` reads whatever lies at one that is no tensor's, and crashes.
    They are of the first subgraph, which is why there must be no other signature.

    Raises:
        BackendError: there is no such signature, or another; or it names a tensor that is neither an input
            nor an output.
    """
    signatures = interpreter._get_full_signature_list()
    name = next(iter(signatures), None) if graph.signature is None else graph.signature
    if list(signatures) != [name]:
        wanted = "one signature" if graph.signature is None else f"one signature {quoted(graph.signature)}"
        found = quoted(sorted(signatures))
        raise BackendError(
            f"{graph.graph_id}: {wanted} is wanted, and it has {found}; export the bundle again"
        )
    by_index = {detail["index"]: detail for detail in details}
    try:
        return {
            kind: {each: by_index[index] for each, index in signatures[name][kind].items()}
            for kind in ("inputs", "outputs")
        }
    except KeyError as error:
        raise BackendError(
            f"{graph.graph_id}: its signature names tensor {error}, which it neither takes nor gives; "
            "export the bundle again"
        ) from error


def _named(
    details: list[dict[str, Any]],
    signature: Mapping[str, dict[str, Any]],
    specs: tuple[TensorSpec, ...],
    graph_id: str,
) -> dict[str, dict[str, Any]]:
    """The tensors that a signature calls as the manifest does; all of the graph's, and no others.

    Raises:
        BackendError: it has others, or lacks one.
    """
    names = [spec.name for spec in specs]
    indices = {detail["index"] for detail in signature.values()}
    if set(signature) != set(names) or indices != {detail["index"] for detail in details}:
        raise BackendError(
            f"{graph_id}: its signature has {quoted(sorted(signature))}, and the manifest names "
            f"{quoted(sorted(names))}; export the bundle again"
        )
    return {name: signature[name] for name in names}


def _contract(detail: Mapping[str, Any]) -> tuple[str, tuple[int, ...]]:
    return np.dtype(detail["dtype"]).name, tuple(int(size) for size in detail["shape"])
