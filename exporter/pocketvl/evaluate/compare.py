"""Metrics and paired differences of two models on the same data, for the report."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pocketvl.data.dataset import Dataset
from pocketvl.errors import DataError
from pocketvl.evaluate.report import MetricReport, RateReport
from pocketvl.tasks.base import Task
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl.tasks.outputs import Outputs
from pocketvl.tasks.parity import ParityReport
from pocketvl.tasks.statistics import paired_difference, wilson_interval


@dataclass(frozen=True)
class Comparison:
    """A variant beside the reference.

    Attributes:
        metrics: by task metric, with the paired difference; none where only parity is measured.
        parity: by port.
    """

    metrics: dict[Metric, MetricReport]
    parity: dict[str, ParityReport]


def compare(task: Task, reference: Outputs, variant: Outputs, dataset: Dataset | None) -> Comparison:
    """Measure a variant against the reference.

    Args:
        task: of the model.
        reference: torch's outputs.
        variant: its outputs for the same inputs.
        dataset: what both were given; None to measure parity alone.

    Raises:
        DataError: the two were not given the same inputs.
    """
    metrics = (
        {}
        if dataset is None
        else variant_metrics(task.measure(dataset, reference), task.measure(dataset, variant))
    )
    return Comparison(metrics, task.parity(reference, variant))


def reference_metrics(outcomes: TaskOutcomes) -> dict[Metric, MetricReport]:
    """The reference's task metrics with their intervals."""
    return {metric: _metric(task) for metric, task in outcomes.tasks.items()}


def variant_metrics(reference: TaskOutcomes, variant: TaskOutcomes) -> dict[Metric, MetricReport]:
    """A variant's task metrics, each with its paired difference to the reference.

    Raises:
        DataError: the two were not measured on the same samples.
    """
    if reference.tasks.keys() != variant.tasks.keys():
        raise DataError("reference and variant were measured on different data; measure both again")
    metrics: dict[Metric, MetricReport] = {}
    for metric, task in variant.tasks.items():
        plain = _metric(task)
        paired = paired_difference(reference.tasks[metric].correct, task.correct)
        metrics[metric] = replace(
            plain,
            drop_pp=paired.drop_pp,
            drop_ci95=paired.ci95_pp,
            lost=paired.lost,
            gained=paired.gained,
        )
    return metrics


def _metric(task: TaskOutcome) -> MetricReport:
    rate = _rate(task.correct)
    kinds = {kind: _rate(right, task.constant.get(kind)) for kind, right in task.by_kind.items()}
    asked = [(each.constant, each.n) for each in kinds.values() if each.constant is not None]
    constant = sum(share * n for share, n in asked) / rate.n if asked else None
    return MetricReport(rate.value, rate.n, rate.ci95, by_kind=kinds, constant=constant)


def _rate(correct: NDArray[np.bool_], constant: float | None = None) -> RateReport:
    right, n = int(np.count_nonzero(correct)), int(correct.size)
    return RateReport(right / n, n, wilson_interval(right, n), constant)
