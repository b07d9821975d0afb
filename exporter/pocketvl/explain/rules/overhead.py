"""Time that multiplies nothing: copies, lookups, activations in pieces, loops, ops not worth their call."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pocketvl.explain.classes import OpClass
from pocketvl.explain.explained import ExplainedGraph, ExplainedOp, milliseconds
from pocketvl.explain.finding import Finding, counted, finding, shapes

_PIECES = (OpClass.ARITHMETIC, OpClass.ACTIVATION, OpClass.CONVERT)
_WHOLE = ("Erf", "Tanh", "TANH", "TanH", "Exp", "EXP", "Sigmoid", "LOGISTIC")
"""What an activation in pieces is written around."""
_REACH = 4
"""How many ops before and after may belong to it."""
_FEWEST_PIECES = 3
_TINY_MS = 0.0015
_MANY_TINY = 100
_WORTH_MS = 0.25
"""A graph that takes less is small as a whole, which is no fault of its ops."""


def layout(graph: ExplainedGraph) -> Iterable[Finding]:
    """Copies that only move numbers."""
    ops = graph.of_kind(OpClass.LAYOUT)
    longest = max(ops, key=lambda op: op.ms, default=None)
    return finding(
        "layout",
        graph,
        ops,
        f"only moves numbers: {counted(ops)}"
        f"{'' if longest is None else f'; longest: {longest.name}{shapes(longest)}'}",
        "keep one layout through the graph (no transposes around single convolutions, no concatenation of "
        "what is split again), and let reshapes keep the last size",
        noted=0.1,
        alarming=0.3,
    )


def lookups(graph: ExplainedGraph) -> Iterable[Finding]:
    """Tables of embeddings, and scattering."""
    ops = graph.of_kind(OpClass.LOOKUP)
    longest = max(ops, key=lambda op: op.ms, default=None)
    return finding(
        "lookups",
        graph,
        ops,
        f"goes into looking up rows: {counted(ops)}{'' if longest is None else shapes(longest)}",
        "look up only rows that are read, along the first size of a table of contiguous rows, before "
        "anything is done to the whole table",
    )


def decomposed_activation(graph: ExplainedGraph) -> Iterable[Finding]:
    """An activation that is written as several ops, each of which reads and writes everything once more."""
    pieces, chains = _pieces(graph)
    one_ms = milliseconds([op for op in pieces if op.name in _WHOLE])
    return finding(
        "decomposed-activation",
        graph,
        pieces,
        f"goes into {chains} activations that run as {len(pieces)} single ops: {counted(pieces)}",
        "let the engine fuse them: write the activation as one op (Gelu since opset 20), or as (0.5 * x) * "
        "(1 + erf(...)) or tanh(...) in that order, without QuantizeLinear or DequantizeLinear between its "
        "pieces; or take the TFLite variant, where XNNPACK runs it as one",
        noted=0.08,
        alarming=0.4,
        gain_ms=milliseconds(pieces) - one_ms,
    )


def control_flow(graph: ExplainedGraph) -> Iterable[Finding]:
    """Loops and branches, which call graphs of their own."""
    ops = graph.of_kind(OpClass.CONTROL)
    if not ops:
        return ()
    inside = [op for op in graph.ops if op.calls > 1]
    repeats = max((op.calls for op in inside), default=1)
    return finding(
        "control-flow",
        graph,
        [*ops, *inside],
        f"goes into control flow ({counted(ops)}) and what it calls up to {repeats} times in a run: nothing "
        "is fused across its borders, and each turn hands all tensors over",
        "export without it: static shapes, loops unrolled or written as one product over all steps",
        noted=0.05,
        alarming=0.1,
    )


def tiny_ops(graph: ExplainedGraph) -> Iterable[Finding]:
    """Many ops that take hardly longer than their call."""
    ops = [
        op
        for op in graph.ops
        if op.ms / op.calls < 4 * _TINY_MS and (op.attainable_ms or 0) < 2 * _TINY_MS * op.calls
    ]
    calls = sum(op.calls for op in ops)
    if calls < _MANY_TINY:
        return ()
    return finding(
        "tiny-ops",
        graph,
        ops,
        f"goes into calling {calls} ops that have next to nothing to do each: {counted(ops)}",
        "let fewer ops do more: fuse or remove them before export (constant sub-graphs, chains of "
        "elementwise ops, shapes computed at run time), or run larger inputs at once",
        noted=0.25,
        alarming=0.5 if graph.plain_ms >= _WORTH_MS else math.inf,
    )


def _pieces(graph: ExplainedGraph) -> tuple[list[ExplainedOp], int]:
    """The ops around every exponential or error function that work on as many values; how many these are."""
    taken: dict[int, ExplainedOp] = {}
    chains = 0
    for index, op in enumerate(graph.ops):
        if op.name not in _WHOLE:
            continue
        near = {index: op}
        for step in (-1, 1):
            for at in range(index + step, index + step * (_REACH + 1), step):
                if not (0 <= at < len(graph.ops) and _is_piece(graph.ops[at], op)):
                    break
                near[at] = graph.ops[at]
        if len(near) >= _FEWEST_PIECES:
            taken.update(near)
            chains += 1
    return [taken[index] for index in sorted(taken)], chains


def _is_piece(op: ExplainedOp, whole: ExplainedOp) -> bool:
    others = op.work.inputs[1:]
    if op.kind not in _PIECES or any(each.constant and each.elements > 1 for each in others):
        return False
    ours, its = whole.work.outputs, op.work.outputs
    return not ours or not its or its[0].elements == ours[0].elements
