"""Commands about latency: `profile`, `choose`, `report`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketvl import api
from pocketvl.devices.routes import ROUTES, open_device
from pocketvl.errors import RecipeError
from pocketvl_runtime.console import printable
from pocketvl_runtime.isa import MAX_THREADS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pocketvl.pipelines.choose import Chosen
    from pocketvl.select.choice import Candidate
    from pocketvl_runtime.bench_result import BenchResult

_folder = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


def _with_routes(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of every way to reach a device."""
    for route in reversed(ROUTES):
        for option in (route.program, route.place):
            command = click.option(f"--{option.name}", metavar=option.metavar, help=option.help)(command)
    return command


@click.command()
@click.argument("bundle", type=_folder, required=False)
@_with_routes
@click.option(
    "--compare",
    nargs=2,
    type=_folder,
    metavar="A.json B.json",
    help="Measure nothing: hold two profiles against each other.",
)
@click.option(
    "--variant",
    "variants",
    multiple=True,
    help="Which variant; may be repeated. Default: the accepted ones that can run there.",
)
@click.option("--all-variants", is_flag=True, help="Those that failed the gate, too.")
@click.option(
    "--threads",
    metavar="N,...",
    help="Threads for one inference. Default: 1, and as many as there are processors to use, at most 4.",
)
@click.option(
    "--runs", type=click.IntRange(min=1), default=30, show_default=True, help="Counted runs of each."
)
@click.option(
    "--duration",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Then each variant answers for so long without a pause, at the largest number of threads.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=900.0,
    show_default=True,
    metavar="SECONDS",
    help="What any one of the benches may take, beside --duration.",
)
@click.option("--samples", is_flag=True, help="Keep every counted run.")
@click.option(
    "--explain",
    is_flag=True,
    help="Say which operators the time goes to, what is wrong, what to do. BUNDLE may be a graph file, too.",
)
@click.option("-o", "--out", type=_folder, help="The file to write. Default: profiles/DEVICE.json in BUNDLE.")
@_json
def profile(
    bundle: Path | None,
    compare: tuple[Path, Path] | None,
    variants: tuple[str, ...],
    all_variants: bool,
    threads: str | None,
    runs: int,
    duration: float,
    timeout: float,
    samples: bool,
    explain: bool,
    out: Path | None,
    as_json: bool,
    **chosen: str | None,
) -> None:
    """Measure how long BUNDLE's variants take, here or on a device; docs/PROFILING.md says how to read it."""
    from pocketvl.console import bar
    from pocketvl.devices.profiling import profile_path
    from pocketvl.devices.table import profile_lines

    if compare is not None:
        if bundle is not None:
            raise click.UsageError("--compare takes two profiles, and no bundle")
        _print_comparison(*compare, as_json)
        return
    if bundle is None:
        raise click.UsageError("Missing argument 'BUNDLE'.")
    if variants and all_variants:
        raise click.UsageError("--variant and --all-variants exclude each other")
    if explain and bundle.is_file():
        if any(chosen.values()) or variants or all_variants:
            raise click.UsageError("a graph file is explained here alone, and has no variants")
        _explain_graph(bundle, _thread_counts(threads), runs, timeout, as_json)
        return
    device = open_device(bundle, chosen)
    with bar() as progress:
        result = api.profile(
            bundle,
            device,
            variants=variants,
            all_variants=all_variants,
            threads=_thread_counts(threads),
            runs=runs,
            duration=duration,
            timeout=timeout,
            samples=samples,
            explain=explain,
            out=out,
            progress=progress,
        )
    if as_json and not explain:
        click.echo(result.to_json(), nl=False)
        return
    if not as_json:
        for line in profile_lines(result):
            click.echo(printable(line))
    if explain:
        _print_explanation(bundle, result, as_json)
    if as_json:
        return
    click.echo(f"profile: {out or profile_path(bundle, device.name)}")


def _explain_graph(path: Path, threads: list[int], runs: int, timeout: float, as_json: bool) -> None:
    """Time a graph file that is in no bundle, and explain it."""
    from pocketvl.console import bar

    with bar() as progress:
        result = api.profile_graph(path, threads=threads, runs=runs, timeout=timeout, progress=progress)
    _print_explanation(path, result, as_json)


def _print_explanation(bundle: Path, result: BenchResult, as_json: bool) -> None:
    from pocketvl.explain.table import explanation_lines

    explanation = api.explain(bundle, result)
    if as_json:
        both = {"profile": json.loads(result.to_json()), "explanation": explanation.to_json()}
        click.echo(json.dumps(both, ensure_ascii=False))
        return
    for line in explanation_lines(explanation):
        click.echo(printable(line))


def _thread_counts(text: str | None) -> list[int]:
    try:
        counts = [int(word) for word in text.split(",")] if text else []
    except ValueError:
        counts = [0]
    if not all(1 <= count <= MAX_THREADS for count in counts):
        raise click.UsageError(f"--threads is {text!r}, and must be numbers from 1 to {MAX_THREADS}: 1,2,4")
    return counts


