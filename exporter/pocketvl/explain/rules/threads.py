"""Faults of threads: too few, too many, or no use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pocketvl.explain.classes import OpClass
from pocketvl.explain.explained import ExplainedGraph, milliseconds
from pocketvl.explain.finding import Finding, Severity

_MOST_THREADS = 4
"""More than these are rarely a help to one inference, so no fewer than these are asked for."""
_NO_USE = 0.9
_WORTH_MS = 5.0
"""A graph that takes longer should become quicker with more threads."""


def threads(graphs: Sequence[ExplainedGraph]) -> Iterable[Finding]:
    """What one variant's graphs say at all thread counts at which they were timed.

    Args:
        graphs: of one variant, at least one.
    """
    machine = graphs[0].machine
    counts = sorted({graph.threads for graph in graphs})
    usable = machine.usable_processors
    yield from _limited(graphs, usable, machine.processors)
    yield from _one_only(graphs, counts, usable)
    yield from _too_many(graphs, counts, usable)
    yield from _no_use(graphs, counts, usable)


def _limited(graphs: Sequence[ExplainedGraph], usable: int, processors: int) -> Iterable[Finding]:
    if usable >= processors or usable >= _MOST_THREADS:
        return
    yield Finding(
        "threads-limited",
        Severity.ALARM if usable == 1 else Severity.NOTE,
        None,
        None,
        0.0,
        0,
        f"the process may use {usable} of the machine's {processors} processors, so more threads cannot help",
        "raise the limit: `taskset`, `docker run --cpus`, a cgroup's cpu.max or a cpuset leaves no more",
        _gain(graphs, min(processors, _MOST_THREADS)),
    )


def _one_only(graphs: Sequence[ExplainedGraph], counts: Sequence[int], usable: int) -> Iterable[Finding]:
    if counts != [1] or usable < 2:
        return
    count = min(usable, _MOST_THREADS)
    yield Finding(
        "one-thread",
        Severity.ALARM,
        None,
        None,
        0.0,
        0,
        f"only one thread was used, and {usable} processors could be: {usable - 1} of them idle",
        f"measure and run with more: `pocketvl profile --threads 1,{count}`, `pocketvl_runtime.load(..., "
        f"threads={count})`",
        _gain(graphs, count),
    )


def _too_many(graphs: Sequence[ExplainedGraph], counts: Sequence[int], usable: int) -> Iterable[Finding]:
    many = [count for count in counts if count > usable]
    if not many:
        return
    slowest = sum(graph.plain_ms for graph in graphs if graph.threads == many[-1])
    fewer = [
        sum(graph.plain_ms for graph in graphs if graph.threads == count)
        for count in counts
        if count <= usable
    ]
    told = f"; {slowest:.3g} ms instead of {min(fewer):.3g} ms with fewer" if fewer else ""
    yield Finding(
        "too-many-threads",
        Severity.ALARM,
        None,
        None,
        0.0,
        0,
        f"{many[-1]} threads share {usable} processors and wait for each other{told}",
        f"take no more threads than processors: `--threads {min(usable, _MOST_THREADS)}`",
        max(slowest - min(fewer), 0.0) if fewer else None,
    )


def _no_use(graphs: Sequence[ExplainedGraph], counts: Sequence[int], usable: int) -> Iterable[Finding]:
    fitting = [count for count in counts if count <= usable]
    if len(fitting) < 2 or fitting[0] != 1 or not all(graph.is_quiet for graph in graphs):
        return
    one, most = (
        sum(graph.plain_ms for graph in graphs if graph.threads == count)
        for count in (fitting[0], fitting[-1])
    )
    if one <= 0 or most / one < _NO_USE:
        return
    at_one = [graph for graph in graphs if graph.threads == 1]
    multiplied = sum(milliseconds(graph.of_kind(OpClass.MULTIPLY)) for graph in at_one)
    whole = sum(graph.total_ms for graph in at_one)
    share = f"; {multiplied / whole:.0%} of it multiplies, and little else is shared out" if whole else ""
    yield Finding(
        "threads-no-use",
        Severity.ALARM if one >= _WORTH_MS else Severity.NOTE,
        None,
        None,
        0.0,
        0,
        f"{fitting[-1]} threads take {most:.3g} ms, and one takes {one:.3g} ms{share}",
        "run this variant with one thread and leave the other processors to something else",
        None,
    )


def _gain(graphs: Sequence[ExplainedGraph], count: int) -> float | None:
    """What more threads could gain at most: linears and products shared out evenly, all else as it is."""
    at_one = [graph for graph in graphs if graph.threads == 1]
    if not at_one or count < 2:
        return None
    return sum(milliseconds(graph.of_kind(OpClass.MULTIPLY)) for graph in at_one) * (1 - 1 / count)
