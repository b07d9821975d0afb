"""The report's plots of a bundle's own figures."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes

from pocketvl.evaluate.report import MetricReport, Report, SearchReport, Sensitivity, VariantReport
from pocketvl.evaluate.svg import ENGINE_COLOUR, INK, LINE, MARKER, MUTED, PANEL, SMALL, draw_svg, label_apart
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.parity import LossHistogram
from pocketvl_runtime.bench_result import COMMON_STAGES

# What a cosine is at a loss of 10^0, 10^-1, ...
_NINES = ("0", ".9", ".99", ".999", ".9⁴", ".9⁵", ".9⁶", ".9⁷", ".9⁸", ".9⁹", ".9¹⁰")
_BY_KIND = {
    Metric.MATCH_HARD: "caption ranks above the negative, % (50 is chance)",
    Metric.ITM_HARD: "caption fits better than the negative, % (50 is chance)",
    Metric.RETRIEVAL: "own caption or image among the first, %, of the whole dataset",
    Metric.CLASSIFY: "own label among the nearest, %",
    Metric.ASK: "right answers, % (tick: the same answer to every question)",
}
MOST_LAYERS = 30
_LONGEST_LAYER_NAME = 38


def accuracy_by_size(report: Report, metric: Metric = Metric.MATCH_HARD) -> str | None:
    """Accuracy over the size of the graph files; None where the metric was not measured."""
    measured_ones = [variant for variant in report.ordered_variants() if metric in variant.metrics]
    points = [(variant, variant.metrics[metric]) for variant in measured_ones]
    if not points:
        return None

    def draw(axes: Axes) -> None:
        marks, reserved = [], []
        for variant, measured in points:
            size, value = variant.size_bytes / 1e6, 100 * measured.value
            _mark(axes, variant, size, value, y_limits=tuple(100 * limit for limit in measured.ci95))
            marks.append((variant.name, size, value, ENGINE_COLOUR[variant.engine]))
        if metric in report.reference:
            level = 100 * report.reference[metric].value
            axes.axhline(level, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
            reserved.append(axes.annotate("torch fp32", (0, level), (4, 4), color=MUTED, **SMALL))
        axes.set_xlim(0, 1.22 * max(variant.size_bytes for variant, _ in points) / 1e6)
        axes.margins(y=0.16)
        axes.set_xlabel("graph files, MB")
        axes.set_ylabel(f"{metric.value}, %")
        axes.grid(axis="y")
        label_apart(axes, marks, reserved)

    return draw_svg("size", _drop_height(report), draw)


def drops(report: Report) -> str | None:
    """Loss against torch fp32 with its interval and the allowance; None where no task was measured."""
    variants = [variant for variant in report.ordered_variants() if variant.metrics]
    metrics = [metric for metric in Metric if any(metric in variant.metrics for variant in variants)]
    if not metrics:
        return None

    def draw(axes: Axes) -> None:
        axes.axvline(0, color=MUTED, linewidth=1)
        spread = 0.42 / len(metrics)
        for row, variant in enumerate(variants):
            for index, metric in enumerate(metrics):
                height = row + (index - (len(metrics) - 1) / 2) * 2 * spread
                _draw_drop(axes, variant, metric, height, spread, hollow=index > 0)
        _rows(axes, variants)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, -0.2), max(high, 0.2))
        axes.set_xlabel("loss against torch fp32, percentage points")
        axes.grid(axis="x")

    return draw_svg("drop", _drop_height(report), draw)


def latency_bars(report: Report, stage: str) -> str | None:
    """Median latency of a stage per variant and thread count, p10 as a mark; None where not measured."""
    variants = [variant for variant in report.ordered_variants() if variant.latency_ms.get(stage)]
    if not variants:
        return None
    counts = report.thread_counts()

    def draw(axes: Axes) -> None:
        thickness = 0.74 / len(counts)
        for row, variant in enumerate(variants):
            for index, threads in enumerate(counts):
                latency = variant.latency_ms[stage].get(threads)
                if latency is None:
                    continue
                height = row + (index - (len(counts) - 1) / 2) * thickness
                colour, shade = (
                    ENGINE_COLOUR[variant.engine],
                    0.45 if index == 0 and len(counts) > 1 else 0.95,
                )
                axes.barh(height, latency.median, thickness * 0.86, color=PANEL, linewidth=0)
                axes.barh(height, latency.median, thickness * 0.86, color=colour, alpha=shade, linewidth=0)
                notch = [height - thickness * 0.43, height + thickness * 0.43]
                axes.plot([latency.p10] * 2, notch, color=PANEL, linewidth=1.6, solid_capstyle="butt")
                axes.annotate(
                    f"{latency.median:.3g}",
                    (latency.median, height),
                    (4, 0),
                    va="center",
                    color=MUTED,
                    **SMALL,
                )
        _rows(axes, variants)
        axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
        axes.set_xlabel(f"{stage}, ms")
        axes.grid(axis="x")

    return draw_svg(f"latency-{stage}", 0.75 + (0.22 * len(counts) + 0.12) * len(variants), draw)


def accuracy_by_kind(report: Report) -> str | None:
    """Accuracy by kind of negative or type of question; None where none are known."""
    metric = next(
        (each for each in Metric if each in report.reference and report.reference[each].by_kind), None
    )
    if metric is None:
        return None
    reference = report.reference[metric]
    kinds = sorted(reference.by_kind, key=lambda kind: (reference.by_kind[kind].value, kind))
    variants = [variant for variant in report.ordered_variants() if metric in variant.metrics]

    def draw(axes: Axes) -> None:
        for row, kind in enumerate(kinds):
            value = 100 * reference.by_kind[kind].value
            axes.barh(row, value, 0.72, color=LINE, linewidth=0)
            axes.annotate(f"{value:.1f}", (0, row), (5, 0), va="center", **SMALL)
            constant = reference.by_kind[kind].constant
            if constant is not None:
                axes.plot([100 * constant] * 2, [row - 0.4, row + 0.4], color=MUTED, linewidth=1)
            for index, variant in enumerate(variants):
                measured = variant.metrics[metric].by_kind.get(kind)
                if measured is not None:
                    offset = (index - (len(variants) - 1) / 2) * 0.11
                    axes.plot(
                        100 * measured.value,
                        row + offset,
                        MARKER[variant.precision],
                        markersize=3.6,
                        color=ENGINE_COLOUR[variant.engine],
                        markeredgewidth=0,
                    )
        if metric in (Metric.MATCH_HARD, Metric.ITM_HARD):
            axes.axvline(50, color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_yticks(range(len(kinds)), [f"{kind}  (n={reference.by_kind[kind].n:,})" for kind in kinds])
        axes.set_xlim(0, 101.5)
        axes.set_xlabel(_BY_KIND[metric])
        axes.spines["left"].set_visible(False)

    return draw_svg("kind", 0.75 + 0.37 * len(kinds), draw)


def centred_cosines(report: Report) -> str | None:
    """Per variant, how the mean-centred cosines are spread; None where parity was not measured."""
    variants = [variant for variant in report.ordered_variants() if variant.parity]
    if not variants:
        return None
    ports = ports_of(report)

    def draw(axes: Axes) -> None:
        for row, variant in enumerate(variants):
            colour = ENGINE_COLOUR[variant.engine]
            for port, parity in variant.parity.items():
                _draw_losses(axes, parity.losses, row + 0.36, colour, filled=port == ports[0])
            axes.axhline(row + 0.36, color=LINE, linewidth=0.8, zorder=0)
        _rows(axes, variants)
        axes.set_xlim(0.3, -10.2)
        axes.set_xticks(range(0, -len(_NINES), -1), _NINES)
        axes.set_xlabel("mean-centred cosine")
        axes.grid(axis="x")

    return draw_svg("cosine", 0.75 + 0.42 * len(variants), draw)


def worst_first(rows: Sequence[Sensitivity]) -> list[Sensitivity]:
    """Layers by what they cost, most first: those whose loss of outputs was measured, then the others."""
    return sorted(rows, key=lambda row: (row.loss is None, -_cost(row), row.component or "", row.layer))


def sensitivities(report: Report) -> str | None:
    """Sensitivity of the worst layers, quantized alone; None where that was not measured."""
    by_loss = any(row.loss is not None for row in report.sensitivity)
    rows = [row for row in worst_first(report.sensitivity) if by_loss == (row.loss is not None)][:MOST_LAYERS]
    if not rows:
        return None
    components = components_of(report.sensitivity)

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            cost = _cost(row)
            face = "none" if row.component in components[1:] else MUTED
            axes.barh(y, cost, 0.66, facecolor=face, edgecolor=MUTED, linewidth=1)
            figure = f"{cost:.1e}" if by_loss else f"{cost:.2f}"
            axes.annotate(figure, (max(cost, 0), y), (4, 0), va="center", color=MUTED, **SMALL)
        axes.set_yticks(range(len(rows)), [_shortened(row.layer) for row in rows], fontsize=8)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.margins(x=0.16)
        axes.set_xlabel("1 \u2212 median centred cosine" if by_loss else "loss, percentage points")
        axes.ticklabel_format(axis="x", scilimits=(-2, 3), useMathText=False)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x")
        axes.spines["left"].set_visible(False)

    return draw_svg("sensitivity", 0.75 + 0.19 * len(rows), draw)


def search_front(report: Report) -> str | None:
    """Every trial of a search over what its budget limits, and their front; None where none was made."""
    search = report.search
    if search is None or not search.trials:
        return None
    limit, unit = budget_of(search)
    is_size = unit == "MB"
    costs = [trial.size_bytes / 1e6 if is_size else trial.latency_ms or 0.0 for trial in search.trials]
    points = {t.number: (cost, 100 * t.score) for t, cost in zip(search.trials, costs, strict=True)}
    colour = ENGINE_COLOUR[search.engine]

    def draw(axes: Axes) -> None:
        for x, y in points.values():
            face = colour if x <= limit else "none"
            axes.plot(x, y, "o", markersize=5, markerfacecolor=face, markeredgecolor=colour, alpha=0.45)
        front = pareto_front(list(points.values()))
        end = (max(limit, *(x for x, _ in points.values())), front[-1][1])
        axes.plot(*zip(*front, end, strict=True), color=colour, linewidth=1.5, drawstyle="steps-post")
        axes.axvline(limit, color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        axes.margins(x=0.1, y=0.16)
        foot = (limit, axes.get_ylim()[0])
        axes.annotate(f"budget {limit:.3g} {unit}", foot, (-4, 4), ha="right", color=MUTED, **SMALL)
        if search.chosen in points:
            x, y = points[search.chosen]
            axes.plot(x, y, "P", color=INK, markersize=9, markeredgecolor=PANEL, zorder=4)
            axes.annotate("chosen", (x, y), (-5, 7), ha="right", **SMALL)  # no trial can lie there
        axes.set_xlabel("graph files, MB" if is_size else "one picture and one text, ms")
        axes.set_ylabel("right answer, mean probability, %")
        axes.grid(axis="y")

    return draw_svg("search", 3.4, draw)


def budget_of(search: SearchReport) -> tuple[float, str]:
    """The budget of a search in the unit that people read it in: MB or ms."""
    return (search.limit / 1e6, "MB") if search.budget == "size" else (search.limit, "ms")


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of pairs of cost and score, the cheapest first."""
    front: list[tuple[float, float]] = []
    for cost, score in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or score > front[-1][1]:
            front.append((cost, score))
    return front


