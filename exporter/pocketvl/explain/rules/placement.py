"""Faults of placement: ops that the accelerated delegate does not run, and a graph cut into pieces."""

from __future__ import annotations

from collections.abc import Iterable

from pocketvl.explain.explained import ExplainedGraph, ExplainedOp
from pocketvl.explain.finding import NOTED, Finding, Severity, counted, finding
from pocketvl_runtime.op_result import DELEGATE

_MANY_PARTITIONS = 5


def outside_delegate(graph: ExplainedGraph) -> Iterable[Finding]:
    """Ops of a TFLite graph that LiteRT's own kernels run, one thread each."""
    if not graph.file.engine_is_tflite or not graph.ops:
        return ()
    ops = [op for op in graph.ops if op.unit != DELEGATE]
    longest = max(ops, key=lambda op: op.ms, default=None)
    types = "" if longest is None else _types(longest)
    inside = len(graph.ops) - len(ops)
    none = "nothing ran in the delegate" if not inside else f"{inside} ops ran in it"
    return finding(
        "outside-delegate",
        graph,
        ops,
        f"goes into {len(ops)} ops outside of the accelerated delegate (XNNPACK; {none}), on LiteRT's own "
        f"kernels: {counted(ops)}{types}",
        "write these in ops and dtypes that XNNPACK runs (float32 or int8, static shapes of at most six "
        "sizes), or compute them before the graph",
    )


def partitions(graph: ExplainedGraph) -> Iterable[Finding]:
    """A graph that ops outside of the delegate cut into many parts."""
    found = {op.partition for op in graph.ops if op.partition is not None}
    cutting = [op for op in graph.ops if op.unit != DELEGATE]
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
    told = [str(each) for each in (*op.work.inputs[:1], *op.work.outputs[:1])]
    return f"; the longest, {op.name}, makes {told[-1]} of {told[0]}" if len(told) == 2 else ""
