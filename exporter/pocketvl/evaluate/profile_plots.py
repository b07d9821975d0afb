"""The report's plots of devices: where the time goes, how it is spread, what a sustained load does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pocketvl.evaluate.explained_ops import ExplainedOps
from pocketvl.evaluate.plots import pareto_front
from pocketvl.evaluate.report import Report
from pocketvl.evaluate.svg import (
    ENGINE_COLOUR,
    INK,
    LINE,
    MARKER,
    MUTED,
    PANEL,
    SERIES,
    SMALL,
    draw_figure,
    draw_svg,
    label_apart,
)
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.bench_result import (
    COMMON_STAGES,
    TOTAL,
    BenchResult,
    Latency,
    Sustained,
    Timing,
    in_order,
)
from pocketvl_runtime.manifest import Engine, Precision

_OTHER = "between them"
"""What of an answer is in no stage."""
_SERIES_OF = {"decode": 0, "preprocess": 1, "tokens": 2, "post": 6}
_COMPONENT_SERIES = (3, 4, 5)
_MOST_SAMPLES = 200
_MOST_TAIL = 2.0
"""A whisker longer than so many times p90 is cut, so that it does not squeeze all else."""


@dataclass(frozen=True)
class Profile:
    """A profile with what the page calls its device.

    Attributes:
        key: tells it from the page's others; letters, digits and dashes.
        name: for people.
        result: what was measured.
    """

    key: str
    name: str
    result: BenchResult


@dataclass(frozen=True)
class _Row:
    variant: str
    timing: Timing

    @property
    def label(self) -> str:
        return f"{self.variant} ×{self.timing.threads}"


def stage_colours(profiles: Sequence[Profile]) -> dict[str, str]:
    """The colour of every stage that any profile has, in the order in which they follow one another."""
    named = in_order(
        stage
        for each in profiles
        for variant in each.result.variants.values()
        for timing in variant.timings
        for stage in timing.stages
        if stage != TOTAL
    )
    components = [stage for stage in named if stage not in COMMON_STAGES]
    series = _SERIES_OF | {
        name: _COMPONENT_SERIES[index % len(_COMPONENT_SERIES)] for index, name in enumerate(components)
    }
    return {stage: SERIES[series[stage]] for stage in named} | {_OTHER: LINE}


def stage_bars(profile: Profile, colours: Mapping[str, str]) -> str:
    """Medians of the stages, stacked, for every variant and thread count; a tick at p10 of the whole."""
    rows = _rows(profile)

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            total, left = row.timing.stages[TOTAL], 0.0
            for stage, colour in colours.items():
                if stage in row.timing.stages:
                    width = row.timing.stages[stage].median
                    axes.barh(y, width, 0.62, left=left, color=colour, linewidth=0)
                    left += width
            if total.median > left:
                axes.barh(y, total.median - left, 0.62, left=left, color=colours[_OTHER], linewidth=0)
            axes.plot([total.p10] * 2, [y - 0.42, y + 0.42], color=INK, linewidth=1.2)
            end = (max(left, total.median), y)
            axes.annotate(f"{total.median:.3g}", end, (4, 0), va="center", color=MUTED, **SMALL)
        _label_rows(axes, rows)
        axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
        axes.set_xlabel("one answer, ms")
        axes.grid(axis="x")

    return draw_svg(f"stages-{profile.key}", 0.75 + 0.29 * len(rows), draw)


def operator_colours(explained: ExplainedOps) -> dict[str, str]:
    """The colour of every class of operators; classes beyond the colours share the last, neutral one."""
    return {
        name: SERIES[index] if index < len(SERIES) else LINE for index, name in enumerate(explained.classes)
    }


def operator_bars(profile: Profile, explained: ExplainedOps) -> str:
    """What the operators of each graph take, stacked by class."""
    rows, colours = explained.rows, operator_colours(explained)

    def draw(axes: Axes) -> None:
        for y, row in enumerate(rows):
            left = 0.0
            for name in explained.classes:
                width = row.parts.get(name, 0.0)
                axes.barh(y, width, 0.62, left=left, color=colours[name], linewidth=0)
                left += width
            axes.annotate(f"{left:.3g}", (left, y), (4, 0), va="center", color=MUTED, **SMALL)
        axes.set_yticks(range(len(rows)), [row.label for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlim(0, 1.12 * axes.get_xlim()[1])
        axes.set_xlabel("operators of one run, ms")
        axes.grid(axis="x")

    return draw_svg(f"operators-{profile.key}", 0.75 + 0.29 * len(rows), draw)


def distributions(profile: Profile) -> str:
    """Whole answers: a bar from p10 to p90, median, a line to p99 or the longest, and single runs."""
    rows = _rows(profile)
    totals = [row.timing.stages[TOTAL] for row in rows]
    edge = 1.05 * max(min(_longest(total), _MOST_TAIL * total.p90) for total in totals)

    def draw(axes: Axes) -> None:
        for y, (row, total) in enumerate(zip(rows, totals, strict=True)):
            colour, last = _colour(row.variant), _longest(total)
            axes.plot([total.p90, last], [y, y], color=colour, linewidth=1.2)
            axes.plot([last] * 2, [y - 0.14, y + 0.14], color=colour, linewidth=1.2)
            if last > edge:
                text = f"{last:.3g} \u2192"
                axes.annotate(text, (edge, y), (-2, 4), ha="right", color=MUTED, **SMALL)
            axes.barh(
                y, total.p90 - total.p10, 0.4, left=total.p10, color=colour, alpha=0.4, linewidth=0, zorder=1
            )
            if total.samples is not None:
                shown = total.samples[:: 1 + (len(total.samples) - 1) // _MOST_SAMPLES]
                axes.plot(
                    shown, [y + 0.34] * len(shown), "|", color=colour, markersize=4, markeredgewidth=0.7
                )
            axes.plot([total.median] * 2, [y - 0.26, y + 0.26], color=INK, linewidth=1.6)
        _label_rows(axes, rows)
        axes.set_xlim(0, edge)
        axes.set_xlabel("one answer, ms")
        axes.grid(axis="x")

    return draw_svg(f"spread-{profile.key}", 0.75 + 0.31 * len(rows), draw)


def sustained_curves(profile: Profile) -> str | None:
    """Medians over a sustained load, frequency and temperature where known; None without a load."""
    loads = profile.result.sustained
    if not loads:
        return None
    known = _known_conditions(loads)

    def draw(figure: Figure) -> None:
        ratios = [2.4, *[1.0] * len(known)]
        every = figure.subplots(len(ratios), 1, sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
        for load in loads:
            _draw_load(every[0], load, "median_ms")
            for axes, (name, _) in zip(every[1:], known, strict=True):
                _draw_load(axes, load, name)
        every[0].set_ylim(bottom=0)
        every[0].set_ylabel("median, ms")
        for axes, (_, label) in zip(every[1:], known, strict=True):
            axes.set_ylabel(label)
            axes.margins(y=0.2)
        for axes in every:
            axes.grid(axis="y")
            axes.locator_params(axis="y", nbins=4)
        longest = max(load.duration_s for load in loads)
        every[0].set_xlim(-0.02 * longest, 1.02 * longest)
        every[-1].set_xlabel("seconds since the load began")
        _legend_above(every[0], loads)

    return draw_figure(f"sustained-{profile.key}", _height(profile), draw)


def devices_side_by_side(profiles: Sequence[Profile], colours: Mapping[str, str]) -> str | None:
    """Every variant's median at the thread count that is quickest on each device; None of fewer than two."""
    variants = sorted({name for each in profiles for name in each.result.variants}, key=variant_order)
    if len(profiles) < 2:
        return None

    def draw(axes: Axes) -> None:
        thickness = 0.8 / len(profiles)
        for row, variant in enumerate(variants):
            for index, each in enumerate(profiles):
                if variant not in each.result.variants:
                    continue
                timing = each.result.variants[variant].quickest()
                total = timing.stages[TOTAL]
                y = row + (index - (len(profiles) - 1) / 2) * thickness
                axes.barh(y, total.median, thickness * 0.86, color=colours[each.key], linewidth=0)
                notch = [y - thickness * 0.43, y + thickness * 0.43]
                axes.plot([total.p10] * 2, notch, color=PANEL, linewidth=1.4, solid_capstyle="butt")
                text = f"{total.median:.3g}  ×{timing.threads}"
                axes.annotate(text, (total.median, y), (4, 0), va="center", color=MUTED, **SMALL)
        axes.set_yticks(range(len(variants)), variants)
        axes.set_ylim(len(variants) - 0.4, -0.6)
        axes.spines["left"].set_visible(False)
        axes.set_xlim(0, 1.18 * axes.get_xlim()[1])
        axes.set_xlabel("one answer, ms")
        axes.grid(axis="x")

    return draw_svg("devices", 0.75 + (0.2 * len(profiles) + 0.12) * len(variants), draw)


