"""`pocketvl-run bench` and `bench-graph`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketvl_runtime.command_parts import (
    bundle_argument,
    chosen_variants,
    json_option,
    print_json,
    print_notes,
    say,
    threads_type,
    variants_option,
)
from pocketvl_runtime.console import bar, say_line

if TYPE_CHECKING:
    from pocketvl_runtime.bench_result import BenchResult

_progress_lines = click.option(  # for programs that show progress themselves
    "--progress-lines", is_flag=True, hidden=True
)
_MOST_SECONDS = 86_400.0


@click.command()
@bundle_argument
@variants_option
@click.option(
    "--threads",
    multiple=True,
    type=threads_type,
    help="Threads for one inference; may be repeated. Default: 1, and as many as there are processors to "
    "use, at most 4.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Counted runs of each."
)
@click.option(
    "--warmup", type=click.IntRange(min=0), default=1, show_default=True, help="Runs of each before those."
)
@click.option("--image", type=click.Path(), help="A picture; default: the golden pack's first.")
@click.option("--audio", type=click.Path(), help="A WAV file, of a model that listens; default: likewise.")
@click.option("--text", help="A text; default: the golden pack's first.")
@click.option("--samples", is_flag=True, help="With --json: every counted run too, not only percentiles.")
@click.option(
    "--duration",
    type=click.FloatRange(min=0, max=_MOST_SECONDS),
    default=0.0,
    help="Then each variant answers for so many seconds without a pause, at the largest number of threads.",
)
@click.option("--ops", is_flag=True, help="With --json: then tell which operators the graphs' time goes to.")
@_progress_lines
@json_option
def bench(
    bundle: str,
    variants: tuple[str, ...],
    threads: tuple[int, ...],
    runs: int,
    warmup: int,
    image: str | None,
    audio: str | None,
    text: str | None,
    samples: bool,
    duration: float,
    ops: bool,
    progress_lines: bool,
    as_json: bool,
) -> None:
    """Time variants against each other, interleaved. docs/BENCH.md describes the JSON."""
    from pocketvl_runtime.bench import bench as measure
    from pocketvl_runtime.bundle import Bundle
    from pocketvl_runtime.variant_choice import default_threads

    opened = Bundle.open(bundle)
    chosen = chosen_variants(variants, opened)
    with bar("timing", as_lines=progress_lines) as tell:
        result = measure(
            opened,
            chosen,
            threads or (1, default_threads()),
            runs,
            image,
            text,
            tell,
            warmup_runs=warmup,
            keep_samples=samples,
            duration_s=duration,
            fresh=True,
            ops=ops,
            audio=audio,
        )
    print_notes(note for measured in result.variants.values() for note in measured.notes)
    for doubt in result.conditions.warnings if result.conditions else ():
        say_line("warning", doubt)
    if as_json:
        print_json(result)
    else:
        _print_bench(result)


@click.command("bench-graph")
@click.argument("graph", type=click.Path())
@click.option(
    "--threads", multiple=True, type=threads_type, help="Threads; may be repeated. Default: as for bench."
)
@click.option("--runs", type=click.IntRange(min=1), default=10, show_default=True, help="Counted runs.")
@_progress_lines
def bench_graph(graph: str, threads: tuple[int, ...], runs: int, progress_lines: bool) -> None:
    """Time a graph file and its operators on made-up inputs; prints the JSON that docs/BENCH.md describes."""
    from pocketvl_runtime.bench import bench_graph as measure
    from pocketvl_runtime.variant_choice import default_threads

    with bar("timing", as_lines=progress_lines) as tell:
        result = measure(Path(graph), threads or (1, default_threads()), runs, tell)
    print_json(result)


def _print_bench(result: BenchResult) -> None:
    machine = result.machine
    where = ", ".join(filter(None, (machine.device, machine.cpu, machine.isa, *machine.governors)))
    say(f"{where}; median (p10) ms of {result.settings.runs} interleaved runs")
    for name, measured in result.variants.items():
        for timing in measured.timings:
            cells = [f"{s} {each.median:.2f} ({each.p10:.2f})" for s, each in timing.stages.items()]
            plural = "s" if timing.threads > 1 else " "
            say(f"  {name:<14} {timing.threads} thread{plural}  {'  '.join(cells)}")
    for load in result.sustained:
        say(
            f"  {load.variant:<14} {load.duration_s:g} s without a pause, {load.threads} threads: from "
            f"{load.first_ms:.2f} to {load.last_ms:.2f} ms"
        )
