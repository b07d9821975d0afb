"""From two models' embeddings of the same data to the figures of a report."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl.evaluate.parity import ParityReport, measure_parity
from pocketvl.evaluate.report import MetricReport, RateReport
from pocketvl.evaluate.statistics import paired_difference, wilson_interval
from pocketvl.evaluate.tasks import Metric, TaskOutcome, TaskOutcomes
from pocketvl_runtime.manifest import Role


def reference_metrics(outcomes: TaskOutcomes) -> dict[Metric, MetricReport]:
    """The reference's task metrics with their intervals."""
    return {metric: _metric(task) for metric, task in outcomes.tasks.items()}


def variant_metrics(reference: TaskOutcomes, variant: TaskOutcomes) -> dict[Metric, MetricReport]:
    """A variant's task metrics, each with its paired difference to the reference.

    Raises:
        DataError: the two were not measured on the same samples.
    """
    if reference.tasks.keys() != variant.tasks.keys():
        raise DataError("reference and variant were measured on different data; measure both anew")
    metrics: dict[Metric, MetricReport] = {}
    for metric, task in variant.tasks.items():
        plain = _metric(task)
        paired = paired_difference(reference.tasks[metric].correct, task.correct)
        metrics[metric] = MetricReport(
            value=plain.value,
            n=plain.n,
            ci95=plain.ci95,
            drop_pp=paired.drop_pp,
            drop_ci95=paired.ci95_pp,
            lost=paired.lost,
            gained=paired.gained,
            by_kind=plain.by_kind,
        )
    return metrics


def variant_parity(reference: Embeddings, variant: Embeddings) -> dict[Role, ParityReport]:
    """A dual encoder's parity, one report a tower.

    Raises:
        DataError: the two are not embeddings of the same pictures and texts.
    """
    if reference.texts != variant.texts:
        raise DataError("reference and variant embedded different texts; measure both anew")
    return {
        Role.IMAGE_ENCODER: measure_parity(reference.image, variant.image),
        Role.TEXT_ENCODER: measure_parity(reference.text, variant.text),
    }


def _metric(task: TaskOutcome) -> MetricReport:
    rate = _rate(task.correct)
    kinds = {kind: _rate(beaten) for kind, beaten in task.by_kind.items()}
    return MetricReport(rate.value, rate.n, rate.ci95, by_kind=kinds)


def _rate(correct: NDArray[np.bool_]) -> RateReport:
    right, n = int(np.count_nonzero(correct)), int(correct.size)
    return RateReport(right / n, n, wilson_interval(right, n))