@click.command()
@click.argument("bundle", type=_folder)
@click.option(
    "--device", required=True, type=_folder, metavar="FILE", help="What `pocketvl profile` measured on it."
)
@click.option("--max-latency", type=float, metavar="MS", help="Median of whole answers.")
@click.option("--max-size", metavar="SIZE", help="Of the variant's graph files, as 20MB.")
@click.option("--max-loss", type=float, metavar="PP", help="Loss against torch fp32, in percentage points.")
@click.option("--metric", help="Whose loss counts, as ask. Default: the one that loses most.")
@click.option("--threads", type=click.IntRange(min=1), help="Choose among this thread count alone.")
@click.option("-o", "--out", type=_folder, help="Write a bundle of the chosen variant alone.")
@_json
def choose(
    bundle: Path,
    device: Path,
    max_latency: float | None,
    max_size: str | None,
    max_loss: float | None,
    metric: str | None,
    threads: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Choose the variant of BUNDLE and the thread count that a device should run.

    Of the variants that passed the gate and keep to the limits, the one that loses least; of several, the
    quickest.
    """
    chosen = api.choose(
        bundle,
        device,
        max_latency_ms=max_latency,
        max_size=max_size,
        max_loss_pp=max_loss,
        metric=metric,
        threads=threads,
        out=out,
    )
    if as_json:
        click.echo(json.dumps(chosen.to_json(), ensure_ascii=False))
    else:
        for line in _choice_lines(chosen):
            click.echo(printable(line))
        if chosen.choice.chosen is not None and out is not None:
            click.echo(f"bundle: {out}")
    if chosen.choice.chosen is None:
        closest = chosen.choice.closest
        hint = (
            "" if closest is None else f"; closest comes {_named(closest)}, which {_reason(chosen, closest)}"
        )
        raise RecipeError(f"no accepted variant of {bundle} that {device} measured keeps to the limits{hint}")


@click.command()
@click.argument("bundle", type=_folder)
@_json
def report(bundle: Path, as_json: bool) -> None:
    """Write BUNDLE's report.html anew, with the profiles that lie in its folder profiles/."""
    from pocketvl.console import bar

    with bar() as progress, tempfile.TemporaryDirectory(prefix="pocketvl-report-") as scratch:
        os.environ.setdefault("MPLCONFIGDIR", str(Path(scratch) / "matplotlib"))
        written = api.report(bundle, progress=progress)
    if as_json:
        click.echo(json.dumps(written.to_json(), ensure_ascii=False))
        return
    for name in written.profiles:
        click.echo(f"profile: {name}")
    for note in written.left_out:
        click.echo(printable(f"left out: {note}"))
    click.echo(f"report: {written.page}")


def _print_comparison(a: Path, b: Path, as_json: bool) -> None:
    """Print two profiles side by side."""
    from pocketvl.devices.comparison import comparison_lines

    found = api.compare_profiles(a, b)
    if as_json:
        click.echo(json.dumps({"a": str(a), "b": str(b), **found.to_json()}, ensure_ascii=False))
        return
    for line in comparison_lines(found, str(a), str(b)):
        click.echo(printable(line))


def _choice_lines(chosen: Chosen) -> Iterator[str]:
    best = chosen.choice.chosen
    if best is not None:
        yield f"{_named(best)}: {best.latency_ms:.2f} ms, {best.size_bytes / 1e6:.2f} MB, {_loss(best)}"
        if best.sustained_ms is not None:
            yield f"under a sustained load at last {best.sustained_ms:.2f} ms"
    conditions = chosen.profile.conditions
    if conditions is not None:
        if conditions.throttled:
            yield "doubtful: the device was throttled"
        yield from (f"doubtful: {warning}" for warning in conditions.warnings)
    for judged in chosen.choice.judged:
        each = judged.candidate
        yield (
            f"{each.variant:<13} {_threads(each):<11} {each.latency_ms:9.2f} ms "
            f"{each.size_bytes / 1e6:8.2f} MB  {_loss(each):<24} {judged.reason or 'chosen'}"
        )
    yield from (f"{name:<13} was not measured on the device" for name in chosen.unmeasured)


def _named(candidate: Candidate) -> str:
    return f"{candidate.variant} at {_threads(candidate)}"


def _threads(candidate: Candidate) -> str:
    return f"{candidate.threads} thread{'s' if candidate.threads > 1 else ''}"


def _reason(chosen: Chosen, candidate: Candidate) -> str:
    return next(each.reason for each in chosen.choice.judged if each.candidate is candidate)


def _loss(candidate: Candidate) -> str:
    if candidate.loss_pp is None:
        return f"centred cosine {1 - candidate.distance:.5f}"
    return f"loses {candidate.loss_pp:.2f} pp" if candidate.loss_pp else "loses nothing"
