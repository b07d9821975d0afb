"""Faults of placement: ops that the accelerated delegate does not run, and a graph cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pocketvl.explain.explained import ExplainedGraph, ExplainedOp
from pocketvl.explain.finding import NOTED, Finding, Severity, counted, finding

_MANY_PARTITIONS = 5
_BEAR_WEIGHTS = ("FULLY_CONNECTED", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV")
_CONSTANT_WEIGHTS = (
    "XNNPACK takes constant weights alone: compute them before the export, as by merging LoRA's into its base"
)


def outside_delegate(graph: ExplainedGraph) -> Iterable[Finding]:
    """Ops of a TFLite graph that the engine's own kernels run, one thread each."""
    if not graph.file.engine_is_tflite or not graph.ops:
        return ()
    ops = [op for op in graph.ops if graph.is_outside_delegate(op)]
    computed = [op for op in ops if _computes_its_weights(op)]
    longest = max(ops, key=lambda op: op.ms, default=None)
    types = "" if longest is None else _types(longest)
    inside = len(graph.ops) - len(ops)
    none = "nothing ran in the delegate" if not inside else f"{inside} ops ran in it"
    return finding(
        "outside-delegate",
        graph,
        ops,
        f"goes into {len(ops)} ops outside of the accelerated delegate (XNNPACK; {none}), on the engine's "
        f"own kernels: {counted(ops)}{types}{_whose_weights(computed)}",
        (f"{_CONSTANT_WEIGHTS}; " if computed else "")
        + "write these in ops and dtypes that XNNPACK runs (float32 or int8, static shapes of at most six "
        "sizes), compute them before or after the graph, or take a newer engine: its XNNPACK runs more",
    )


def partitions(graph: ExplainedGraph) -> Iterable[Finding]:
    """A graph that ops outside of the delegate cut into many parts."""
    found = {op.partition for op in graph.ops if op.partition is not None}
    cutting = [op for op in graph.ops if graph.is_outside_delegate(op)]
    if len(found) < _MANY_PARTITIONS or graph.share(sum(op.ms for op in cutting)) < NOTED / 5:
        return
    yield Finding(
        "partitions",
        Severity.ALARM,
        graph.component,
        sum(op.ms for op in cutting),
        graph.share(sum(op.ms for op in cutting)),
        len(cutting),
        f"the accelerated delegate runs the graph in {len(found)} parts, between which {counted(cutting)} "
        "run outside of it: at every border tensors are handed over and nothing can be fused",
        "remove or move these ops, so that the graph is one part",
    )


def _types(op: ExplainedOp) -> str:
    if not op.work.inputs or not op.work.outputs:
        return ""
    largest = max(op.work.inputs, key=lambda each: each.size_bytes)
    return f"; the longest, {op.name}, makes {op.work.outputs[0]} of {largest}"


def _computes_its_weights(op: ExplainedOp) -> bool:
    """Whether a linear or a convolution reads weights that the graph computes."""
    weights = op.work.inputs[1:2]
    return op.name in _BEAR_WEIGHTS and bool(weights) and not weights[0].constant


def _whose_weights(ops: Sequence[ExplainedOp]) -> str:
    return (
        f"; {counted(ops)} among them multiply by weights that the graph computes in every run" if ops else ""
    )
