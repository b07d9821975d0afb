"""Times of single operators in LiteRT, by the profiler of its C library, which its Python API hides."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from pocketvl_runtime.backends import Array, usable_imports
from pocketvl_runtime.backends.versions import described, distribution, release
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import GraphSpec
from pocketvl_runtime.native_stderr import without_native_stderr
from pocketvl_runtime.op_result import DELEGATE

_LIBRARY = "libLiteRt.so"
_LEAST = (2, 3)
"""The first LiteRT whose library takes an environment beside a model's bytes, and this layout of events."""
_CPU = 1
_READ, _WRITE = 0, 1
_WHOLE, _OPERATOR, _DELEGATED = 1, 2, 8
"""Types of events: a part of a run, an op that the interpreter ran with its own kernel, one in a delegate."""
_ALL = b"Invoke"
CALLERS = ("WHILE", "IF", "CALL_ONCE", "STABLEHLO_WHILE", "STABLEHLO_COMPOSITE")
"""Ops that run other graphs of the file."""
_LOW = 0xFFFFFFFF
_MOST_EVENTS = 1 << 20


class _Event(ctypes.Structure):
    """What the profiler tells of one event; `memory` is six numbers that nobody asked for."""

    _fields_ = (
        ("tag", ctypes.c_char_p),
        ("type", ctypes.c_int32),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("memory", ctypes.c_int64 * 6),
        ("index", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int32),
    )


@dataclass(frozen=True)
class LiteRtEvent:
    """One op in one run.

    Attributes:
        type: the name of a builtin op, or of an operator of the delegate.
        unit: which of the two ran it.
        elapsed_us: whole microseconds.
        partition: of a delegated op of the first graph, which part of that.
        node: of one of the interpreter's, its index in the subgraph.
        subgraph: which of the file's graphs it is in: the body of a loop is another than the first.
    """

    type: str
    unit: str
    elapsed_us: int
    partition: int | None
    node: int | None
    subgraph: int


def obstacle(graph: GraphSpec) -> str | None:
    """Why LiteRT cannot tell the times of a graph's ops here, in one line; None: it can."""
    module = usable_imports(graph.engine, graph.precision, graph.min_engine)[0]
    if module != "ai_edge_litert":
        return f"{described(module)} does not tell the times of single ops: pip install ai-edge-litert"
    if release(distribution(module)[1]) < _LEAST:
        return f"{described(module)} does not tell the times of single ops: pip install 'ai-edge-litert>=2.3'"
    if _library() is None:
        return f"{described(module)} has no {_LIBRARY} here, which alone tells the times of single ops"
    return None


