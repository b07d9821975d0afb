"""`python -m tests.fuzz`: many cases by hand, or one of them again."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before anything is imported: processes are forked

import click

from tests.fuzz.runner import Result, run, save
from tests.fuzz.targets import TARGETS

_FOUND = Path("build/fuzz")


@click.command()
@click.option("--cases", default=10_000, show_default=True, help="How many, of all targets together.")
@click.option("--first", default=0, show_default=True, help="The number of each target's first case.")
@click.option(
    "--target",
    "names",
    multiple=True,
    type=click.Choice(list(TARGETS)),
    help="May be repeated. Default: all.",
)
@click.option("--case", type=click.IntRange(min=0), help="Only the case of this number, told in full.")
def main(cases: int, first: int, names: Sequence[str], case: int | None) -> None:
    """Feed pocketvl what it cannot expect. Findings are saved in build/fuzz, and make the exit code 1."""
    chosen = names or list(TARGETS)
    numbers = range(first, first + max(1, cases // len(chosen))) if case is None else [case]
    results: list[Result] = []
    length = len(chosen) * len(numbers)
    hidden = case is not None or not sys.stderr.isatty()
    with click.progressbar(length=length, file=sys.stderr, hidden=hidden, show_pos=True) as bar:
        for result in _results(chosen, numbers):
            results.append(result)
            bar.label = result.target
            bar.update(1)
    for result in results if case is not None else ():
        click.echo(f"{result.target} {result.number}: {result.what}\n  {result.outcome}\n  {result.detail}")
    _summarise(results)
    sys.exit(any(result.is_finding for result in results))


def _results(names: Sequence[str], numbers: Sequence[int]) -> Iterator[Result]:
    for name in names:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            target = TARGETS[name](Path(folder))
            for result in run(target, numbers, Path(folder) / "log"):
                if result.is_finding:
                    save(result, target, _FOUND)
                yield result


def _summarise(results: Sequence[Result]) -> None:
    counts = Counter((result.target, result.is_finding, result.outcome) for result in results)
    firsts = {(result.target, result.outcome): result for result in reversed(results)}
    for (name, is_finding, outcome), count in sorted(counts.items()):
        click.echo(f"{name:<12} {count:>7}  {'FINDING: ' if is_finding else ''}{outcome}")
        if is_finding:
            result = firsts[name, outcome]
            click.echo(f"{'':<21} {result.what[:200]!a}\n{'':<21} {result.detail.splitlines()[0][:300]!a}")
            click.echo(f"{'':<21} {result.command}")


if __name__ == "__main__":
    main()
