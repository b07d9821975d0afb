"""Why a variant in integers is no quicker than the one in floats: class by class."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from pocketvl.explain.classes import OpClass
from pocketvl.explain.explained import ExplainedGraph, milliseconds
from pocketvl.explain.finding import Finding, Severity

_NO_QUICKER = 0.9
FLOAT = "fp32"


@dataclass(frozen=True)
class ClassDifference:
    """One class of ops in two variants.

    Attributes:
        kind: the class.
        float_ms: in the float variant.
        other_ms: in the other.
    """

    kind: OpClass
    float_ms: float
    other_ms: float


@dataclass(frozen=True)
class Comparison:
    """A variant held against the float variant of the same engine.

    Attributes:
        variant: which.
        reference: the float one.
        threads: of both.
        rows: by class, the largest first.
        plain_ms: of both whole, the float one first: tenth percentiles of runs without the profiler.
        is_quiet: whether other programs left the processors alone.
    """

    variant: str
    reference: str
    threads: int
    rows: tuple[ClassDifference, ...]
    plain_ms: tuple[float, float]
    is_quiet: bool

    @property
    def float_ms(self) -> float:
        return sum(row.float_ms for row in self.rows)

    @property
    def other_ms(self) -> float:
        return sum(row.other_ms for row in self.rows)


def compare(other: Sequence[ExplainedGraph], reference: Sequence[ExplainedGraph]) -> Comparison | None:
    """Where two variants' graphs spend their time; None where one does not tell.

    Args:
        other: graphs of a variant, at one thread count.
        reference: of the float variant, at the same.
    """
    if not other or not reference or not all(graph.ops for graph in (*other, *reference)):
        return None
    sums: dict[OpClass, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for column, graphs in enumerate((reference, other)):
        for graph in graphs:
            for kind in OpClass:
                sums[kind][column] += milliseconds(graph.of_kind(kind))
    rows = [ClassDifference(kind, *both) for kind, both in sums.items() if any(both)]
    rows.sort(key=lambda row: -max(row.float_ms, row.other_ms))
    plain = (sum(graph.plain_ms for graph in reference), sum(graph.plain_ms for graph in other))
    return Comparison(
        other[0].variant, reference[0].variant, other[0].threads, tuple(rows), plain, other[0].is_quiet
    )


def no_quicker(found: Comparison) -> Finding | None:
    """That a variant is hardly quicker than floats, and what ate the gain; None where it is quicker."""
    float_ms, other_ms = found.plain_ms
    if found.other_ms < _NO_QUICKER * found.float_ms or other_ms < _NO_QUICKER * float_ms:
        return None
    grown = sorted(found.rows, key=lambda row: row.float_ms - row.other_ms)
    slower = [row for row in grown if row.other_ms > row.float_ms][:3]
    multiplied = next((row for row in found.rows if row.kind is OpClass.MULTIPLY), None)
    gained = (
        ""
        if multiplied is None
        else f"linears and products take {multiplied.other_ms:.3g} instead of {multiplied.float_ms:.3g} ms"
    )
    lost = ", ".join(
        f"{row.kind.value} {row.other_ms:.3g} instead of {row.float_ms:.3g} ms" for row in slower
    )
    return Finding(
        "no-quicker-than-float",
        Severity.ALARM if found.is_quiet else Severity.NOTE,  # two loads a minute apart are not alike
        None,
        found.other_ms,
        1.0,
        0,
        f"its ops take {found.other_ms:.3g} ms and those of {found.reference} {found.float_ms:.3g} ms: "
        f"{gained}{'; what grew: ' + lost if lost else ''}",
        f"see the findings of {found.variant}; where latency alone counts, ship {found.reference} for this "
        "machine",
        max(found.other_ms - found.float_ms, 0.0),
    )
