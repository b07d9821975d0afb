"""A graph's operators with their times, their work, and what the machine's peaks would allow."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pocketvl.explain.classes import TRANSCENDENTAL, OpClass, class_of, short_name
from pocketvl.explain.onnx_work import work_of_op
from pocketvl.explain.tflite_work import works_of_ops
from pocketvl.explain.work import FP16, FP32, INT4, INT8, GraphFile, Work
from pocketvl_runtime.bench_result import BenchResult, Machine
from pocketvl_runtime.op_result import DELEGATE, GraphOps, OpTime, Peak

_CALL_MS = 0.001
"""What a call may take beside its work, on a quick machine: handing out tensors, waking threads."""
_MANY_INSTRUCTIONS = 4.0
"""How much longer than a copy an exponential or an activation may take, by the byte."""
_PEAK_PRECISION = {FP32: FP32, FP16: FP32, INT8: INT8, INT4: INT8}
_QUIET = 0.2
_CACHE_BYTES = 1 << 20
"""Where the system does not tell the size of the largest cache: what even small boards have."""


@dataclass(frozen=True)
class ExplainedOp:
    """An operator.

    Attributes:
        type: as the engine calls it.
        kind: its class.
        unit: what ran it.
        ms: in one run, of all its calls.
        calls: in one run.
        partition: of the delegate, which part of the graph; None: it is in none.
        work: of one call.
        attainable_ms: what all calls would take at the machine's peaks; None: not known.
    """

    type: str
    kind: OpClass
    unit: str
    ms: float
    calls: int
    partition: int | None
    work: Work
    attainable_ms: float | None

    @property
    def name(self) -> str:
        return short_name(self.type)


@dataclass(frozen=True)
class Roofline:
    """What the machine can do with an engine at a thread count.

    Attributes:
        gmacs_per_s: by precision; empty where it was not measured.
        cached_gb_per_s: for data in the caches.
        memory_gb_per_s: for data that is not.
        cache_bytes: what stays in the caches between two runs.
    """

    gmacs_per_s: dict[str, float]
    cached_gb_per_s: float
    memory_gb_per_s: float
    cache_bytes: int

    def multiply_ms(self, work: Work) -> float | None:
        """Milliseconds of the multiply-adds alone; None: not known."""
        peak = self.gmacs_per_s.get(_PEAK_PRECISION.get(work.precision or "", ""))
        return None if work.macs is None or not peak else work.macs / peak / 1e6

    def weights_ms(self, work: Work, graph_bytes: float) -> float:
        """Milliseconds of reading an operator's weights, of a graph whose weights take so many bytes."""
        cached = graph_bytes <= self.cache_bytes
        return work.weight_bytes / (self.cached_gb_per_s if cached else self.memory_gb_per_s) / 1e6

    def other_ms(self, work: Work) -> float:
        """Milliseconds of reading and writing everything but weights."""
        moved = max(work.moved_bytes - work.weight_bytes, 0.0)
        fits = moved <= self.cache_bytes / 2
        return moved / (self.cached_gb_per_s if fits else self.memory_gb_per_s) / 1e6

    def attainable_ms(self, kind: OpClass, work: Work, graph_bytes: float) -> float | None:
        """Milliseconds that one call could take at best; None: not known."""
        if kind is OpClass.MULTIPLY:
            multiply = self.multiply_ms(work)
            if multiply is None:
                return None
            return _CALL_MS + max(multiply, self.weights_ms(work, graph_bytes)) + self.other_ms(work)
        if not work.moved_bytes:
            return None
        factor = _MANY_INSTRUCTIONS if kind in TRANSCENDENTAL else 1.0
        return _CALL_MS + factor * (self.other_ms(work) + self.weights_ms(work, graph_bytes))


