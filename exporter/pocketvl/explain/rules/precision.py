"""Faults of precision: conversions, floats among integers, integers that are no quicker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise

from pocketvl.explain.classes import TABLE, OpClass
from pocketvl.explain.explained import ExplainedGraph, ExplainedOp, milliseconds
from pocketvl.explain.finding import Finding, counted, finding
from pocketvl.explain.work import FP16, FP32, INT4, INT8, Tensor

_MANY_CONVERSIONS = 2
_ISLANDS_ALARMING = 0.6
"""Attention, softmax and LayerNorms stay in float in every int8 variant that pocketvl exports."""
_WORTH_RATIO = 1.5
"""How much quicker than floats 8-bit integers must multiply, measured, to be worth their conversions."""
_LOOKS = 4.0
"""By so many copies of its input a dynamic op's quantizing is put: largest value, scale, rounding, sum."""
_INTEGERS = (INT8, INT4)
_FLOATS = (FP32, FP16)


def conversions(graph: ExplainedGraph) -> Iterable[Finding]:
    """Time that goes into changing number formats."""
    ops = [op for op in graph.of_kind(OpClass.CONVERT) if not _reads_weights(op)]
    if sum(op.calls for op in ops) < _MANY_CONVERSIONS and not graph.of_kind(OpClass.MULTIPLY):
        return ()
    around = _between(graph)
    where = f" around {counted(around, 3)}" if around else ""
    return finding(
        "conversions",
        graph,
        ops,
        f"goes into {sum(op.calls for op in ops)} conversions of number formats{where}: {counted(ops)}",
        "quantize fewer layers, or the ops between them too: `--variants onnx-int8dyn,tflite-int8dyn` "
        "quantizes linears alone and converts inside them; compare it with the float variant",
    )


def unpacked_weights(graph: ExplainedGraph) -> Iterable[Finding]:
    """Weights that are turned into floats again in every run."""
    ops = [op for op in graph.of_kind(OpClass.CONVERT) if _reads_weights(op)]
    return finding(
        "unpacked-weights",
        graph,
        ops,
        f"goes into turning stored weights into floats anew in every run: {counted(ops)}{_first_shape(ops)}",
        "use a form that the engine multiplies as it is stored (int8 per channel; int4 as MatMulNBits or "
        "blockwise FULLY_CONNECTED), which every variant of `pocketvl export` has, or store these in float",
    )


def float_linears(graph: ExplainedGraph) -> Iterable[Finding]:
    """Linears that run in float although the graph's others, or its weights, are integers."""
    linears = [op for op in graph.of_kind(OpClass.MULTIPLY) if op.work.is_linear]
    floats = [op for op in linears if op.work.precision in _FLOATS]
    integers = [op for op in linears if op.work.precision in _INTEGERS]
    stored = any(
        node.type in ("QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE")
        for node in graph.file.nodes
    )
    if not floats or not (integers or (stored and graph.file.stores_integers)):
        return ()
    slowest = max(floats, key=lambda op: op.ms)
    if integers:
        cause = (
            f"goes into {len(floats)} linears or convolutions that run in float among {len(integers)} in "
            f"integers: {counted(floats)}, the longest {slowest.name}{_shape_of(slowest)}"
        )
    else:
        cause = (
            f"goes into {len(floats)} linears or convolutions that run in float although their weights are "
            "stored as integers: the engine found no integer kernel for the pattern and multiplies floats"
        )
    return finding(
        "float-linears",
        graph,
        floats,
        cause,
        "look in report.json at which layers fell back and why (`notes`), and export them in int8 dynamic "
        "(`--variants ...-int8dyn`) or with `--recipe qat-int8`, or let every layer have both QuantizeLinear "
        "and DequantizeLinear around it",
        gain_ms=_gain_of_integers(graph, floats),
    )


def half_stored(graph: ExplainedGraph) -> Iterable[Finding]:
    """Weights stored in 16 bits that are multiplied as floats of 32: smaller, and no quicker."""
    weights = graph.file.weights
    ops = [op for op in graph.of_kind(OpClass.MULTIPLY) if op.work.is_linear and op.work.precision == FP32]
    if 2 * weights.get("float16", 0.0) <= weights.get("float32", 0.0):
        return ()
    return finding(
        "half-stored",
        graph,
        ops,
        f"goes into {len(ops)} linears or convolutions whose weights are stored in 16 bits and multiplied in "
        f"32: {graph.engine} has no products of 16 bits on this processor, or was not asked for them",
        "fp16 saves size here, not time: for latency take int8 (`--variants onnx-int8,tflite-int8`)",
        noted=0.3,
        alarming=2.0,
        gain_ms=_gain_of_integers(graph, ops),
    )


def float_islands(graph: ExplainedGraph) -> Iterable[Finding]:
    """Float ops between integer ones."""
    between = [op for op in _between(graph) if not (op.work.is_linear and op.work.precision in _FLOATS)]
    if not _has_integers(graph):
        return ()
    converted = [op for op in graph.of_kind(OpClass.CONVERT) if not _reads_weights(op)]
    return finding(
        "float-islands",
        graph,
        between,
        f"is float ops between integer ones: {counted(between)}; {sum(op.calls for op in converted)} "
        f"conversions in and out take {milliseconds(converted):.3g} ms more",
        "this is what int8 cannot make quicker; fewer or shorter tokens do (`pocketvl compress` with "
        "prune_cross_modal, drop_layers or prune_units)",
        noted=0.25,
        alarming=_ISLANDS_ALARMING,
    )


