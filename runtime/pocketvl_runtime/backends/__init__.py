"""Inference engines behind one small interface; each is imported only when a graph is opened with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.backends.versions import described, is_right, least_version, release, satisfies
from pocketvl_runtime.errors import BackendError, InputError, PocketVLError
from pocketvl_runtime.isa import MAX_THREADS
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision

Array = npt.NDArray[Any]

PACKAGES = {Engine.ONNX: "onnxruntime", Engine.TFLITE: "ai-edge-litert"}
"""What to install for each engine."""

# Per engine: the module that wraps it, and what it can be imported from: the engine itself, then stand-ins.
_MODULES = {Engine.ONNX: "pocketvl_runtime.backends.onnx", Engine.TFLITE: "pocketvl_runtime.backends.litert"}
_IMPORTS = {Engine.ONNX: ("onnxruntime",), Engine.TFLITE: ("ai_edge_litert", "tflite_runtime", "tensorflow")}


_MOST_QUOTED = 300


class Backend(Protocol):
    """One graph, loaded. May be run from several threads at once.

    Attributes:
        name: the engine and its version.
        notes: what the backend did on its own account and what that costs, one sentence each.
    """

    name: str
    notes: tuple[str, ...]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Runs the graph; inputs and outputs go by the names of the manifest."""
        ...


def usable_imports(
    engine: Engine, precision: Precision | None = None, min_engine: str | None = None
) -> list[str]:
    """The installed top-level modules that can run this engine's graphs, best first.

    Args:
        engine: which.
        precision: of the graphs; without one, modules that are too old for some are listed too.
        min_engine: the oldest version of the engine that a bundle asks for, as docs/BUNDLE.md counts them.
    """
    return [
        name
        for name in _installed(engine)
        if not _cannot_start(name)
        and (precision is None or is_right(name, precision))
        and (min_engine is None or satisfies(name, min_engine))
    ]


def can_run(graph: GraphSpec) -> bool:
    """Whether a graph's engine is installed, and new enough for the graph's precision."""
    return bool(usable_imports(graph.engine, graph.precision, graph.min_engine))


def is_stand_in(graph: GraphSpec) -> bool:
    """Whether a graph would be run by something older or larger than its engine itself."""
    return usable_imports(graph.engine, graph.precision, graph.min_engine)[:1] != list(
        _IMPORTS[graph.engine][:1]
    )


def install_advice(graph: GraphSpec) -> str:
    """What pip is to install for a graph that `can_run` denies, as a shell takes it."""
    package = PACKAGES[graph.engine]
    known = (least_version(_IMPORTS[graph.engine][0], graph.precision), graph.min_engine)
    least = max(filter(None, known), key=release, default=None)
    if least is None or release(least) < (1,):  # 0.x are a predecessor's, and older than the package
        return package
    return f"'{package}>={least}'"


def cannot_run(what: str, graph: GraphSpec, instead: Sequence[str] = ()) -> BackendError:
    """The error for something that needs a graph which `can_run` denies.

    Args:
        what: what needs it.
        graph: which.
        instead: what runs with that which is installed.
    """
    usable = usable_imports(graph.engine)
    unfit = [name for name in _installed(graph.engine) if name not in usable]
    why = "".join(f"; {name.replace('_', '-')} is, but does not start with numpy 2" for name in unfit)
    problem = f"needs an engine that is not installed{why}"
    if usable:
        old = " and ".join(described(name) for name in usable)
        problem = f"needs an engine that is right in {graph.precision.value}, and {old} is not"
    hint = f" (with what is installed, these run: {', '.join(instead)})" if instead else ""
    return BackendError(f"{what} {problem}: pip install {install_advice(graph)}{hint}")


def open_backend(graph: GraphSpec, content: bytes, threads: int, weights: bytes | None = None) -> Backend:
    """Loads a graph.

    Args:
        graph: what the manifest says of it; the loaded graph is held against that.
        content: the graph's file.
        threads: for one inference.
        weights: the file of weights that the manifest lists beside it, if it does.

    Raises:
        InputError: there are no such numbers of threads.
        BackendError: the engine is not installed, is too old for the graph's precision, refuses the graph, or
            its tensors are not the manifest's.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise InputError(f"threads must be 1 to {MAX_THREADS}, not {threads}")
    if not can_run(graph):
        raise cannot_run(graph.graph_id, graph)
    opened: Backend = import_module(_MODULES[graph.engine]).open_graph(graph, content, threads, weights)
    return opened


@contextmanager
def engine_errors(failed: str) -> Iterator[None]:
    """Maps whatever an engine raises, which is of many kinds, to BackendError.

    Args:
        failed: what could not be done, by which engine; what that said is added.
    """
    try:
        yield
    except PocketVLError:
        raise
    except Exception as error:
        raise BackendError(f"{failed} ({first_line(error)})") from error


def first_line(error: BaseException) -> str:
    """What an engine said, in a line of at most 300 characters; its error's type where it says nothing."""
    try:
        said = str(error)
    except Exception:  # what it says need not be text
        said = ""
    line = (said.strip().splitlines() or [type(error).__name__])[0]
    return line if len(line) <= _MOST_QUOTED else line[: _MOST_QUOTED - 3] + "..."


def check_feed(graph: GraphSpec, inputs: Mapping[str, Array]) -> None:
    """Raises BackendError where inputs are not those of the graph, in name, shape or dtype."""
    wanted = {spec.name: spec for spec in graph.inputs}
    if inputs.keys() != wanted.keys():
        raise BackendError(f"{graph.graph_id} takes {sorted(wanted)}, not {sorted(inputs)}")
    for name, value in inputs.items():
        spec = wanted[name]
        if value.dtype != spec.dtype or not _has_shape(value.shape, spec.shape):
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


def _has_shape(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(
        size in (-1, found) for size, found in zip(wanted, shape, strict=True)
    )


def _installed(engine: Engine) -> list[str]:
    return [name for name in _IMPORTS[engine] if find_spec(name) is not None]


def _cannot_start(name: str) -> bool:
    return name == "tflite_runtime" and int(np.__version__.split(".")[0]) >= 2