@dataclass(frozen=True)
class ExplainedGraph:
    """One graph of a variant at one thread count.

    Attributes:
        variant: whose.
        component: which graph.
        engine: what ran it, "onnxruntime", "ai-edge-litert".
        threads: of an inference.
        plain_ms: tenth percentile of a run without the profiler.
        busy_threads: processors that it kept busy.
        ops: in the order in which they ran; empty where the engine does not tell.
        reason: why there are none.
        file: its nodes and weights.
        roofline: what the machine can do; None: not measured.
        machine: where it ran.
        other_load: processors that other programs kept busy meanwhile; None: not known.
        answer_ms: what the operators of all graphs of the variant take; 0: only this one's count.
    """

    variant: str
    component: str
    engine: str
    threads: int
    plain_ms: float
    busy_threads: float
    ops: tuple[ExplainedOp, ...]
    reason: str | None
    file: GraphFile
    roofline: Roofline | None
    machine: Machine
    other_load: float | None
    answer_ms: float = 0.0

    @property
    def total_ms(self) -> float:
        """What its operators take in one run."""
        return milliseconds(self.ops)

    @property
    def is_quiet(self) -> bool:
        """Whether other programs left the processors alone, so that whole runs can be trusted."""
        return self.other_load is None or self.other_load < _QUIET

    def share(self, ms: float) -> float:
        """A part of the time of all operators of the variant's graphs, 0 to 1."""
        whole = max(self.answer_ms, self.total_ms)
        return ms / whole if whole else 0.0

    def is_outside_delegate(self, op: ExplainedOp) -> bool:
        """Whether one of the engine's own kernels ran an operator of a TFLite graph."""
        return self.file.engine_is_tflite and op.unit != DELEGATE

    def of_kind(self, *kinds: OpClass) -> list[ExplainedOp]:
        """The operators of some classes."""
        return [each for each in self.ops if each.kind in kinds]


def milliseconds(ops: Iterable[ExplainedOp]) -> float:
    """What operators take together in one run."""
    return sum(each.ms for each in ops)


def explain_graph(
    result: BenchResult, variant: str, engine: str, graph: GraphOps, file: GraphFile
) -> ExplainedGraph:
    """Join the times of a graph's operators with what they have to do.

    Args:
        result: the bench's, for machine and peaks.
        variant: whose graph it is.
        engine: what ran it.
        graph: the times.
        file: what the graph's file says.
    """
    works = (
        list(works_of_ops(graph, file))
        if file.engine_is_tflite
        else [work_of_op(op, file) for op in graph.ops]
    )
    roofline = _roofline(result, graph.threads, "tflite" if file.engine_is_tflite else "onnx")
    weights = sum(file.weights.values())
    ops = tuple(_op(op, work, roofline, weights) for op, work in zip(graph.ops, works, strict=True))
    return ExplainedGraph(
        variant,
        graph.component,
        engine,
        graph.threads,
        graph.plain_ms,
        graph.busy_threads,
        ops,
        graph.reason,
        file,
        roofline,
        result.machine,
        _other_load(result),
    )


def _op(op: OpTime, work: Work, roofline: Roofline | None, weights: float) -> ExplainedOp:
    kind = class_of(op.type)
    best = None if roofline is None else roofline.attainable_ms(kind, work, weights)
    return ExplainedOp(
        op.type,
        kind,
        op.unit,
        op.ms,
        op.calls,
        op.partition,
        work,
        None if best is None else best * op.calls,
    )


def _roofline(result: BenchResult, threads: int, engine: str) -> Roofline | None:
    peak: Peak | None = next((each for each in result.peaks if each.threads == threads), None)
    if peak is None:
        return None
    start = f"{engine}-"
    gmacs = {k.removeprefix(start): v for k, v in peak.gmacs_per_s.items() if k.startswith(start)}
    cache = result.cache_bytes or _CACHE_BYTES
    return Roofline(gmacs, peak.cached_gb_per_s, peak.memory_gb_per_s, cache)


def _other_load(result: BenchResult) -> float | None:
    samples: Sequence[float] = [
        each.other_load
        for each in (result.conditions.samples if result.conditions else ())
        if each.other_load is not None
    ]
    return sum(samples) / len(samples) if samples else None
