"""Where the time of a variant's graphs goes, operator by operator, on the inputs of a real answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from pocketvl_runtime.backends import Array, Backend
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, TensorSpec
from pocketvl_runtime.op_result import DELEGATE, GraphOps, OpTime
from pocketvl_runtime.peaks import GRAPHS, packed_graph
from pocketvl_runtime.progress import Progress

if TYPE_CHECKING:
    from pocketvl_runtime.backends.litert_ops import LiteRtEvent
    from pocketvl_runtime.backends.onnx_ops import OnnxEvent

_SECONDS = 0.6
"""Of one graph at one thread count, about how long all runs together should take."""
_FEWEST_RUNS, _MOST_RUNS = 6, 42
ROUNDS = 3
_LITERT_EVENT_MS = 0.003
"""Of the profiler of LiteRT 2.3 around one of its own kernels, and around a graph that a loop calls."""
_WARMUP_RUNS = 2
_MOST_OVERHEAD = 3.0
"""At most so many times what it adds in the chain: there, all that it writes down is short and cached."""
CHAINED = 32
"""How many ops are in the chain on which the profiler itself is measured."""
_QUICK = 10
"""The percentile of whole runs that is told: little disturbs it, as little disturbs most calls of an op."""
_IO = {Engine.ONNX: "pocketvl_runtime.backends.onnx", Engine.TFLITE: "pocketvl_runtime.backends.litert"}

Inputs = Mapping[str, Array]


@dataclass
class _Call:
    """An op at one position of a run: what stays the same in every run, and how long it took in each."""

    op: OpTime
    us: list[float] = field(default_factory=list)


class GraphProfile:
    """Times one graph without and with the engine's profiler, a part of the runs in each round.

    Rounds of several graphs take turns, so that whatever slows the machine for a while slows all alike.
    """

    def __init__(
        self,
        graph: GraphSpec,
        content: bytes,
        backend: Backend,
        threads: int,
        inputs: Inputs,
        weights: bytes | None = None,
    ) -> None:
        """Runs the graph a few times, to see how often it can be run.

        Args:
            graph: as the manifest describes it.
            content: the graph's file.
            backend: the graph, loaded with these threads.
            threads: of an inference.
            inputs: by name.
            weights: the file of weights beside the graph's, where there is one.

        Raises:
            BackendError: the engine fails.
        """
        self._component, self._threads, self._inputs = graph.component, threads, inputs
        self._plain = _Plain(backend, inputs)
        runs = min(max(_SECONDS / 2 / self._plain.seconds_of_one(), _FEWEST_RUNS), _MOST_RUNS)
        self._runs = -(-int(runs) // ROUNDS)  # of a round
        self._profiled: _Profiled = (
            _OnnxProfiled(graph, content, threads, weights)
            if graph.engine is Engine.ONNX
            else _LiteRtProfiled(graph, content, threads)
        )

    def run(self) -> None:
        """One round; raises BackendError where the engine fails."""
        self._plain.run(self._runs)
        self._profiled.run(self._inputs, self._runs)

    def result(self) -> GraphOps:
        """What all rounds say."""
        whole_us, each_run, reason = self._profiled.end()
        plain = self._plain
        plain_ms = 1000 * float(np.percentile(plain.seconds, _QUICK))
        ops = self._profiled.corrected(_averaged(each_run), plain_ms)
        if not ops and reason is None:
            reason = "the graph has no op that takes time"
        return GraphOps(
            self._component,
            self._threads,
            len(plain.seconds),
            plain_ms,
            plain.cpu_s / max(sum(plain.seconds), 1e-9),
            float(np.percentile(whole_us, _QUICK)) / 1000 if whole_us else None,
            ops,
            reason,
        )


def run_rounds(profiles: Sequence[GraphProfile], progress: Progress | None = None) -> list[GraphOps]:
    """Lets profiles take turns, and gives what they found."""
    for done in range(ROUNDS):
        for index, each in enumerate(profiles, start=1):
            each.run()
            if progress is not None:
                progress(done * len(profiles) + index, ROUNDS * len(profiles), "timing operators")
    return [each.result() for each in profiles]


def described_graph(path: Path) -> tuple[GraphSpec, bytes]:
    """A graph file that no manifest describes, as its engine describes it, and its bytes.

    Raises:
        InputError: it cannot be read, or is neither .onnx nor .tflite.
        BackendError: the engine is not installed, or refuses it.
    """
    engine = next((each for each in Engine if path.suffix == f".{each.value}"), None)
    if engine is None:
        raise InputError(f"{path} is no graph file: its name must end in .onnx or .tflite")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror})") from error
    inputs, outputs = import_module(_IO[engine]).read_io(content)
    return GraphSpec(path.stem, engine, Precision.MIXED, path.name, inputs, outputs), content


def made_up_inputs(graph: GraphSpec) -> Inputs:
    """Inputs of a graph's shapes, the same each time: small floats, and integers that are 0 or 1."""
    rng = np.random.default_rng(0)
    made = {}
    for spec in graph.inputs:
        shape = [1 if size == -1 else size for size in spec.shape]
        is_float = np.issubdtype(np.dtype(spec.dtype), np.floating)
        values = rng.normal(size=shape) if is_float else rng.integers(0, 2, shape)
        made[spec.name] = np.asarray(values, spec.dtype)
    return made


