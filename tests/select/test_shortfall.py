"""By how much variants miss the gate."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvl.evaluate.report import VariantReport
from pocketvl.select.gate import GateSettings, judge
from pocketvl.select.shortfall import shortfall
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.manifest import Precision
from tests.select.test_gate import STEADY, gate, parity, upper, variant


def many(median: float) -> VariantReport:
    return variant(seen=parity(minimum=median, median=median))


def test_a_variant_that_passes_misses_nothing() -> None:
    assert shortfall([variant(lost={Metric.MATCH_HARD: 0})], gate()) is None
    assert shortfall([variant()], gate()) is None


def test_outputs_too_far_away_blame_their_component_alone() -> None:
    found = shortfall([many(0.98), many(0.9999)], gate())
    assert found is not None
    assert found.components == {"image_encoder"}
    assert found.share == pytest.approx(0.5)  # .02 is lost, and .01 allowed


def test_of_few_rows_the_eased_limit_counts() -> None:
    few = dataclasses.replace(parity(minimum=0.97, median=0.97), n=40)
    assert shortfall([variant(seen=few)], gate()) is None


def test_lost_answers_blame_every_component() -> None:
    found = shortfall([variant(lost={Metric.MATCH_HARD: 200}, seen=parity(median=0.9))], gate("match_hard=1"))
    assert found is not None
    assert found.components == frozenset()
    assert found.share == pytest.approx(1 - (1 / upper(200)) ** 2)


def test_one_that_is_not_proved_asks_for_little() -> None:
    """Its estimate is within the allowance, and its interval reaches a hair beyond."""
    found = shortfall([variant(lost={Metric.MATCH_HARD: 12})], gate("match_hard=1"))
    assert found is not None
    assert found.share == pytest.approx(1 - (1 / upper(12)) ** 2)
    assert found.share < 0.15


def test_what_could_not_be_measured_is_nothing_that_layers_could_mend() -> None:
    asked = gate("match_hard=1,retrieval_r1=1")
    assert not judge(variant(lost={Metric.MATCH_HARD: 0}), asked).passed
    assert shortfall([variant(lost={Metric.MATCH_HARD: 0})], asked) is None
    assert shortfall([variant(Precision.INT4)], gate()) is None  # judged by answers alone, and there are none


@STEADY
@given(st.integers(0, 60), st.floats(0.9, 1.0), st.floats(0, 3))
def test_there_is_a_shortfall_where_the_gate_says_no(lost: int, median: float, allowed: float) -> None:
    settings = GateSettings({Metric.MATCH_HARD: allowed})
    seen = variant(lost={Metric.MATCH_HARD: lost}, seen=parity(median=median))
    found = shortfall([seen], settings)
    assert (found is None) == judge(seen, settings).passed
    assert found is None or 0 < found.share <= 1
