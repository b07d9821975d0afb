"""What a rule says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from pocketvl.explain.explained import ExplainedGraph, ExplainedOp

NOTED = 0.05
"""Of the time of a variant's graphs, what something must cost to be worth a word."""
ALARMING = 0.20
"""What it must cost to be called a fault."""
LEAST_ALARM_MS = 0.1
"""What takes less is never an alarm: of a graph that ends in so little time, nobody waits for a part."""


class Severity(StrEnum):
    """How a finding is meant: something is wrong, or it is only where the time goes."""

    ALARM = "alarm"
    NOTE = "note"


@dataclass(frozen=True)
class Finding:
    """One cause of a variant's latency.

    Attributes:
        rule: which rule says it.
        severity: how it is meant.
        component: of which graph; None: of the variant, or of the machine.
        ms: what it costs in one run; None: not measured in milliseconds.
        share: of the time of all graphs of the variant, 0 to 1.
        ops: how many operators it is about.
        cause: one sentence.
        advice: one sentence: what to do, by which option.
        gain_ms: at most so much is gained by it; None: not known.
    """

    rule: str
    severity: Severity
    component: str | None
    ms: float | None
    share: float
    ops: int
    cause: str
    advice: str
    gain_ms: float | None = None

    def to_json(self) -> dict[str, object]:
        """The finding as JSON."""
        return {
            "rule": self.rule,
            "severity": self.severity.value,
            "component": self.component,
            "ms": self.ms,
            "share": self.share,
            "ops": self.ops,
            "cause": self.cause,
            "advice": self.advice,
            "gain_ms": self.gain_ms,
        }


def severity_of(share: float, alarming: float = ALARMING) -> Severity:
    """An alarm from a share on."""
    return Severity.ALARM if share >= alarming else Severity.NOTE


def finding(
    rule: str,
    graph: ExplainedGraph,
    ops: Sequence[ExplainedOp],
    cause: str,
    advice: str,
    *,
    ms: float | None = None,
    noted: float = NOTED,
    alarming: float = ALARMING,
    gain_ms: float | None = None,
) -> Iterable[Finding]:
    """A finding about operators, where they cost enough; none where they do not.

    Args:
        rule: which.
        graph: theirs.
        ops: the operators; some.
        cause: a sentence without its subject's share, which is put before it.
        advice: a sentence.
        ms: what they cost; by default all of their time.
        noted: share from which on it is said.
        alarming: share from which on it is an alarm, where it takes `LEAST_ALARM_MS` as well.
        gain_ms: by default all that they cost.
    """
    cost_ms = sum(each.ms for each in ops) if ms is None else ms
    share = graph.share(cost_ms)
    if not ops or share < noted:
        return
    calls = sum(each.calls for each in ops)
    text = f"{share:.0%} of the time ({cost_ms:.3g} ms) {cause}"
    bound = cost_ms if gain_ms is None else gain_ms
    severity = severity_of(share, alarming) if cost_ms >= LEAST_ALARM_MS else Severity.NOTE
    yield Finding(rule, severity, graph.component, cost_ms, share, calls, text, advice, bound)


def counted(ops: Iterable[ExplainedOp], most: int = 4) -> str:
    """Operators by name, those that take longest first: "34 QuantizeLinear, 2 Cast"."""
    calls: dict[str, int] = defaultdict(int)
    cost: dict[str, float] = defaultdict(float)
    for each in ops:
        calls[each.name] += each.calls
        cost[each.name] += each.ms
    names = sorted(calls, key=lambda name: -cost[name])
    more = f" and {len(names) - most} other kinds" if len(names) > most else ""
    return ", ".join(f"{calls[name]} {name}" for name in names[:most]) + more


def shapes(op: ExplainedOp) -> str:
    """What an operator reads and gives, for people; "" where it is not known."""
    work = op.work
    if work.channels is not None:
        rows, inner, columns = work.channels
        return f" ({rows} rows, {inner} to {columns} channels, {work.precision})"
    told = [str(each) for each in (*work.inputs[:2], *work.outputs[:1])]
    return f" ({' '.join(told[:-1])} -> {told[-1]})" if len(told) > 1 else ""
