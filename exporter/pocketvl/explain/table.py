"""An explanation as text for people."""

from __future__ import annotations

from collections.abc import Iterator

from pocketvl.explain.explained import ExplainedGraph, Roofline
from pocketvl.explain.explanation import ClassRow, ExplainedVariant, Explanation, class_rows
from pocketvl.explain.finding import Finding, Severity
from pocketvl.explain.rules.comparison import Comparison

_BAR = 24
_LEAST_SHARE = 0.005
_MOST_FINDINGS = 8


def explanation_lines(explanation: Explanation) -> Iterator[str]:
    """Every variant's classes of operators, findings and advice, then comparisons with floats."""
    for variant in explanation.variants:
        yield ""
        yield from _variant_lines(variant)
    for comparison in explanation.comparisons:
        yield ""
        yield from _comparison_lines(comparison)
    yield from (f"doubtful: {doubt}" for doubt in explanation.doubts)


def _variant_lines(variant: ExplainedVariant) -> Iterator[str]:
    for graph in variant.graphs:
        yield from _graph_lines(graph)
    shown = variant.findings[:_MOST_FINDINGS]
    for finding in shown:
        yield from _finding_lines(finding)
    if len(variant.findings) > len(shown):
        yield f"  and {len(variant.findings) - len(shown)} smaller ones (--json tells them)"
    yield f"  {variant.advice}"


def _graph_lines(graph: ExplainedGraph) -> Iterator[str]:
    plural = "s" if graph.threads > 1 else ""
    yield f"{graph.variant} {graph.component}: {graph.plain_ms:.3g} ms, {graph.threads} thread{plural}"
    if graph.reason:
        yield f"  {graph.reason}"
        return
    if graph.roofline is not None:
        yield f"  machine's peak: {_peak(graph.roofline)}"
    rows = [row for row in class_rows(graph) if row.share >= _LEAST_SHARE]
    yield f"  {'':{_BAR}} {'share':>6} {'ms':>8} {'calls':>6} {'GMAC/s':>8} {'of peak':>8}  ran in"
    yield from (_row_line(row, graph.file.engine_is_tflite) for row in rows)
    rest = graph.plain_ms - graph.total_ms
    if graph.is_quiet and rest > 0.02 * graph.plain_ms:
        yield f"  {rest:.3g} ms of a run lie between the ops"


def _row_line(row: ClassRow, tflite: bool) -> str:
    bar = "#" * max(1, round(_BAR * row.share))
    rate = "-" if row.gmacs_per_s is None else f"{row.gmacs_per_s:.1f}"
    peak = "-" if row.peak_share is None else f"{min(row.peak_share, 1.0):.0%}"
    where = ""
    if tflite:
        where = "delegate" if row.delegated == row.calls else "kernels" if not row.delegated else "both"
    cells = f"{row.share:6.1%} {row.ms:8.3f} {row.calls:6d} {rate:>8} {peak:>8}"
    return f"  {bar:{_BAR}} {cells}  {where + '  ' if where else ''}{row.kind.value}"


def _peak(roofline: Roofline) -> str:
    gmacs = ", ".join(f"{name} {value:.0f} GMAC/s" for name, value in roofline.gmacs_per_s.items())
    return f"{gmacs}, memory {roofline.memory_gb_per_s:.0f} GB/s, caches {roofline.cached_gb_per_s:.0f} GB/s"


def _finding_lines(finding: Finding) -> Iterator[str]:
    mark = "!" if finding.severity is Severity.ALARM else "-"
    where = f"{finding.component}: " if finding.component else ""
    yield f"  {mark} {finding.rule}: {where}{finding.cause}"
    gain = f" (at most {finding.gain_ms:.3g} ms)" if finding.gain_ms else ""
    yield f"      {finding.advice}{gain}"


def _comparison_lines(found: Comparison) -> Iterator[str]:
    plural = "s" if found.threads > 1 else ""
    yield f"{found.variant} beside {found.reference}, {found.threads} thread{plural}, ms in ops"
    yield f"  {'':24} {found.reference:>12} {found.variant:>12} {'saved':>8}"
    for row in found.rows:
        saved = row.float_ms - row.other_ms
        yield f"  {row.kind.value:24} {row.float_ms:12.3f} {row.other_ms:12.3f} {saved:+8.3f}"
    saved = found.float_ms - found.other_ms
    yield f"  {'all':24} {found.float_ms:12.3f} {found.other_ms:12.3f} {saved:+8.3f}"
