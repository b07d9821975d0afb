"""How many questions of a dataset a checkpoint answers right in torch, in float: the table of its card.

    python -m bench.ask checkpoints/tabletop-vilt --data DIR

`--data` is unseen: a dataset folder with questions, as `pocketvl data tabletop` makes them.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.families import open_checkpoint
from pocketvl.tasks import task_of
from pocketvl.tasks.encoding import Encoder
from pocketvl.tasks.metrics import Metric, TaskOutcome
from pocketvl.tasks.statistics import wilson_interval
from pocketvl.tasks.torch_runner import TorchRunner


@click.command()
@click.argument("checkpoint", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(checkpoint: Path, data: Path) -> None:
    """Print the table."""
    opened, dataset = open_checkpoint(checkpoint), Dataset.open(data)
    task = task_of(opened.contract, opened)
    runner = TorchRunner(opened.components, Encoder.of_contract(opened.contract))
    click.echo(table(task.measure(dataset, task.outputs(runner, dataset)).tasks[Metric.ASK]))


def table(found: TaskOutcome) -> str:
    """Rates of all questions and of every type, with Wilson intervals and what constant answers come to."""
    sizes = {kind: len(right) for kind, right in found.by_kind.items()}
    constant = sum(found.constant[kind] * size for kind, size in sizes.items()) / sum(sizes.values())
    lines = [_row("all", found.correct, constant)]
    lines += [_row(kind, right, found.constant[kind]) for kind, right in found.by_kind.items()]
    return "\n".join(["| questions | n | right | 95 % CI | constant |", "|---|---|---|---|---|", *lines])


def _row(kind: str, right: NDArray[np.bool_], constant: float) -> str:
    low, high = wilson_interval(int(right.sum()), len(right))
    rates = f"{right.mean():.1%} | {low * 100:.1f} to {high * 100:.1f} | {constant:.1%}"
    return f"| {kind} | {len(right):,} | {rates} |".replace("%", " %")


if __name__ == "__main__":
    main()
