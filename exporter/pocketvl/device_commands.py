"""Commands about profiles that were measured before: `choose`, `report`, `profile --compare`."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pocketvl import api
from pocketvl.errors import RecipeError
from pocketvl_runtime.console import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pocketvl.pipelines.choose import Chosen
    from pocketvl.select.choice import Candidate

_folder = click.Path(path_type=Path)
_json = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


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


def print_comparison(a: Path, b: Path, as_json: bool) -> None:
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