def ports_of(report: Report) -> list[str]:
    """The output ports that any variant was compared at."""
    return sorted({port for variant in report.variants.values() for port in variant.parity})


def components_of(rows: Sequence[Sensitivity]) -> list[str]:
    """The components whose layers were ranked."""
    return sorted({row.component for row in rows if row.component is not None})


def graph_stages(report: Report) -> list[str]:
    """The timed stages that are a graph's, and not the code around it or the sum."""
    timed = {stage for variant in report.variants.values() for stage in variant.latency_ms}
    return sorted(timed.difference(COMMON_STAGES))


def component_label(name: str) -> str:
    """A component, or that of a port, as a figure's legend calls it: "image_encoder.embedding" is "image"."""
    return name.partition(".")[0].removesuffix("_encoder").replace("_", " ")


def port_label(port: str) -> str:
    """A port in a table: "image_encoder.embedding" is "image embedding"."""
    return f"{component_label(port)} {port.partition('.')[2].replace('_', ' ')}"


def _cost(row: Sensitivity) -> float:
    return row.loss if row.loss is not None else row.drop_pp or 0.0


def _shortened(layer: str) -> str:
    """A name without as many of its leading components as it takes to fit."""
    short = layer
    while len(short) > _LONGEST_LAYER_NAME and "." in short.partition("{")[0]:
        short = short.partition(".")[2]
    return short[:_LONGEST_LAYER_NAME]


