"""What report.html shows of the devices that a bundle was profiled on."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from pocketvl.evaluate import profile_plots
from pocketvl.evaluate.explained_ops import ExplainedOps, OpsAdvice
from pocketvl.evaluate.profile_plots import Profile, variant_order
from pocketvl.evaluate.report import Report
from pocketvl.evaluate.svg import css_variable
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.bench_result import TOTAL, BenchResult, Machine, Timing, VariantBench


@dataclass(frozen=True)
class Figure:
    """A plot with its words.

    Attributes:
        title: of the figure.
        caption: what it shows.
        svg: the plot.
        legend: names with the page's variables of their colours.
    """

    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DeviceRow:
    """One variant at one thread count on a device; figures as text, a dash where not measured."""

    variant: str
    threads: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class ShownDevice:
    """A device on the page.

    Attributes:
        name: for people.
        machine: what it is, in one line.
        facts: names and values: how it was measured, and what the machine was like.
        warnings: what makes the figures doubtful.
        emulated: whether it was; there are then no figures, and `ran` is all that is said.
        ran: the variants that ran.
        figures: plots.
        rows: the table.
        advice: why variants take as long as they do; empty where no operators were timed.
    """

    name: str
    machine: str
    facts: tuple[tuple[str, str], ...]
    warnings: tuple[str, ...]
    emulated: bool
    ran: tuple[str, ...]
    figures: tuple[Figure, ...] = ()
    rows: tuple[DeviceRow, ...] = ()
    advice: tuple[OpsAdvice, ...] = ()


@dataclass(frozen=True)
class ShownProfiles:
    """All devices, plots of several together, and the heads of their tables' columns."""

    devices: tuple[ShownDevice, ...]
    together: tuple[Figure, ...]
    columns: tuple[str, ...]


def show_profiles(
    report: Report,
    profiles: Mapping[str, BenchResult],
    explained: Mapping[str, ExplainedOps] | None = None,
) -> ShownProfiles:
    """What the page shows of profiles.

    Args:
        report: of the same bundle.
        profiles: by the names of their files, without ending.
        explained: of those whose operators were timed, what is said of them, by the same names.
    """
    ops = explained or {}
    keys = _keys(list(profiles))
    every = [Profile(keys[name], _title(name, result.machine), result) for name, result in profiles.items()]
    real = [each for each in every if not each.result.machine.emulated]
    colours, stages = profile_plots.device_colours(real), profile_plots.stage_colours(real)
    together = profile_plots.devices_side_by_side(real, colours)
    legend = tuple((each.name, css_variable(colours[each.key])) for each in real)
    caption = "Median of whole answers, notch: p10, with the thread count that is quickest there."
    figures = () if together is None else (Figure("Devices side by side", caption, Markup(together), legend),)
    return ShownProfiles(
        tuple(
            _device(report, each, stages, ops.get(name)) for name, each in zip(profiles, every, strict=True)
        ),
        figures,
        tuple(head for head, _ in _COLUMNS),
    )


def _device(
    report: Report, profile: Profile, stages: Mapping[str, str], ops: ExplainedOps | None
) -> ShownDevice:
    result = profile.result
    conditions = result.conditions
    emulated = bool(result.machine.emulated)
    return ShownDevice(
        profile.name,
        _machine_line(result.machine),
        () if emulated else tuple(_facts(result)),
        () if conditions is None or emulated else conditions.warnings,
        emulated,
        tuple(result.variants),
        () if emulated else (*_figures(report, profile, stages), *_operators(profile, ops)),
        () if emulated else _table(result),
        () if emulated or ops is None else ops.advice,
    )


def _figures(report: Report, profile: Profile, stages: Mapping[str, str]) -> list[Figure]:
    main = next((metric for metric in Metric if metric in report.reference), Metric.MATCH_HARD)
    legend = tuple((stage, css_variable(colour)) for stage, colour in stages.items())
    threads = "×2: two threads."
    drawn = (
        (
            "Where the time goes",
            f"Medians of the stages; figure: median of the whole, tick: its p10. {threads}",
            profile_plots.stage_bars(profile, stages),
            legend,
        ),
        (
            "How latencies are spread",
            "Bar: p10 to p90, upright line: median, whisker: p99 where known, else the longest; "
            "below: single runs, where they were kept.",
            profile_plots.distributions(profile),
            (),
        ),
        (
            "Accuracy over latency",
            f"{main.value} with its 95 % interval; area: size of the graph files; "
            "line: nothing is both quicker and better.",
            profile_plots.accuracy_by_latency(report, main, profile),
            (),
        ),
        (
            "Under a sustained load",
            "Answers without a pause, median of each part of that time.",
            profile_plots.sustained_curves(profile),
            (),
        ),
    )
    return [
        Figure(title, caption, Markup(svg), names) for title, caption, svg, names in drawn if svg is not None
    ]


