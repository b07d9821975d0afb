"""Every compression method measured, alone and together: docs/RESULTS.md and its pictures.

    python -m bench.results train --data DIR --recipe-data DIR --work DIR [--rows a,b]
    python -m bench.results measure --data DIR --recipe-data DIR --judged DIR --work DIR
    python -m bench.results render --work DIR

Each goes on where it was interrupted, row by row, and does nothing twice. Training needs neither engines nor
what lowers to them: it may run on another machine, whose `rows/NAME/checkpoint` and `rows/NAME/trained.json`
are copied into the work folder before measuring.
"""

from __future__ import annotations

from pathlib import Path

import click

from bench.results.rows import Budget, Row, TrainingData, all_rows, chosen_rows
from pocketvl_runtime.console import run_command

_folder = click.Path(path_type=Path)
_work = click.option("--work", type=_folder, default=Path("build/results"), show_default=True)
_cache = click.option("--cache", type=_folder, envvar="POCKETVL_CACHE", required=True)
_data = click.option("--data", type=_folder, required=True, help="Dataset folder to learn from.")
_recipe_data = click.option(
    "--recipe-data", type=_folder, help="Dataset folder that shipped recipes learn from; default: --data."
)
_names = click.option("--rows", "names", default="", metavar="A,B,...", help="Default: all.")
_budget = click.option(
    "--budget", default="48,36,16", show_default=True, metavar="IMAGE,TEXT,JOINT", help="Steps of a row."
)


def _rows(names: str, budget: str) -> tuple[Row, ...]:
    try:
        image, text, joint = map(int, budget.split(","))
    except ValueError:
        raise click.UsageError(f"--budget: {budget!r} is not of the form 48,36,16") from None
    try:
        return chosen_rows(all_rows(Budget(image, text, joint)), filter(None, names.split(",")))
    except ValueError as error:
        raise click.UsageError(f"--rows: {error}") from None


@click.group()
def cli() -> None:
    """Measure every compression method, alone and together."""


@cli.command("list")
@_budget
def show(budget: str) -> None:
    """List the rows with their training steps."""
    for row in _rows("", budget):
        click.echo(f"{row.name:<22} {row.training_steps:>6}  {row.group}: {row.label}")


@cli.command()
@_data
@_recipe_data
@_work
@_names
@_budget
@_cache
def train(data: Path, recipe_data: Path | None, work: Path, names: str, budget: str, cache: Path) -> None:
    """Make the rows' checkpoints."""
    from bench.results.train import train_rows

    train_rows(_rows(names, budget), TrainingData(data, recipe_data or data), work, cache)


@cli.command()
@_data
@_recipe_data
@click.option("--judged", type=_folder, required=True, help="Dataset folder that nobody trained on.")
@click.option("--calibration", type=_folder, default=Path("calibration_data"), show_default=True)
@_work
@_names
@_budget
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option(
    "--runs", type=click.IntRange(min=1), default=60, show_default=True, help="Timed, of each graph."
)
@_cache
def measure(
    data: Path,
    recipe_data: Path | None,
    judged: Path,
    calibration: Path,
    work: Path,
    names: str,
    budget: str,
    threads: int,
    runs: int,
    cache: Path,
) -> None:
    """Export and judge the rows whose checkpoint is there, and time all of them."""
    from bench.results.latency import measure_latency
    from bench.results.measure import Folders, measure_rows

    folders = Folders(judged, TrainingData(data, recipe_data or data), calibration, work, cache)
    waiting = measure_rows(_rows(names, budget), folders)
    if waiting:
        click.echo(f"no checkpoint yet, train first: {', '.join(row.name for row in waiting)}", err=True)
    click.echo("timing every row's graphs in turns: some minutes", err=True)
    measure_latency(_rows("", budget), judged, work, threads, runs)


@cli.command()
@_work
@_budget
@click.option("--out", type=_folder, default=Path("docs/RESULTS.md"), show_default=True)
def render(work: Path, budget: str, out: Path) -> None:
    """Write the tables, and the picture beside them."""
    from bench.results.render import write_results

    missing = write_results(_rows("", budget), work, out)
    if missing:
        click.echo(f"not measured yet: {', '.join(row.name for row in missing)}", err=True)
    click.echo(str(out))


if __name__ == "__main__":
    run_command(cli, "python -m bench.results")
