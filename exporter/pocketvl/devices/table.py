"""A profile as a table for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pocketvl_runtime.bench_result import TOTAL, BenchResult, Machine, Timing, VariantBench, in_order

_PERCENTILES = ("p10", "median", "p90", "p99")


def profile_lines(result: BenchResult) -> Iterator[str]:
    """The table of a result, warnings last; of an emulated machine, no latency."""
    yield f"{result.bundle.name} on {machine_line(result.machine)}"
    if result.machine.emulated:
        yield f"ran: {', '.join(result.variants)}"
    else:
        yield (
            f"milliseconds of a whole answer over {result.settings.runs} interleaved runs, medians of its "
            "stages; memory in MB"
        )
        yield from aligned(list(_rows(result)))
        yield from (
            f"{load.variant}, {load.threads} threads, {load.duration_s:g} s without a pause: "
            f"{load.first_ms:.2f} ms at first, {load.last_ms:.2f} at last ({load.slowdown - 1:+.0%})"
            for load in result.sustained
        )
    conditions = result.conditions
    if conditions is not None:
        if conditions.energy_j is not None and conditions.samples and conditions.samples[-1].at_s:
            watts = conditions.energy_j / conditions.samples[-1].at_s
            yield f"energy: {conditions.energy_j:.1f} J, {watts:.2f} W on average"
        yield from (f"doubtful: {warning}" for warning in conditions.warnings)


def machine_line(machine: Machine) -> str:
    """A machine in one line."""
    usable = f"{machine.usable_processors} of {machine.processors} processors"
    highest = f"up to {machine.mhz_max:.0f} MHz" if machine.mhz_max else None
    emulated = "EMULATED" if machine.emulated else None
    parts = (
        machine.device,
        machine.cpu,
        machine.isa,
        usable,
        *machine.governors,
        highest,
        machine.os,
        emulated,
    )
    return ", ".join(dict.fromkeys(part for part in parts if part))


def _rows(result: BenchResult) -> Iterator[Sequence[str]]:
    timings = [timing for each in result.variants.values() for timing in each.timings]
    stages = [s for s in in_order(s for timing in timings for s in timing.stages) if s != TOTAL]
    yield ("variant", "threads", *_PERCENTILES, *stages, "busy", "first", "cold", "peak", "steady")
    for name, measured in result.variants.items():
        for timing in measured.timings:
            yield (name, str(timing.threads), *_cells(timing, stages, measured))


def _cells(timing: Timing, stages: Sequence[str], measured: VariantBench) -> Iterator[str]:
    total = timing.stages[TOTAL]
    yield from (_number(getattr(total, name), 2) for name in _PERCENTILES)
    yield from (_number(timing.stages[s].median if s in timing.stages else None, 2) for s in stages)
    yield _number(timing.busy_threads, 2)
    yield _number(timing.first_ms, 1)
    yield _number(timing.cold_start_ms, 0)
    for size in (measured.peak_memory_bytes, measured.steady_memory_bytes):
        yield _number(None if size is None else size / 1e6, 0)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows of cells, at least two, as lines: the first column to the left, all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells])