def device_colours(profiles: Sequence[Profile]) -> dict[str, str]:
    """A colour for every device, by its key; they repeat after seven."""
    order = (3, 4, 1, 2, 6, 5, 0)
    return {each.key: SERIES[order[index % len(order)]] for index, each in enumerate(profiles)}


def accuracy_by_latency(report: Report, metric: Metric, profile: Profile) -> str | None:
    """Accuracy over latency on a device, area by size, and the Pareto front; None without the metric."""
    points = [
        (variant, variant.metrics[metric], profile.result.variants[variant.name].quickest())
        for variant in report.ordered_variants()
        if metric in variant.metrics and variant.name in profile.result.variants
    ]
    if not points:
        return None
    largest = max(variant.size_bytes for variant, _, _ in points) or 1

    def draw(axes: Axes) -> None:
        marks = []
        for variant, measured, timing in points:
            x, y, colour = timing.stages[TOTAL].median, 100 * measured.value, ENGINE_COLOUR[variant.engine]
            limits = [100 * limit for limit in measured.ci95]
            axes.plot([x, x], limits, color=colour, linewidth=1.1, alpha=0.45)
            area = 420 * variant.size_bytes / largest
            axes.scatter(x, y, s=area, color=colour, alpha=0.22, linewidths=0)
            axes.plot(x, y, MARKER[variant.precision], color=colour, markersize=5.5, markeredgecolor=PANEL)
            marks.append((f"{variant.name} ×{timing.threads}", x, y, colour))
        front = pareto_front([(x, y) for _, x, y, _ in marks])
        right = max(x for _, x, _, _ in marks)
        line = [*front, (right, front[-1][1])]
        axes.plot(*zip(*line, strict=True), color=MUTED, linewidth=1, drawstyle="steps-post", zorder=0)
        axes.set_xlim(0, 1.42 * right)  # room for names
        axes.margins(y=0.2)
        axes.set_xlabel("one answer, ms")
        axes.set_ylabel(f"{metric.value}, %")
        axes.grid(axis="y")
        label_apart(axes, marks, [])

    return draw_svg(f"pareto-{profile.key}", _height(profile), draw)