def repeated_quantization(graph: ExplainedGraph) -> Iterable[Finding]:
    """One input that is quantized anew for each of the linears that read it."""
    ops = [op for op in graph.of_kind(OpClass.MULTIPLY) if _quantizes_its_input(op)]
    inside = [op for op in graph.of_kind(OpClass.CONVERT) if op.name == "DynamicQuantizeLinear"]
    readers = Counter(op.work.inputs[0].key for op in ops if op.work.inputs and op.work.inputs[0].key)
    repeats = sum(count - 1 for count in readers.values() if count > 1)
    if not readers and ops:  # the engine does not tell which tensor is which: by equal shapes in a row
        repeats = sum(
            str(a.work.inputs[0]) == str(b.work.inputs[0])
            for a, b in pairwise(ops)
            if a.work.inputs and b.work.inputs
        )
    total = len(ops) or len(inside)
    if not repeats or not total:
        return ()
    cost = milliseconds(inside) if inside else sum(_quantizing_ms(graph, op) for op in ops)
    return finding(
        "repeated-quantization",
        graph,
        ops or inside,
        f"goes, about, into quantizing inputs as they come, {repeats} of {total} times one that a linear "
        "beside it quantizes too (queries, keys and values)",
        "take the static variant (`--variants onnx-int8,tflite-int8`), where each input is quantized once",
        ms=cost,
        gain_ms=cost * repeats / total,
    )


def slow_integers(graph: ExplainedGraph) -> Iterable[Finding]:
    """Integer products on a processor that multiplies integers hardly quicker than floats."""
    roofline = graph.roofline
    ops = [op for op in graph.of_kind(OpClass.MULTIPLY) if op.work.precision in _INTEGERS]
    if roofline is None or not {FP32, INT8} <= roofline.gmacs_per_s.keys():
        return ()
    ratio = roofline.gmacs_per_s[INT8] / roofline.gmacs_per_s[FP32]
    if ratio >= _WORTH_RATIO:
        return ()
    exact = "" if graph.machine.exact_int8 else ", and must add products exactly, which costs more there"
    return finding(
        "slow-integers",
        graph,
        ops,
        f"goes into integer products, which {graph.machine.isa} multiplies only {ratio:.1f} times as quickly "
        f"as floats with {graph.engine}{exact}",
        "on this processor prefer the float variant where latency counts, int8 where size does; or measure "
        "on the device itself: ARM with dotprod and x86 with VNNI multiply integers several times as quickly",
    )


def _between(graph: ExplainedGraph) -> list[ExplainedOp]:
    """Float ops in a graph that multiplies integers, as far as they can be told."""
    if not _has_integers(graph):
        return []
    return [op for op in graph.ops if _is_float(op) and op.kind not in (OpClass.CONVERT, OpClass.LAYOUT)]


def _has_integers(graph: ExplainedGraph) -> bool:
    return any(op.work.precision in _INTEGERS for op in graph.of_kind(OpClass.MULTIPLY))


def _is_float(op: ExplainedOp) -> bool:
    if op.kind is OpClass.MULTIPLY:
        return op.work.precision in _FLOATS
    told: Sequence[Tensor] = op.work.outputs
    if told:
        return any(each.is_float for each in told)
    return "QS8" not in op.type and "QU8" not in op.type and op.name != TABLE


def _reads_weights(op: ExplainedOp) -> bool:
    """Whether what an op converts lies in the file, and is no mere scale."""
    return bool(op.work.inputs) and op.work.inputs[0].constant and op.work.inputs[0].elements > 1


def _quantizes_its_input(op: ExplainedOp) -> bool:
    return "(NC, QD" in op.type or op.name in ("DynamicQuantizeMatMul", "MatMulNBits")


def _quantizing_ms(graph: ExplainedGraph, op: ExplainedOp) -> float:
    """About what an op that quantizes its input spends on that: some looks at every value, and a write."""
    if graph.roofline is None or not op.work.inputs:
        return 0.0
    about = _LOOKS * op.work.inputs[0].size_bytes / graph.roofline.cached_gb_per_s / 1e6
    return min(about, op.ms - min(graph.roofline.multiply_ms(op.work) or 0.0, op.ms))


def _gain_of_integers(graph: ExplainedGraph, floats: Sequence[ExplainedOp]) -> float | None:
    """What float linears could save as integers, by the machine's peaks."""
    roofline = graph.roofline
    if roofline is None or not {FP32, INT8} <= roofline.gmacs_per_s.keys():
        return None
    ratio = roofline.gmacs_per_s[INT8] / roofline.gmacs_per_s[FP32]
    return milliseconds(floats) * max(0.0, 1 - 1 / ratio)


def _first_shape(ops: Sequence[ExplainedOp]) -> str:
    largest = max(ops, key=lambda op: op.ms, default=None)
    return "" if largest is None else f", the longest of {largest.work.inputs[0]}"


def _shape_of(op: ExplainedOp) -> str:
    if op.work.channels is None:
        return ""
    rows, inner, columns = op.work.channels
    return f" of {rows} rows, {inner} to {columns} channels"
