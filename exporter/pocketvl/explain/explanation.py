"""The explanation of a bench: every variant's graphs, what the rules say of them, and advice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pocketvl.errors import RecipeError
from pocketvl.explain.classes import OpClass
from pocketvl.explain.explained import ExplainedGraph, ExplainedOp, explain_graph, milliseconds
from pocketvl.explain.finding import Finding, Severity
from pocketvl.explain.onnx_work import read_onnx_work
from pocketvl.explain.rules import RULES
from pocketvl.explain.rules.comparison import FLOAT, Comparison, compare, no_quicker
from pocketvl.explain.rules.threads import threads as thread_rule
from pocketvl.explain.tflite_work import read_tflite_work
from pocketvl.explain.work import GraphFile
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.op_result import DELEGATE

_BROAD = ("float-islands", "tiny-ops", "dominant-op", "other-work", "half-stored", "no-quicker-than-float")

GraphPath = Callable[[str, str], Path]
"""The file of a variant's component."""


@dataclass(frozen=True)
class ClassRow:
    """One class of a graph's operators.

    Attributes:
        kind: which.
        ms: what they take in one run.
        share: of the graph's operators.
        calls: in one run.
        gmacs_per_s: multiply-adds a second; None: they multiply nothing, or that is not known.
        peak_share: of the time that it takes, what the machine's peaks would need; None: not known.
        delegated: how many of the calls the accelerated delegate ran.
    """

    kind: OpClass
    ms: float
    share: float
    calls: int
    gmacs_per_s: float | None
    peak_share: float | None
    delegated: int


@dataclass(frozen=True)
class ExplainedVariant:
    """One variant.

    Attributes:
        name: of the variant.
        graphs: at the thread count at which they are quickest.
        findings: alarms first, then by what they cost.
        advice: one paragraph.
    """

    name: str
    graphs: tuple[ExplainedGraph, ...]
    findings: tuple[Finding, ...]
    advice: str

    @property
    def threads(self) -> int:
        return self.graphs[0].threads


@dataclass(frozen=True)
class Explanation:
    """Why the variants of a bench take as long as they do.

    Attributes:
        variants: those whose operators were timed.
        comparisons: of each variant in integers with the float one of its engine.
        doubts: what makes the figures doubtful.
    """

    variants: tuple[ExplainedVariant, ...]
    comparisons: tuple[Comparison, ...]
    doubts: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The explanation as JSON."""
        return {
            "variants": {each.name: _variant_json(each) for each in self.variants},
            "comparisons": [
                {
                    "variant": each.variant,
                    "reference": each.reference,
                    "threads": each.threads,
                    "classes": {row.kind.value: [row.float_ms, row.other_ms] for row in each.rows},
                }
                for each in self.comparisons
            ],
            "doubts": list(self.doubts),
        }


def explain(result: BenchResult, path_of: GraphPath) -> Explanation:
    """Explain a bench whose operators were timed.

    Args:
        result: with the operators of at least one variant.
        path_of: the graph file of a variant's component.

    Raises:
        RecipeError: no operators were timed, or the machine was emulated.
        LoweringError: a graph file cannot be read.
    """
    if result.machine.emulated:
        raise RecipeError("the processor was emulated: where its time goes says nothing about any device")
    graphs = {name: _graphs(result, name, path_of) for name, each in result.variants.items() if each.graphs}
    if not graphs:
        raise RecipeError("no operators were timed: measure again with `pocketvl profile --explain`")
    chosen = {name: _quickest(each) for name, each in graphs.items()}
    comparisons = tuple(_comparisons(graphs))
    variants = []
    for name, each in graphs.items():
        found = [finding for graph in chosen[name] for rule in RULES for finding in rule(graph)]
        found += thread_rule(each)
        found += filter(None, (no_quicker(pair) for pair in comparisons if pair.variant == name))
        found.sort(key=_weight)
        variants.append(
            ExplainedVariant(name, tuple(chosen[name]), tuple(found), advise(name, chosen[name], found))
        )
    doubts = result.conditions.warnings if result.conditions else ()
    return Explanation(tuple(variants), comparisons, tuple(doubts))


def read_graph_file(path: Path) -> GraphFile:
    """The operators of a graph file, by its suffix.

    Raises:
        LoweringError: it cannot be read.
    """
    return read_tflite_work(path) if path.suffix == ".tflite" else read_onnx_work(path)


def class_rows(graph: ExplainedGraph) -> Iterator[ClassRow]:
    """The classes of a graph's operators, the one that takes longest first."""
    by_kind: dict[OpClass, list[ExplainedOp]] = defaultdict(list)
    for op in graph.ops:
        by_kind[op.kind].append(op)
    for kind, ops in sorted(by_kind.items(), key=lambda item: -milliseconds(item[1])):
        yield _class_row(graph, kind, ops)