class _Plain:
    """Runs of a graph as any answer runs it."""

    def __init__(self, backend: Backend, inputs: Inputs) -> None:
        self._backend, self._inputs = backend, inputs
        self.seconds: list[float] = []
        self.cpu_s = 0.0

    def seconds_of_one(self) -> float:
        """The quickest of a few runs that are not counted."""
        return max(min(self._timed() for _ in range(_WARMUP_RUNS + 1)), 1e-6)

    def run(self, count: int) -> None:
        cpu_s = time.process_time()
        self.seconds += [self._timed() for _ in range(count)]
        self.cpu_s += time.process_time() - cpu_s

    def _timed(self) -> float:
        begin = time.perf_counter()
        self._backend.run(self._inputs)
        return time.perf_counter() - begin


class _Profiled(Protocol):
    """A graph under an engine's profiler."""

    def run(self, inputs: Inputs, runs: int) -> None: ...

    def end(self) -> tuple[list[float], list[list[OpTime]], str | None]:
        """Microseconds of the runs, the ops of each, and why there are none."""
        ...

    def corrected(self, ops: tuple[OpTime, ...], plain_ms: float) -> tuple[OpTime, ...]:
        """The ops without what the profiler adds to them."""
        ...


class _OnnxProfiled:
    def __init__(self, graph: GraphSpec, content: bytes, threads: int, weights: bytes | None) -> None:
        from pocketvl_runtime.backends.onnx_ops import OnnxProfiler

        self._threads = threads
        self._profiler = OnnxProfiler(graph, content, threads, weights)

    def run(self, inputs: Inputs, runs: int) -> None:
        self._profiler.run(inputs, runs, _WARMUP_RUNS)

    def end(self) -> tuple[list[float], list[list[OpTime]], str | None]:
        with self._profiler:
            whole_us, each_run = self._profiler.end()
        return whole_us, [[_onnx_op(each) for each in run] for run in each_run], None

    def corrected(self, ops: tuple[OpTime, ...], plain_ms: float) -> tuple[OpTime, ...]:
        return without_profiler(ops, plain_ms, profiler_us(self._threads) / 1000)


class _LiteRtProfiled:
    def __init__(self, graph: GraphSpec, content: bytes, threads: int) -> None:
        from pocketvl_runtime.backends.litert_ops import LiteRtProfiler, obstacle

        self._reason = obstacle(graph)
        self._profiler = None if self._reason else LiteRtProfiler(content, threads)
        self._told: list[tuple[int, list[LiteRtEvent]]] = []

    def run(self, inputs: Inputs, runs: int) -> None:
        if self._profiler is not None:
            self._told += self._profiler.run(inputs, _WARMUP_RUNS + runs)[_WARMUP_RUNS:]

    def end(self) -> tuple[list[float], list[list[OpTime]], str | None]:
        if self._profiler is not None:
            self._profiler.close()
        ops = [[_litert_op(each) for each in run] for _, run in self._told]
        return [float(whole) for whole, _ in self._told], ops, self._reason

    def corrected(self, ops: tuple[OpTime, ...], plain_ms: float) -> tuple[OpTime, ...]:
        """Its profiler costs next to nothing in a delegate, and some time around every kernel of its own.

        What it costs around the kernels of a loop's graphs lies in the op that calls them.
        """
        from pocketvl_runtime.backends.litert_ops import CALLERS

        delegated_ms = sum(op.ms for op in ops if op.unit == DELEGATE)
        own = [op for op in ops if op.unit != DELEGATE]
        called = sum(op.calls for op in ops if op.name)
        counted = [replace(op, calls=op.calls + called) if op.type in CALLERS else op for op in own]
        left = iter(without_profiler(counted, max(plain_ms - delegated_ms, 0.0), _LITERT_EVENT_MS))
        return tuple(op if op.unit == DELEGATE else replace(op, ms=next(left).ms) for op in ops)