def _operators(profile: Profile, ops: ExplainedOps | None) -> list[Figure]:
    if ops is None or not ops.rows:
        return []
    colours = profile_plots.operator_colours(ops)
    legend = tuple((name, css_variable(colour)) for name, colour in colours.items())
    caption = "Operators of each graph by what they do, at the thread count that is quickest."
    svg = Markup(profile_plots.operator_bars(profile, ops))
    return [Figure("What the graphs' time goes to", caption, svg, legend)]


def _facts(result: BenchResult) -> list[tuple[str, str]]:
    machine, settings, conditions = result.machine, result.settings, result.conditions
    order = "interleaved runs" if settings.interleaved else "runs"
    facts = [("Measured", f"{settings.runs} {order} of each, by {result.tool.name} {result.tool.version}")]
    engines = {f"{each.engine.name} {each.engine.version}": None for each in result.variants.values()}
    facts.append(("Engines", ", ".join(engines)))
    frequency = [*machine.governors, *([f"up to {machine.mhz_max:,.0f} MHz"] if machine.mhz_max else [])]
    facts.append(("Frequency", ", ".join(frequency) or "not known"))
    if conditions is not None:
        throttled = {True: "yes", False: "no", None: "not known"}[conditions.throttled]
        facts.append(("Throttled", throttled))
        loads = [sample.other_load for sample in conditions.samples if sample.other_load is not None]
        if loads:
            facts.append(("Other load", f"{sum(loads) / len(loads):.2f} processors on average"))
        heat = [each.temperature_c for each in conditions.samples if each.temperature_c is not None]
        if heat:
            facts.append(("Temperature", f"{min(heat):.0f} to {max(heat):.0f} °C"))
        if conditions.energy_j is not None:
            facts.append(("Energy", f"{conditions.energy_j:,.1f} J in all"))
    return facts


def _table(result: BenchResult) -> tuple[DeviceRow, ...]:
    loads = {(load.variant, load.threads): load.slowdown for load in result.sustained}
    return tuple(
        DeviceRow(
            name,
            timing.threads,
            tuple(cell(variant, timing, loads.get((name, timing.threads))) for _, cell in _COLUMNS),
        )
        for name, variant in sorted(result.variants.items(), key=lambda each: variant_order(each[0]))
        for timing in sorted(variant.timings, key=lambda each: each.threads)
    )


_Cell = Callable[[VariantBench, Timing, float | None], str]
_COLUMNS: tuple[tuple[str, _Cell], ...] = (
    ("p10", lambda _, timing, __: _number(timing.stages[TOTAL].p10, 2)),
    ("median", lambda _, timing, __: _number(timing.stages[TOTAL].median, 2)),
    ("p90", lambda _, timing, __: _number(timing.stages[TOTAL].p90, 2)),
    ("p99", lambda _, timing, __: _number(timing.stages[TOTAL].p99, 2)),
    ("first", lambda _, timing, __: _number(timing.first_ms, 1)),
    ("load", lambda _, timing, __: _number(timing.load_ms, 1)),
    ("cold start", lambda _, timing, __: _number(timing.cold_start_ms, 0)),
    ("busy threads", lambda _, timing, __: _number(timing.busy_threads, 2)),
    ("peak MB", lambda variant, _, __: _megabytes(variant.peak_memory_bytes)),
    ("steady MB", lambda variant, _, __: _megabytes(variant.steady_memory_bytes)),
    ("last ÷ first minute", lambda _, __, slowdown: _number(slowdown, 2)),
)


def _title(name: str, machine: Machine) -> str:
    return f"{name}: {machine.device}" if machine.device else name


def _machine_line(machine: Machine) -> str:
    usable = f"{machine.usable_processors} of {machine.processors} processors"
    memory = f"{machine.memory_bytes / 2**30:.1f} GiB" if machine.memory_bytes else ""
    return ", ".join(filter(None, (machine.cpu, machine.isa, usable, memory, machine.os)))


def _keys(names: Sequence[str]) -> dict[str, str]:
    """A key for every name, no two alike."""
    return {
        name: f"{number}-{re.sub(r'[^A-Za-z0-9]+', '-', name).strip('-')}"
        for number, name in enumerate(names)
    }


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _megabytes(size_bytes: int | None) -> str:
    return "–" if size_bytes is None else f"{size_bytes / 1e6:.0f}"