def variant_order(name: str) -> tuple[int, int, str]:
    """Sorts variants by engine, then from the most to the least precise, as the report does."""
    engine, _, precision = name.partition("-")
    engines, precisions = list(Engine), list(Precision)
    return (
        engines.index(Engine(engine)) if engine in engines else len(engines),
        precisions.index(Precision(precision)) if precision in precisions else len(precisions),
        name,
    )


def _rows(profile: Profile) -> list[_Row]:
    variants = profile.result.variants
    return [
        _Row(name, timing)
        for name in sorted(variants, key=variant_order)
        for timing in sorted(variants[name].timings, key=lambda each: each.threads)
    ]


def _longest(total: Latency) -> float:
    return total.max if total.p99 is None else total.p99


def _known_conditions(loads: Sequence[Sustained]) -> list[tuple[str, str]]:
    """What was sampled under loads: the windows' fields, and how their axes are labelled."""
    return [
        (name, label)
        for name, label in (("mhz", "MHz"), ("temperature_c", "°C"))
        if any(getattr(window, name) is not None for load in loads for window in load.windows)
    ]


def _height(profile: Profile) -> float:
    """Inches of the plots of accuracy and of loads, which stand side by side."""
    return 3.2 + 0.7 * len(_known_conditions(profile.result.sustained))


def _label_rows(axes: Axes, rows: Sequence[_Row]) -> None:
    axes.set_yticks(range(len(rows)), [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)


def _colour(variant: str) -> str:
    engine = variant.partition("-")[0]
    return ENGINE_COLOUR[Engine(engine)] if engine in list(Engine) else MUTED


def _marker(variant: str) -> str:
    precision = variant.partition("-")[2]
    return MARKER[Precision(precision)] if precision in list(Precision) else "o"


def _draw_load(axes: Axes, load: Sustained, name: str) -> None:
    windows = [window for window in load.windows if getattr(window, name) is not None]
    axes.plot(
        [window.at_s for window in windows],
        [getattr(window, name) for window in windows],
        marker=_marker(load.variant),
        color=_colour(load.variant),
        markersize=4,
        markeredgecolor=PANEL,
        linewidth=1.4,
    )


def _legend_above(axes: Axes, loads: Sequence[Sustained]) -> None:
    names = [f"{load.variant} ×{load.threads}" for load in loads]
    axes.legend(
        axes.get_lines(),
        names,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
        fontsize=8.5,
        borderpad=0,
        labelcolor=INK,
    )
