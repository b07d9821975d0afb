from __future__ import annotations

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.evaluate.compare import reference_metrics, variant_metrics
from pocketvl.tasks.metrics import Metric, TaskOutcome, TaskOutcomes
from pocketvl.tasks.statistics import paired_interval, wilson_interval
from tests.evaluate.worlds import outcomes


def test_a_variants_metric_is_paired_with_the_references() -> None:
    reference = outcomes(True, True, True, False)
    metric = variant_metrics(reference, outcomes(True, False, True, False))[Metric.MATCH_HARD]
    assert (metric.value, metric.n, metric.lost, metric.gained) == (0.5, 4, 1, 0)
    assert metric.ci95 == wilson_interval(2, 4)
    assert metric.drop_pp == pytest.approx(25.0)
    assert metric.drop_ci95 == pytest.approx(tuple(100 * limit for limit in paired_interval(1, 0, 4)))
    assert metric.by_kind["colour"].value == 0.5


def test_the_reference_has_no_drop() -> None:
    metric = reference_metrics(outcomes(True, True, False))[Metric.MATCH_HARD]
    assert metric.value == pytest.approx(2 / 3)
    assert metric.drop_pp is None
    assert metric.by_kind["relation"].value == pytest.approx(1 / 3)


def test_a_rate_by_type_stands_beside_that_of_one_constant_answer() -> None:
    right = np.array([True, True, False, True])
    kinds = {"colour": right[:3], "count": right[3:]}
    asked = TaskOutcome(Metric.ASK, right, kinds, {"colour": 2 / 3, "count": 1.0})
    metric = reference_metrics(TaskOutcomes({Metric.ASK: asked}, ()))[Metric.ASK]
    assert metric.value == 0.75
    assert metric.constant == pytest.approx(0.75)
    assert {kind: (rate.n, rate.constant) for kind, rate in metric.by_kind.items()} == {
        "colour": (3, 2 / 3),
        "count": (1, 1.0),
    }
    assert reference_metrics(outcomes(True))[Metric.MATCH_HARD].constant is None


def test_different_data_is_refused() -> None:
    with pytest.raises(DataError, match="different data"):
        variant_metrics(outcomes(True), TaskOutcomes({}, ()))