class LiteRtProfiler:
    """A graph in LiteRT's compiled model, with XNNPACK on the CPU and the profiler on; a context manager.

    Raises:
        BackendError: the library refuses the graph; `obstacle` should have been asked before.
    """

    def __init__(self, content: bytes, threads: int) -> None:
        path = _library()
        if path is None:
            raise BackendError(f"there is no {_LIBRARY}: pip install ai-edge-litert")
        self._library = ctypes.CDLL(str(path))
        self._content = ctypes.create_string_buffer(content, len(content))  # must outlive the model
        self._kept: list[object] = []
        with without_native_stderr():
            self._environment = self._made("LiteRtCreateEnvironment", ctypes.c_int(0), None)
            self._model = self._made(
                "LiteRtCreateModelFromBuffer",
                self._environment,
                self._content,
                ctypes.c_size_t(len(content)),
            )
            options = self._options(threads)
            self._compiled = self._made("LiteRtCreateCompiledModel", self._environment, self._model, options)
            self._profiler = self._made("LiteRtCompiledModelGetProfiler", self._compiled)
        signature = self._made("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0))
        self._inputs = dict(self._buffers(signature, "Input"))
        self._outputs = dict(self._buffers(signature, "Output"))

    def __enter__(self) -> LiteRtProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees what the library made."""
        for buffer in (*self._inputs.values(), *self._outputs.values()):
            self._library.LiteRtDestroyTensorBuffer(buffer)
        self._library.LiteRtDestroyCompiledModel(self._compiled)
        self._library.LiteRtDestroyModel(self._model)
        with without_native_stderr():
            self._library.LiteRtDestroyEnvironment(self._environment)

    def run(self, inputs: Mapping[str, Array], runs: int) -> list[tuple[int, list[LiteRtEvent]]]:
        """Runs the graph, and reads what was told only after the last run: reading takes its caches.

        Args:
            inputs: by the names of its one signature.
            runs: how often.

        Returns:
            Of each run, microseconds of the interpreter's invocation, and its ops in the order in which they
            ran.

        Raises:
            BackendError: the library fails.
        """
        for name, value in inputs.items():
            self._copy(self._inputs[name], np.ascontiguousarray(value), _WRITE)
        buffers = (*_counted(self._inputs.values()), *_counted(self._outputs.values()))
        self._do("LiteRtResetProfiler", self._profiler)
        self._do("LiteRtStartProfiler", self._profiler)
        for _ in range(runs):
            self._do("LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), *buffers)
        self._do("LiteRtStopProfiler", self._profiler)
        return list(_runs(self._read_events()))

    def output(self, name: str, like: Array) -> Array:
        """What the last run gave.

        Args:
            name: of the output.
            like: an array of its shape and dtype.
        """
        value = np.empty_like(like)
        self._copy(self._outputs[name], value, _READ)
        return value

    def _options(self, threads: int) -> ctypes.c_void_p:
        options = self._made("LiteRtCreateOptions")
        self._do("LiteRtSetOptionsHardwareAccelerators", options, ctypes.c_int(_CPU))
        keep = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_nothing)
        self._kept.append(keep)
        texts = {"runtime_options_string": "enable_profiling = true", "xnnpack": f"num_threads = {threads}"}
        for kind, text in texts.items():
            payload = ctypes.create_string_buffer(f"{text}\n".encode())
            self._kept.append(payload)
            more = self._made("LiteRtCreateOpaqueOptions", ctypes.c_char_p(kind.encode()), payload, keep)
            self._do("LiteRtAddOpaqueOptions", options, more)
        return options

    def _buffers(self, signature: ctypes.c_void_p, kind: str) -> Iterator[tuple[str, ctypes.c_void_p]]:
        """The names of a signature's inputs or outputs, in order, with a buffer made for each."""
        count = ctypes.c_size_t()
        self._do(f"LiteRtGetNumSignature{kind}s", signature, ctypes.byref(count))
        for index in map(ctypes.c_size_t, range(count.value)):
            name = ctypes.c_char_p()
            self._do(f"LiteRtGetSignature{kind}Name", signature, index, ctypes.byref(name))
            tensor = self._made(f"LiteRtGetSignature{kind}TensorByIndex", signature, index)
            shape = ctypes.create_string_buffer(512)  # LiteRtRankedTensorType, only handed on
            self._do("LiteRtGetRankedTensorType", tensor, shape)
            needs = self._made(
                f"LiteRtGetCompiledModel{kind}BufferRequirements",
                self._compiled,
                ctypes.c_size_t(0),
                index,
            )
            make = "LiteRtCreateManagedTensorBufferFromRequirements"
            yield (name.value or b"").decode(), self._made(make, self._environment, shape, needs)

    def _copy(self, buffer: ctypes.c_void_p, array: Array, mode: int) -> None:
        size = ctypes.c_size_t()
        self._do("LiteRtGetTensorBufferPackedSize", buffer, ctypes.byref(size))
        if size.value != array.nbytes:
            raise BackendError(f"a tensor of {array.nbytes} bytes has {size.value} in LiteRT")
        address = ctypes.c_void_p()
        self._do("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), ctypes.c_int(mode))
        here = array.ctypes.data_as(ctypes.c_void_p)
        target, source = (here, address) if mode == _READ else (address, here)
        ctypes.memmove(target, source, array.nbytes)
        self._do("LiteRtUnlockTensorBuffer", buffer)

    def _read_events(self) -> ctypes.Array[_Event]:
        count = ctypes.c_int()
        self._do("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if not 0 < count.value < _MOST_EVENTS:
            raise BackendError(f"LiteRT's profiler tells of {count.value} events")
        read = (_Event * count.value)()
        self._do("LiteRtGetProfilerEvents", self._profiler, count, read)
        return read

    def _made(self, function: str, *arguments: Any) -> ctypes.c_void_p:
        """What a function makes, which its last argument is filled with."""
        made = ctypes.c_void_p()
        self._do(function, *arguments, ctypes.byref(made))
        return made

    def _do(self, function: str, *arguments: Any) -> None:
        status = self._library[function](*arguments)
        if status != 0:
            raise BackendError(f"LiteRT's {function} failed with {status}")


def _runs(events: ctypes.Array[_Event]) -> Iterator[tuple[int, list[LiteRtEvent]]]:
    """Takes events apart by run; a run's invocation comes before its ops."""
    begins = [index for index, each in enumerate(events) if _is_invocation(each) and not _graph_of(each)]
    for begin, end in pairwise([*begins, len(events)]):
        yield events[begin].elapsed_us, list(_ops(events[begin:end]))


def _ops(events: Sequence[_Event]) -> Iterator[LiteRtEvent]:
    """The ops among the events of a run; a delegate counts its own from 0 in each of its parts of a graph."""
    partition = -1
    for each in events:
        kind, graph = (each.tag or b"").decode("utf-8", "replace"), _graph_of(each)
        if each.type == _DELEGATED:
            partition += each.index == 0 and not graph
            part = None if graph else max(partition, 0)
            yield LiteRtEvent(kind, DELEGATE, each.elapsed_us, part, None, graph)
        elif each.type == _OPERATOR:
            own_us = each.elapsed_us - (_called_us(each, events) if kind in CALLERS else 0)
            yield LiteRtEvent(kind, "builtin", max(own_us, 0), None, each.index & _LOW, graph)


def _called_us(caller: _Event, events: Sequence[_Event]) -> int:
    """What the graphs that an op called took."""
    end = caller.start_us + caller.elapsed_us
    return sum(
        each.elapsed_us
        for each in events
        if _is_invocation(each)
        and _graph_of(each) != _graph_of(caller)
        and caller.start_us <= each.start_us < end
        and each.elapsed_us <= caller.elapsed_us
    )


def _is_invocation(event: _Event) -> bool:
    return bool(event.type == _WHOLE and event.tag == _ALL)


def _graph_of(event: _Event) -> int:
    return int(event.subgraph & _LOW)


def _counted(buffers: Any) -> tuple[ctypes.c_size_t, Any]:
    each = list(buffers)
    return ctypes.c_size_t(len(each)), (ctypes.c_void_p * len(each))(*each)


def _nothing(_: object) -> None:
    """Frees a payload, which Python does."""


def _library() -> Path | None:
    spec = find_spec("ai_edge_litert")
    path = None if spec is None or spec.origin is None else Path(spec.origin).with_name(_LIBRARY)
    return path if path is not None and path.exists() else None