def advise(name: str, graphs: Sequence[ExplainedGraph], findings: Sequence[Finding]) -> str:
    """One paragraph of plain advice.

    Args:
        name: of the variant.
        graphs: its graphs.
        findings: alarms first.
    """
    untold = [graph for graph in graphs if graph.reason]
    if untold:
        return f"{name}: {untold[0].reason}."
    slowest = max(graphs, key=lambda graph: graph.total_ms)
    rows = list(class_rows(slowest))
    top = ", ".join(f"{row.share:.0%} {row.kind.value}" for row in rows[:3])
    told = (
        f"{name} takes {sum(graph.plain_ms for graph in graphs):.3g} ms in its graphs with {slowest.threads} "
        f"thread{'s' if slowest.threads > 1 else ''}, most of it in {slowest.component} ({top})."
    )
    alarms = [each for each in findings if each.severity is Severity.ALARM]
    spoken = alarms[:3] or [each for each in findings if each.gain_ms][:1]
    if not alarms:
        told += " No fault was found."
    for each in spoken:
        gain = f", at most {each.gain_ms:.3g} ms" if each.gain_ms else ""
        told += f" {_capital(each.cause)}. To gain from it{gain}: {each.advice}."
    return told


def _graphs(result: BenchResult, variant: str, path_of: GraphPath) -> list[ExplainedGraph]:
    measured = result.variants[variant]
    files: dict[str, GraphFile] = {}
    found = []
    for graph in measured.graphs:
        if graph.component not in files:
            files[graph.component] = read_graph_file(path_of(variant, graph.component))
        found.append(explain_graph(result, variant, measured.engine.name, graph, files[graph.component]))
    sums: dict[int, float] = defaultdict(float)
    for each in found:
        sums[each.threads] += each.total_ms
    return [replace(each, answer_ms=sums[each.threads]) for each in found]


def _quickest(graphs: Sequence[ExplainedGraph]) -> list[ExplainedGraph]:
    """The graphs at the thread count that is quickest, of equal ones the smallest."""
    sums: dict[int, float] = defaultdict(float)
    for each in graphs:
        sums[each.threads] += each.plain_ms
    best = min(sums, key=lambda count: (sums[count], count))
    return [each for each in graphs if each.threads == best]


def _comparisons(graphs: dict[str, list[ExplainedGraph]]) -> Iterator[Comparison]:
    for name, each in graphs.items():
        engine, _, precision = name.partition("-")
        reference = graphs.get(f"{engine}-{FLOAT}", [])
        if precision in ("", FLOAT, "fp16"):
            continue
        common = sorted({graph.threads for graph in each} & {graph.threads for graph in reference})
        for count in common[:1]:
            pair = ([g for g in each if g.threads == count], [g for g in reference if g.threads == count])
            found = compare(*pair)
            if found is not None:
                yield found


def _class_row(graph: ExplainedGraph, kind: OpClass, ops: Sequence[ExplainedOp]) -> ClassRow:
    ms = milliseconds(ops)
    macs = sum((op.work.macs or 0) * op.calls for op in ops)
    known = [op for op in ops if op.attainable_ms is not None]
    best = sum(op.attainable_ms or 0.0 for op in known)
    return ClassRow(
        kind,
        ms,
        ms / graph.total_ms if graph.total_ms else 0.0,
        sum(op.calls for op in ops),
        macs / ms / 1e6 if macs and ms else None,
        best / milliseconds(known) if known and milliseconds(known) else None,
        sum(op.calls for op in ops if op.unit == DELEGATE),
    )


def _weight(finding: Finding) -> tuple[bool, bool, float]:
    """Alarms first; rules that say how it is before those that only say where it is; then by the share."""
    return finding.severity is not Severity.ALARM, finding.rule in _BROAD, -finding.share


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _variant_json(variant: ExplainedVariant) -> dict[str, object]:
    return {
        "threads": variant.threads,
        "advice": variant.advice,
        "findings": [each.to_json() for each in variant.findings],
        "graphs": {
            graph.component: {
                "plain_ms": graph.plain_ms,
                "ops_ms": graph.total_ms,
                "reason": graph.reason,
                "classes": {row.kind.value: _row_json(row) for row in class_rows(graph)},
            }
            for graph in variant.graphs
        },
    }


def _row_json(row: ClassRow) -> dict[str, object]:
    return {
        "ms": row.ms,
        "share": row.share,
        "calls": row.calls,
        "gmacs_per_s": row.gmacs_per_s,
        "peak_share": row.peak_share,
        "delegated": row.delegated,
    }
