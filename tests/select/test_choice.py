"""Which variant a device should run."""

from __future__ import annotations

import dataclasses
import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pocketvl.errors import RecipeError
from pocketvl.select.choice import Candidate, Limits, candidates_of, choose
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.manifest import Status
from tests.devices.profiles import profile
from tests.evaluate.worlds import synthetic_report

EXACT = Candidate("onnx-fp32", 1, True, 8_000_000, 30.0, 0.0, 0.0)
QUICK = Candidate("tflite-int8", 1, True, 2_000_000, 5.0, 0.5, 1e-3)
QUICKER = dataclasses.replace(QUICK, threads=4, latency_ms=3.0)
ALL = (EXACT, QUICK, QUICKER)


def reasons(candidates: tuple[Candidate, ...], limits: Limits) -> dict[tuple[str, int], str]:
    judged = choose(candidates, limits).judged
    return {(each.candidate.variant, each.candidate.threads): each.reason for each in judged}


def test_the_smallest_loss_within_the_limits_is_chosen_and_then_the_quickest() -> None:
    assert choose(ALL, Limits()).chosen is EXACT
    assert choose(ALL, Limits(latency_ms=10)).chosen is QUICKER
    assert choose(ALL, Limits(latency_ms=10, threads=1)).chosen is QUICK
    assert choose(ALL, Limits(size_bytes=2_000_000)).chosen is QUICKER
    assert choose(ALL, Limits(loss_pp=0.4)).chosen is EXACT


def test_every_other_candidate_is_told_why_it_was_passed_over() -> None:
    assert reasons(ALL, Limits(latency_ms=10, size_bytes=5e6)) == {
        ("tflite-int8", 4): "",
        ("tflite-int8", 1): "slower",
        ("onnx-fp32", 1): "takes 30.00 ms, has 8.00 MB",
    }
    assert reasons(ALL, Limits(threads=1)) == {
        ("onnx-fp32", 1): "",
        ("tflite-int8", 1): "loses more",
        ("tflite-int8", 4): "not at 1 threads",
    }
    assert reasons(ALL, Limits(loss_pp=0.2))["tflite-int8", 1] == "loses 0.50 pp"


def test_a_variant_that_did_not_pass_the_gate_is_never_chosen() -> None:
    failed = dataclasses.replace(QUICKER, is_accepted=False)
    assert choose((QUICK, failed), Limits()).chosen is QUICK
    assert reasons((QUICK, failed), Limits())["tflite-int8", 4] == "did not pass the gate"
    nothing = choose((failed,), Limits(latency_ms=1))
    assert nothing.chosen is None
    assert nothing.closest is None


def test_where_nothing_fits_the_least_excess_comes_closest() -> None:
    found = choose(ALL, Limits(latency_ms=2.5, size_bytes=9e6))
    assert found.chosen is None
    assert found.closest is QUICKER
    assert choose(ALL, Limits(latency_ms=25, size_bytes=7e6, loss_pp=0)).closest is EXACT
    assert choose(ALL, Limits(latency_ms=1e-3, threads=1)).closest is QUICK
    assert choose((), Limits()).closest is None


def test_the_order_of_candidates_does_not_matter() -> None:
    twins = (*ALL, dataclasses.replace(QUICKER, variant="onnx-int8"))
    for limits in (Limits(), Limits(latency_ms=4), Limits(size_bytes=1)):
        found = {
            (choice.chosen, choice.closest, choice.judged)
            for each in itertools.permutations(twins)
            for choice in (choose(each, limits),)
        }
        assert len(found) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1.0, 2.0, 3.0]), st.sampled_from([10, 20, 30]), st.sampled_from([0.0, 1.0])
        ),
        max_size=6,
    ),
    st.sampled_from([0.5, 1.0, 2.5]),
    st.sampled_from([5, 20, 30]),
)
def test_what_is_chosen_keeps_to_the_limits_and_nothing_that_does_is_better(
    figures: list[tuple[float, int, float]], latency: float, size: int
) -> None:
    candidates = [
        Candidate(f"v{number}", 1, True, size_bytes, ms, loss, 0.0)
        for number, (ms, size_bytes, loss) in enumerate(figures)
    ]
    fitting = [each for each in candidates if each.latency_ms <= latency and each.size_bytes <= size]
    chosen = choose(candidates, Limits(latency, size)).chosen
    if not fitting:
        assert chosen is None
    else:
        assert chosen in fitting
        best = min((each.loss_pp or 0.0, each.latency_ms) for each in fitting)
        assert (chosen.loss_pp, chosen.latency_ms) == best


def test_candidates_join_the_report_and_the_profile() -> None:
    report = synthetic_report(lost=2)
    measured = profile(
        {"tflite-int8": {1: 9.0, 4: 4.0}, "onnx-fp32": {1: 30.0}}, loads={"tflite-int8": [4.0, 6.0]}
    )
    found = {
        (each.variant, each.threads): each for each in candidates_of(report.ordered_variants(), measured)
    }
    assert set(found) == {("tflite-int8", 1), ("tflite-int8", 4), ("onnx-fp32", 1)}
    int8 = found["tflite-int8", 4]
    assert (int8.latency_ms, int8.size_bytes, int8.sustained_ms) == (4.0, 2_000_000, 6.0)
    assert int8.loss_pp == pytest.approx(1.0)
    assert int8.is_accepted
    assert found["tflite-int8", 1].sustained_ms is None


def test_a_gain_is_no_loss_and_one_metric_may_be_named() -> None:
    report = synthetic_report(lost=2)
    variant = report.variants["tflite-int8"]
    hard = variant.metrics[Metric.MATCH_HARD]
    both = {Metric.MATCH_HARD: hard, Metric.ASK: dataclasses.replace(hard, drop_pp=-3.0)}
    variants = [dataclasses.replace(variant, metrics=both)]
    measured = profile({"tflite-int8": {1: 9.0}})
    losses = {metric: candidates_of(variants, measured, metric)[0].loss_pp for metric in (None, *both)}
    assert losses == {None: pytest.approx(1.0), Metric.MATCH_HARD: pytest.approx(1.0), Metric.ASK: 0.0}
    with pytest.raises(
        RecipeError, match="tflite-int8 was not measured by classify; the report has match_hard, ask"
    ):
        candidates_of(variants, measured, Metric.CLASSIFY)


def test_without_task_data_the_outputs_decide_and_no_loss_can_be_limited() -> None:
    report = synthetic_report()
    variants = [dataclasses.replace(each, metrics={}) for each in report.variants.values()]
    measured = profile({"tflite-int8": {1: 9.0}, "tflite-fp32": {1: 20.0}})
    candidates = candidates_of(variants, measured)
    chosen = choose(candidates, Limits()).chosen
    assert chosen is not None
    assert chosen.variant == "tflite-fp32"
    with pytest.raises(RecipeError, match="no task was measured"):
        choose(candidates, Limits(loss_pp=1.0))


def test_a_variant_that_is_kept_as_experimental_is_not_accepted() -> None:
    variant = dataclasses.replace(synthetic_report().variants["tflite-int8"], status=Status.EXPERIMENTAL)
    assert not candidates_of([variant], profile({"tflite-int8": {1: 9.0}}))[0].is_accepted


@pytest.mark.parametrize(
    "limits",
    [
        {"latency_ms": 0.0},
        {"latency_ms": math.nan},
        {"size_bytes": -1.0},
        {"loss_pp": -0.1},
        {"loss_pp": math.inf},
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(RecipeError, match="the largest"):
        Limits(**limits)  # type: ignore[arg-type]
