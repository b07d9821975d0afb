from __future__ import annotations

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.evaluate.compare import reference_metrics, variant_metrics, variant_parity
from pocketvl.evaluate.embeddings import Embeddings
from pocketvl.evaluate.statistics import paired_interval, wilson_interval
from pocketvl.evaluate.tasks import Metric, TaskOutcomes
from pocketvl_runtime.manifest import Role
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


def test_different_data_is_refused() -> None:
    with pytest.raises(DataError, match="different data"):
        variant_metrics(outcomes(True), TaskOutcomes({}, ()))
    image = np.eye(3, dtype=np.float32)
    one = Embeddings(image, image, ("a", "b", "c"))
    with pytest.raises(DataError, match="different texts"):
        variant_parity(one, Embeddings(image, image, ("a", "b", "d")))


def test_parity_is_told_apart_by_role() -> None:
    image, text = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
    moved = text + np.float32(0.25)
    parity = variant_parity(
        Embeddings(image, text, ("a", "b", "c")), Embeddings(image, moved, ("a", "b", "c"))
    )
    assert parity[Role.IMAGE_ENCODER].max_abs == 0.0
    assert parity[Role.TEXT_ENCODER].max_abs == pytest.approx(0.25)
