"""Where the time of a variant's graphs goes, operator by operator, on the inputs of a real answer."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path

import numpy as np

from pocketvl_runtime.backends import Array, Backend
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, TensorSpec
from pocketvl_runtime.op_result import GraphOps, OpTime
from pocketvl_runtime.peaks import GRAPHS, packed_graph
from pocketvl_runtime.progress import Progress

_SECONDS = 0.6
"""Of one graph at one thread count, about how long all runs together should take."""
_FEWEST_RUNS, _MOST_RUNS = 6, 42
ROUNDS = 3
_WARMUP_RUNS = 2
_MOST_OVERHEAD = 3.0
"""At most so many times what it adds in the chain: there, all that it writes down is short and cached."""
CHAINED = 32
"""How many ops are in the chain on which the profiler itself is measured."""
_QUICK = 10
"""The percentile of whole runs that is told: little disturbs it, as little disturbs most calls of an op."""
_IO = {Engine.ONNX: "pocketvl_runtime.backends.onnx", Engine.TFLITE: "pocketvl_runtime.backends.litert"}

Inputs = Mapping[str, Array]


class Recorder:
    """A backend that runs another and keeps what it was last given.

    Attributes:
        backend: the other.
        inputs: empty where it was never run.
    """

    def __init__(self, backend: Backend) -> None:
        self.name, self.notes = backend.name, backend.notes
        self.backend = backend
        self.inputs: dict[str, Array] = {}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """See `Backend.run`."""
        self.inputs = dict(inputs)
        return self.backend.run(inputs)


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
        self, graph: GraphSpec, content: bytes, backend: Backend, threads: int, inputs: Inputs
    ) -> None:
        """Runs the graph a few times, to see how often it can be run.

        Args:
            graph: as the manifest describes it.
            content: the graph's file.
            backend: the graph, loaded with these threads.
            threads: of an inference.
            inputs: by name.

        Raises:
            BackendError: the engine fails.
        """
        self._graph, self._content, self._threads, self._inputs = graph, content, threads, inputs
        self._plain = _Plain(backend, inputs)
        runs = min(max(_SECONDS / 2 / self._plain.seconds_of_one(), _FEWEST_RUNS), _MOST_RUNS)
        self._runs = -(-int(runs) // ROUNDS)  # of a round
        self._whole_us: list[float] = []
        self._each_run: list[list[OpTime]] = []
        self._reason: str | None = None

    def run(self) -> None:
        """One round; raises BackendError where the engine fails."""
        measure = {Engine.ONNX: _onnx, Engine.TFLITE: _litert}[self._graph.engine]
        self._plain.run(self._runs)
        whole_us, each_run, self._reason = measure(
            self._graph, self._content, self._threads, self._inputs, self._runs
        )
        self._whole_us += whole_us
        self._each_run += each_run

    def result(self) -> GraphOps:
        """What all rounds say."""
        plain = self._plain
        plain_ms = 1000 * float(np.percentile(plain.seconds, _QUICK))
        ops = _averaged(self._each_run)
        if self._graph.engine is Engine.ONNX and ops:
            ops = without_profiler(ops, plain_ms, profiler_us(self._threads) / 1000)
        reason = self._reason
        if not ops and reason is None:
            reason = "the graph has no op that takes time"
        return GraphOps(
            self._graph.component,
            self._threads,
            len(plain.seconds),
            plain_ms,
            plain.cpu_s / max(sum(plain.seconds), 1e-9),
            float(np.percentile(self._whole_us, _QUICK)) / 1000 if self._whole_us else None,
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


@functools.cache
def profiler_us(threads: int) -> float:
    """What ONNX Runtime's profiler adds to every call, measured on a chain of ops that do nothing."""
    from pocketvl_runtime.backends.onnx_ops import profile_onnx

    one = (1,)
    graph = GraphSpec(
        "chain",
        Engine.ONNX,
        Precision.FP32,
        f"{GRAPHS}/chain.onnx",
        (TensorSpec("x", "float32", one),),
        (TensorSpec("y", "float32", one),),
    )
    _, each_run = profile_onnx(
        graph, packed_graph(graph), threads, {"x": np.ones(one, np.float32)}, _MOST_RUNS
    )
    return _quick_mean(node.own_us for run in each_run for node in run)


def _onnx(
    graph: GraphSpec, content: bytes, threads: int, inputs: Inputs, runs: int
) -> tuple[list[float], list[list[OpTime]], str | None]:
    from pocketvl_runtime.backends.onnx_ops import profile_onnx

    whole_us, each_run = profile_onnx(graph, content, threads, inputs, runs)
    ops = [
        [
            OpTime(
                each.type,
                "cpu" if each.provider == "CPUExecutionProvider" else each.provider or "unknown",
                each.own_us / 1000,
                each.name or None,
                inputs=each.inputs,
                outputs=each.outputs,
            )
            for each in run
        ]
        for run in each_run
    ]
    return whole_us, ops, None


def _litert(
    graph: GraphSpec, content: bytes, threads: int, inputs: Inputs, runs: int
) -> tuple[list[float], list[list[OpTime]], str | None]:
    from pocketvl_runtime.backends.litert_ops import LiteRtProfiler, obstacle

    reason = obstacle(graph)
    if reason is not None:
        return [], [], reason
    with LiteRtProfiler(content, threads) as profiler:
        told = profiler.run(inputs, _WARMUP_RUNS + runs)[_WARMUP_RUNS:]
    ops = [
        [
            OpTime(
                each.type,
                each.unit,
                each.elapsed_us / 1000,
                name=f"subgraph {each.subgraph}" if each.subgraph else None,
                partition=each.partition,
                node=each.node,
            )
            for each in run
        ]
        for _, run in told
    ]
    return [float(whole) for whole, _ in told], ops, None


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


def without_profiler(ops: Sequence[OpTime], plain_ms: float, least_ms: float) -> tuple[OpTime, ...]:
    """Times without what ONNX Runtime's profiler adds to every call.

    It is taken to be the same for all calls: what the chain of ops that do nothing takes, or as much more, up
    to twice that, as all ops take beyond a plain run.

    Args:
        ops: as the profiler tells them.
        plain_ms: of a run without it.
        least_ms: of one call in the chain.
    """

    def left(over_ms: float) -> list[float]:
        return [max(op.ms - over_ms * op.calls, 0.0) for op in ops]

    low, high = least_ms, _MOST_OVERHEAD * least_ms
    if sum(left(low)) > plain_ms:
        for _ in range(20):
            middle = (low + high) / 2
            low, high = (middle, high) if sum(left(middle)) > plain_ms else (low, middle)
    return tuple(replace(op, ms=ms) for op, ms in zip(ops, left(low), strict=True))


def _quick_mean(values: Iterable[float]) -> float:
    """The mean of the quicker half: what interrupts a call only ever makes it slower."""
    ordered = sorted(values)
    return float(np.mean(ordered[: max(1, len(ordered) // 2)]))