def _drop_height(report: Report) -> float:
    """Inches for `drops`, and for the plot that stands beside it."""
    rows = sum(len(variant.metrics) for variant in report.variants.values())
    return max(3.0, 0.9 + 0.19 * rows + 0.16 * len(report.variants))


def _rows(axes: Axes, variants: Sequence[VariantReport]) -> None:
    axes.set_yticks(range(len(variants)), [variant.name for variant in variants])
    axes.set_ylim(len(variants) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)


def _mark(axes: Axes, variant: VariantReport, x: float, y: float, y_limits: tuple[float, ...]) -> None:
    colour = ENGINE_COLOUR[variant.engine]
    axes.plot([x, x], list(y_limits), color=colour, linewidth=1.4, alpha=0.55)
    axes.plot(x, y, MARKER[variant.precision], color=colour, markersize=7, markeredgecolor=PANEL)


def _draw_drop(
    axes: Axes, variant: VariantReport, metric: Metric, height: float, spread: float, *, hollow: bool
) -> None:
    measured: MetricReport | None = variant.metrics.get(metric)
    if measured is None or measured.drop_pp is None or measured.drop_ci95 is None:
        return
    colour = ENGINE_COLOUR[variant.engine]
    axes.plot(list(measured.drop_ci95), [height, height], color=colour, linewidth=1.8, solid_capstyle="butt")
    face = PANEL if hollow else colour
    axes.plot(
        measured.drop_pp, height, "o", color=face, markersize=6, markeredgecolor=colour, markeredgewidth=1.4
    )
    allowance = variant.gate.allowance_pp.get(metric) if variant.gate else None
    if allowance is not None:
        axes.plot([allowance] * 2, [height - spread, height + spread], color=INK, linewidth=1.3)


def _draw_losses(axes: Axes, losses: LossHistogram, base: float, colour: str, *, filled: bool) -> None:
    peak = max(losses.counts) or 1
    step = (losses.high - losses.low) / len(losses.counts)
    edges = [losses.low + step * index for index in range(len(losses.counts) + 1)]
    tops = [base - 0.76 * count / peak for count in losses.counts]
    if filled:
        axes.stairs(tops, edges, baseline=base, fill=True, color=colour, alpha=0.4, linewidth=0)
        return
    shown = [top if count else float("nan") for top, count in zip(tops, losses.counts, strict=True)]
    axes.stairs(shown, edges, baseline=None, color=colour, linewidth=1.3)