def _onnx_op(event: OnnxEvent) -> OpTime:
    return OpTime(
        event.type,
        "cpu" if event.provider == "CPUExecutionProvider" else event.provider or "unknown",
        event.own_us / 1000,
        event.name or None,
        inputs=event.inputs,
        outputs=event.outputs,
    )


def _litert_op(event: LiteRtEvent) -> OpTime:
    return OpTime(
        event.type,
        event.unit,
        event.elapsed_us / 1000,
        name=f"subgraph {event.subgraph}" if event.subgraph else None,
        partition=event.partition,
        node=event.node,
    )


@functools.cache
def profiler_us(threads: int) -> float:
    """What ONNX Runtime's profiler tells of a call that does next to nothing: most of it is its own."""
    from pocketvl_runtime.backends.onnx_ops import OnnxProfiler

    one = (1,)
    graph = GraphSpec(
        "chain",
        Engine.ONNX,
        Precision.FP32,
        f"{GRAPHS}/chain.onnx",
        (TensorSpec("x", "float32", one),),
        (TensorSpec("y", "float32", one),),
    )
    with OnnxProfiler(graph, packed_graph(graph), threads) as profiler:
        profiler.run({"x": np.ones(one, np.float32)}, _MOST_RUNS, _WARMUP_RUNS)
        _, each_run = profiler.end()
    return _quick_mean(node.own_us for run in each_run for node in run)


def _averaged(each_run: Sequence[Sequence[OpTime]]) -> tuple[OpTime, ...]:
    """The ops of several runs, each with its time in one.

    An op that a loop calls several times in a run is one op with its calls. Engines tell whole microseconds,
    so a median would be 0 or 1 for most ops of a small graph: the mean of the quicker half is taken.
    """
    found: dict[tuple[object, ...], _Call] = {}
    counts: dict[tuple[object, ...], int] = {}
    for run in each_run:
        for key, calls in _grouped(run).items():
            call = found.setdefault(key, _Call(calls[0]))
            call.us.append(1000 * sum(each.ms for each in calls))
            counts[key] = max(counts.get(key, 1), len(calls))
    return tuple(
        OpTime(
            each.op.type,
            each.op.unit,
            _quick_mean(each.us) / 1000,
            each.op.name,
            counts[key],
            each.op.partition,
            each.op.node,
            each.op.inputs,
            each.op.outputs,
        )
        for key, each in found.items()
    )


def _grouped(run: Sequence[OpTime]) -> dict[tuple[object, ...], list[OpTime]]:
    """The ops of a run by what they are; those that no name or index tells apart by their order."""
    grouped: dict[tuple[object, ...], list[OpTime]] = {}
    order = 0
    for op in run:
        key: tuple[object, ...] = (op.type, op.name, op.node)
        if op.partition is not None:
            key, order = (op.type, op.partition, order), order + 1
        grouped.setdefault(key, []).append(op)
    return grouped


def without_profiler(ops: Sequence[OpTime], plain_ms: float, chained_ms: float) -> tuple[OpTime, ...]:
    """Times without what ONNX Runtime's profiler adds: together, they then take as long as a plain run.

    It adds to every call, and is taken to add the same to all, up to some times what a call in the chain of
    ops that do nothing takes. What is still left is taken off all in proportion.

    Args:
        ops: as the profiler tells them.
        plain_ms: of a run without it.
        chained_ms: of one call in the chain.
    """

    def left(over_ms: float) -> list[float]:
        return [max(op.ms - over_ms * op.calls, 0.0) for op in ops]

    low, high = 0.0, _MOST_OVERHEAD * chained_ms
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(left(middle)) > plain_ms else (low, middle)
    times = left(low)
    factor = min(1.0, plain_ms / max(sum(times), 1e-12))
    return tuple(replace(op, ms=factor * ms) for op, ms in zip(ops, times, strict=True))


def _quick_mean(values: Iterable[float]) -> float:
    """The mean of the quicker half: what interrupts a call only ever makes it slower."""
    ordered = sorted(values)
    return float(np.mean(ordered[: max(1, len(ordered) // 2)]))
