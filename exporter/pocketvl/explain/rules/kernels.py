"""Operators against the machine's peaks: bound by memory, or far from what either peak allows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from pocketvl.explain.classes import OpClass
from pocketvl.explain.explained import ExplainedGraph, ExplainedOp, milliseconds
from pocketvl.explain.finding import Finding, counted, finding, shapes
from pocketvl.explain.work import FP16, FP32, INT8

_BOUND_RATIO = 2.0
"""A linear is bound by memory where its weights take so many times as long as its multiply-adds."""
_MEMORY_NOTED = 0.15
_MEMORY_ALARMING = 0.75
_SLOW_PRODUCT = 8.0
_SLOW_OP = 8.0
"""So many times what the machine could do is no longer the size of the op, but its kernel."""
_WASTED_MS = 0.02
"""By so much one call must be too long; below, it is the clock's and the scheduler's."""
_DOMINANT = 0.4
_FEW_OPS = 8
_OF_OTHER_RULES = (OpClass.MULTIPLY, OpClass.CONVERT, OpClass.LAYOUT, OpClass.LOOKUP, OpClass.CONTROL)
_FUSE = (
    "each of these ops reads and writes everything once more: let one do the work of several (fold constants "
    "into the weights before them, drop what undoes itself), or work on fewer or narrower tensors"
)
_FAST = {False: "MatMul, Gemm or Conv", True: "FULLY_CONNECTED, CONV_2D or BATCH_MATMUL (with adj_y)"}
"""Products that engines are quick at, by whether it is TFLite."""
_OTHER_ADVICE = {
    OpClass.ARITHMETIC: _FUSE,
    OpClass.ACTIVATION: f"{_FUSE}; an activation without exponentials (ReLU, hard swish) is quicker too",
    OpClass.NORMALIZE: _FUSE,
    OpClass.SOFTMAX: "attention's softmax grows with the square of the tokens: use fewer tokens or heads "
    "(larger patches, shorter texts, `pocketvl compress` with prune_units or prune_cross_modal)",
    OpClass.OTHER: "see in the profile (`graphs`) which ops these are, and whether simpler ones do",
}


def memory_bound(graph: ExplainedGraph) -> Iterable[Finding]:
    """Linears whose weights take longer to read than to multiply."""
    roofline = graph.roofline
    if roofline is None:
        return ()
    weights = sum(graph.file.weights.values())
    ops = []
    for op in graph.of_kind(OpClass.MULTIPLY):
        multiply, read = roofline.multiply_ms(op.work), roofline.weights_ms(op.work, weights)
        if multiply is not None and op.work.is_linear and read > _BOUND_RATIO * multiply:
            ops.append(op)
    if not ops:
        return ()
    longest = max(ops, key=lambda op: op.ms)
    floats = longest.work.precision in (FP32, FP16)
    smaller = "int8 or int4" if floats else "int4" if longest.work.precision == INT8 else "fewer"
    read_mb = sum(op.work.weight_bytes * op.calls for op in ops) / 1e6
    return finding(
        "memory-bound",
        graph,
        ops,
        f"is {len(ops)} linears bound by reading their weights ({read_mb:.1f} MB a run), not by multiplying: "
        f"the longest is {longest.name}{shapes(longest)}",
        f"smaller weights help here, quicker arithmetic does not: export {smaller} weights "
        f"(`--variants onnx-int4,tflite-int4`), or answer for several inputs in one run",
        noted=_MEMORY_NOTED,
        alarming=_MEMORY_ALARMING,
    )


def slow_products(graph: ExplainedGraph) -> Iterable[Finding]:
    """Linears, convolutions and products far below the machine's peak; not those outside of the delegate."""
    products = [op for op in graph.of_kind(OpClass.MULTIPLY) if not graph.is_outside_delegate(op)]
    ops = [op for op in products if _is_slow(op, _SLOW_PRODUCT)]
    if not ops or graph.roofline is None:
        return ()
    wasted = milliseconds(ops) - sum(op.attainable_ms or 0.0 for op in ops)
    longest = max(ops, key=lambda op: op.ms)
    rate = (longest.work.macs or 0) * longest.calls / longest.ms / 1e6
    precision = longest.work.precision or "fp32"
    peak = graph.roofline.gmacs_per_s.get(INT8 if precision not in (FP32, FP16) else FP32, 0.0)
    return finding(
        "slow-products",
        graph,
        ops,
        f"goes into {counted(ops)} far below the machine's peak: {longest.name}{shapes(longest)} reaches "
        f"{rate:.3g} of {peak:.3g} GMAC/s",
        f"give the op a form that has a fast kernel: a plain {_FAST[graph.file.engine_is_tflite]}, constant "
        "weights in float or in int8 per channel, as `pocketvl export` writes them",
        gain_ms=wasted,
    )


def slow_ops(graph: ExplainedGraph) -> Iterable[Finding]:
    """Any other kind of op that takes a large part and far longer than its bytes need."""
    by_name: dict[str, list[ExplainedOp]] = defaultdict(list)
    for op in graph.ops:
        if op.kind not in _OF_OTHER_RULES and not graph.is_outside_delegate(op):
            by_name[op.name].append(op)
    for name, ops in by_name.items():
        slow = [op for op in ops if op.attainable_ms is None or _is_slow(op, _SLOW_OP)]
        known = all(op.attainable_ms is not None for op in slow)
        times = milliseconds(slow) / max(sum(op.attainable_ms or 0.0 for op in slow), 1e-9)
        how = (
            f"{times:.0f} times what moving its bytes takes"
            if known
            else "and what it has to do is not known to pocketvl"
        )
        longest = max(slow, key=lambda op: op.ms, default=None)
        yield from finding(
            "slow-ops",
            graph,
            slow,
            f"goes into {sum(op.calls for op in slow)} {name}, {how}{shapes(longest) if longest else ''}",
            "look at why: an op without a vectorized kernel, a softmax or sum along another axis than the "
            "last, a broadcast over many small rows, or denormal numbers among its inputs (below 1e-38; they "
            "take a hundred times as long on Intel); replace it, or compute it once before the graph",
            noted=0.15,
            alarming=0.2 if known else 0.3,
        )


def other_work(graph: ExplainedGraph) -> Iterable[Finding]:
    """A class of ops that multiplies no matrices, and yet takes a large part."""
    for kind, advice in _OTHER_ADVICE.items():
        ops = graph.of_kind(kind)
        longest = max(ops, key=lambda op: op.ms, default=None)
        yield from finding(
            "other-work",
            graph,
            ops,
            f"goes into {kind.value}, not into linears and products: {counted(ops)}"
            f"{'' if longest is None else f'; longest: {longest.name}{shapes(longest)}'}",
            advice,
            noted=0.3,
            alarming=0.6,
        )


def dominant_op(graph: ExplainedGraph) -> Iterable[Finding]:
    """One op that takes a large part of a graph of many."""
    longest: Sequence[ExplainedOp] = sorted(graph.ops, key=lambda op: -op.ms)[:1]
    if not longest or len(graph.ops) < _FEW_OPS:
        return ()
    (op,) = longest
    wide = op.work.channels is not None and op.work.channels[2] >= 8 * op.work.channels[1]
    advice = (
        "its outputs are many: ask for fewer of them (a smaller vocabulary or list of answers, or only the "
        "rows that are read)"
        if wide
        else "start here: a smaller size or another form of this one op gains more than anything else"
    )
    return finding(
        "dominant-op",
        graph,
        longest,
        f"is a single {op.name}{shapes(op)}",
        advice,
        noted=_DOMINANT,
        alarming=2.0,
    )


def _is_slow(op: ExplainedOp, times: float) -> bool:
    if op.attainable_ms is None:
        return False
    return op.ms > times * op.attainable_ms and op.ms - op.attainable_ms > _WASTED_MS * op.calls
