from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvl.errors import RecipeError
from pocketvl.evaluate.report import Fallback, MetricReport, VariantReport
from pocketvl.evaluate.report_json import report_from_json, report_to_json
from pocketvl.network.tolerances import DEFAULT_PARITY, ParityLimits
from pocketvl.select.gate import (
    Decision,
    GateResult,
    GateSettings,
    decide,
    judge,
    judge_report,
    parse_gate,
)
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.labels import LabelTask
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.parity import LossHistogram, ParityReport
from pocketvl.tasks.statistics import least_samples, paired_interval
from pocketvl_runtime.manifest import Engine, Precision, Status
from tests.evaluate.worlds import synthetic_report

N = 2000
STEADY = settings(deadline=None, derandomize=True)


def measured(lost: int, gained: int = 0, n: int = N) -> MetricReport:
    low, high = paired_interval(lost, gained, n)
    drop, interval = 100 * (lost - gained) / n, (100 * low, 100 * high)
    return MetricReport(0.8, n, (0.78, 0.82), drop, interval, lost, gained)


def parity(minimum: float = 0.999999, median: float = 0.9999999, max_abs: float = 1e-6) -> ParityReport:
    return ParityReport(100, minimum, median, minimum, median, max_abs, 0, LossHistogram(-10, 0.5, (100,)))


ONE_PP = {Metric.MATCH_HARD: 1.0, Metric.RETRIEVAL_R1: 1.0}


def gate(text: str = "") -> GateSettings:
    """Of a model that matches images with texts."""
    return parse_gate(text, ContrastiveTask.metrics)


def variant(
    precision: Precision = Precision.INT8,
    lost: dict[Metric, int] | None = None,
    seen: ParityReport | None = None,
    n: int = N,
) -> VariantReport:
    metrics = {metric: measured(max(count, 0), max(-count, 0), n) for metric, count in (lost or {}).items()}
    close = seen or parity()
    ports = {"image_encoder.embedding": close, "text_encoder.embedding": parity()}
    return VariantReport(Engine.ONNX, precision, Status.ACCEPTED, 10, metrics=metrics, parity=ports)


def upper(lost: int, gained: int = 0, n: int = N) -> float:
    return 100 * paired_interval(lost, gained, n)[1]


def shown(lost: int) -> str:
    return f"{math.ceil(1000 * upper(lost)) / 1000:.3f}"


def test_a_loss_that_is_proved_to_be_within_the_allowance_passes() -> None:
    settings = gate("match_hard=1")
    assert upper(11) <= 1 < upper(12)
    result = judge(variant(lost={Metric.MATCH_HARD: 11}), settings)
    assert result.passed
    assert (result.failures, result.undecided) == ((), ())
    assert result.allowance_pp == {Metric.MATCH_HARD: 1.0}


def test_a_loss_beyond_the_allowance_fails_and_says_what_is_known() -> None:
    result = judge(variant(lost={Metric.MATCH_HARD: 21}), gate("match_hard=1"))
    assert not result.passed
    bound = f"at most {shown(21)} pp with 95 % confidence (n = 2,000)"
    assert result.failures == (f"onnx-int8: match_hard dropped 1.050 pp, {bound}; 1 pp allowed",)
    assert result.undecided == ()
    assert not result.wants_samples


def test_a_loss_that_only_its_interval_carries_beyond_the_allowance_is_not_proved() -> None:
    result = judge(variant(lost={Metric.MATCH_HARD: 12, Metric.RETRIEVAL_R1: 0}), gate("match_hard=1"))
    assert not result.passed
    seen = f"dropped 0.600 pp, and at most {shown(12)} pp with 95 % confidence (n = 2,000)"
    assert result.failures == (
        f"onnx-int8: match_hard is not proved: {seen}; 1 pp allowed: give more --data or allow more",
    )
    assert result.undecided == (Metric.MATCH_HARD,)
    assert result.wants_samples
    far = variant(lost={Metric.MATCH_HARD: 12}, seen=parity(median=0.5))
    assert judge(far, gate("match_hard=1")).undecided == (Metric.MATCH_HARD,)
    assert not judge(far, gate("match_hard=1")).wants_samples  # more samples bring no embedding nearer


def test_more_samples_prove_what_fewer_do_not() -> None:
    settings = gate("match_hard=1")
    assert not judge(variant(lost={Metric.MATCH_HARD: 6}, n=1000), settings).passed
    assert judge(variant(lost={Metric.MATCH_HARD: 24}, n=4000), settings).passed


@pytest.mark.parametrize(("allowance", "n"), [(1.0, 381), (1.0, 2000), (0.5, 768), (0.5, 2000), (0.2, 2000)])
def test_the_very_same_answers_pass_wherever_they_can_prove_it(allowance: float, n: int) -> None:
    same = variant(Precision.FP32, {Metric.MATCH_HARD: 0, Metric.RETRIEVAL_R1: 0}, n=n)
    result = judge(same, gate(f"match_hard={allowance},retrieval_r1={allowance}"))
    assert result.passed
    assert result.notes == ()


@pytest.mark.parametrize(("lost", "passed"), [(0, True), (2, True), (3, False)])
def test_too_few_samples_to_prove_anything_are_judged_by_the_estimate_and_that_is_said(
    lost: int, passed: bool
) -> None:
    result = judge(variant(lost={Metric.MATCH_HARD: lost}, n=200), gate("match_hard=1"))
    assert result.passed == passed
    assert result.undecided == ()
    assert result.notes[0] == (
        "match_hard: 200 samples are too few to prove 1 pp with 95 % confidence (at least 381): "
        "judged by the point estimate"
    )
    assert judge(variant(lost={Metric.MATCH_HARD: lost}, n=380), gate("match_hard=1")).passed
    assert judge(variant(lost={Metric.MATCH_HARD: lost}, n=381), gate("match_hard=1")).passed == (lost == 0)


def test_no_number_of_samples_proves_that_nothing_is_lost() -> None:
    settings = gate("match_hard=0")
    result = judge(variant(lost={Metric.MATCH_HARD: 0}, n=10**6), settings)
    assert result.passed
    assert "match_hard: no number of samples proves 0 pp: judged by the point estimate" in result.notes
    assert not judge(variant(lost={Metric.MATCH_HARD: 1}, n=10**6), settings).passed


ALLOWANCES = st.floats(0, 20)


@st.composite
def answers(draw: st.DrawFn) -> tuple[int, int, int]:
    n = draw(st.integers(1, 5000))
    lost = draw(st.integers(0, min(n, 300)))
    return lost, draw(st.integers(0, min(n - lost, 300))), n


def passes(lost: int, gained: int, n: int, allowance: float) -> bool:
    report = dataclasses.replace(variant(), metrics={Metric.MATCH_HARD: measured(lost, gained, n)})
    return judge(report, GateSettings({Metric.MATCH_HARD: allowance})).passed


@STEADY
@given(answers(), ALLOWANCES)
def test_what_passes_is_proved_wherever_that_can_be(case: tuple[int, int, int], allowance: float) -> None:
    lost, gained, n = case
    least = least_samples(allowance)
    if least is not None and n >= least:
        assert passes(lost, gained, n, allowance) == (upper(lost, gained, n) <= allowance)
    else:
        assert passes(lost, gained, n, allowance) == (100 * (lost - gained) / n <= allowance)


@STEADY
@given(answers(), ALLOWANCES)
def test_who_loses_more_never_passes_where_the_other_fails(
    case: tuple[int, int, int], allowance: float
) -> None:
    lost, gained, n = case
    if passes(lost, gained, n, allowance) and lost:
        assert passes(lost - 1, gained, n, allowance)


@STEADY
@given(answers(), ALLOWANCES)
def test_every_failed_loss_is_either_lost_or_undecided(case: tuple[int, int, int], allowance: float) -> None:
    lost, gained, n = case
    drop, limit = 100 * (lost - gained) / n, upper(lost, gained, n)
    decision = decide(drop, limit, n, allowance)
    assert (decision is Decision.LOST) == (drop > allowance)
    assert (decision is Decision.WITHIN) == passes(lost, gained, n, allowance)
    if decision is Decision.UNDECIDED:
        assert drop <= allowance < limit


def test_a_loss_without_its_interval_proves_nothing() -> None:
    bare = dataclasses.replace(measured(0), drop_ci95=None)
    result = judge(dataclasses.replace(variant(), metrics={Metric.MATCH_HARD: bare}), gate())
    assert result.undecided == (Metric.MATCH_HARD,)


def test_every_metric_is_judged_by_its_own_allowance() -> None:
    lost = {Metric.MATCH_HARD: 22, Metric.RETRIEVAL_R1: 24, Metric.CLASSIFY: 1000}
    result = judge(variant(lost=lost), gate())
    assert [failure.split()[1] for failure in result.failures] == ["match_hard", "retrieval_r1"]
    assert result.notes == ("classify has no allowance and was not judged",)
    assert "classify" in judge(variant(lost=lost), gate("classify=2")).failures[2]


@pytest.mark.parametrize(("n", "median", "passed"), [(99, 0.96, True), (99, 0.94, False), (100, 0.96, False)])
def test_few_rows_are_held_to_less_and_the_result_says_so(n: int, median: float, passed: bool) -> None:
    seen = dataclasses.replace(parity(median=median), n=n)
    result = judge(variant(Precision.INT8, {Metric.MATCH_HARD: 0}, seen), gate())
    assert result.passed == passed
    assert any("image_encoder.embedding: only 99 rows" in note for note in result.notes) == (n == 99)
    assert not judge(variant(Precision.FP16, {Metric.MATCH_HARD: 0}, seen), gate()).passed


def test_a_gain_always_passes() -> None:
    assert judge(variant(lost={Metric.MATCH_HARD: -60}), gate("match_hard=0")).passed


@pytest.mark.parametrize(
    ("precision", "seen", "figure"),
    [
        (Precision.FP32, parity(max_abs=1.1e-4), "max_abs"),
        (Precision.FP32, parity(minimum=0.99998), "centred_cosine_min"),
        (Precision.FP16, parity(median=0.9989), "centred_cosine_median"),
        (Precision.INT8, parity(median=0.9899), "centred_cosine_median"),
        (Precision.INT8DYN, parity(median=0.9899), "centred_cosine_median"),
        (Precision.INT8, dataclasses.replace(parity(), non_finite=3), "NaN or infinity for 3 of 100"),
    ],
)
def test_embeddings_too_far_from_torch_fail(precision: Precision, seen: ParityReport, figure: str) -> None:
    good = {Metric.MATCH_HARD: 0, Metric.RETRIEVAL_R1: 0}
    result = judge(variant(precision, good, seen), gate())
    assert len(result.failures) == 1
    assert result.failures[0].startswith(f"onnx-{precision.value}: image_encoder.embedding")
    assert figure in result.failures[0]


@pytest.mark.parametrize(
    ("precision", "seen"),
    [
        (Precision.FP32, parity(minimum=0.99999, max_abs=1e-4)),
        (Precision.FP16, parity(minimum=0.9, median=0.999, max_abs=1.0)),
        (Precision.INT8, parity(minimum=0.5, median=0.99, max_abs=1.0)),
    ],
)
def test_embeddings_at_the_limit_pass(precision: Precision, seen: ParityReport) -> None:
    assert judge(variant(precision, {Metric.MATCH_HARD: 0}, seen), gate()).passed


def test_a_familys_own_limits_judge_in_place_of_the_default_ones() -> None:
    seen, lost = parity(median=0.97), {Metric.MATCH_HARD: 0}
    wider = {**DEFAULT_PARITY, Precision.INT8: ParityLimits(centred_cosine_median=0.95)}
    assert judge(variant(Precision.INT8, lost, seen), parse_gate(None, parity=wider)).passed
    assert not judge(variant(Precision.INT8, lost, seen), parse_gate(None)).passed
    with pytest.raises(
        RecipeError, match="parity names no limits for fp16, int8, int8dyn, int4, int2, mixed"
    ):
        parse_gate(None, parity={Precision.FP32: ParityLimits()})


def test_without_task_data_parity_alone_is_judged_and_that_is_said() -> None:
    result = judge(variant(), gate())
    assert result.passed
    assert result.allowance_pp == {}
    assert result.notes == ("no task metric was measured: parity alone was judged",)
    assert not judge(variant(seen=parity(median=0.5)), gate()).passed


def test_a_metric_asked_for_by_name_must_have_been_measured() -> None:
    result = judge(variant(lost={Metric.MATCH_HARD: 0}), gate("retrieval_r1=1"))
    assert result.failures == ("onnx-int8: retrieval_r1 was asked for (1 pp) but not measured",)
    by_default = judge(variant(lost={Metric.MATCH_HARD: 0}), gate())
    assert by_default.passed
    assert by_default.notes == ("retrieval_r1 could not be measured and was not judged",)


def test_nothing_measured_is_no_pass() -> None:
    nothing = dataclasses.replace(variant(), parity={})
    assert "parity was not measured" in judge(nothing, gate()).failures[0]
    four_bits = judge(variant(Precision.INT4), gate())
    assert four_bits.failures == ("onnx-int4: int4 is judged by its answers alone; give task data",)
    assert judge(variant(Precision.INT4, {Metric.MATCH_HARD: 2}), gate()).passed


def test_allowances_are_read_from_text() -> None:
    settings = gate(" match_hard = 0.5 , ask=2,")
    assert settings.allowance_pp == {Metric.MATCH_HARD: 0.5, Metric.RETRIEVAL_R1: 1.0, Metric.ASK: 2.0}
    assert settings.required == {Metric.MATCH_HARD, Metric.ASK}
    assert parse_gate(None) == parse_gate("") == GateSettings()
    assert gate("ask=2").allowance_pp == {**ONE_PP, Metric.ASK: 2.0}
    assert parse_gate("", LabelTask.metrics).allowance_pp == {Metric.ASK: 1.0}
    assert parse_gate(None).parity == DEFAULT_PARITY


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy=1", "unknown metric 'accuracy'; there are match_hard"),
        ("match_hard=-0.1", "match_hard must be 0 or more"),
        ("match_hard=nan", "match_hard must be 0 or more"),
        ("match_hard=inf", "match_hard must be 0 or more"),
        ("match_hard=little", "must be a number, not 'little'"),
        ("match_hard", "not of the form"),
        ("match_hard=1,match_hard=2", "given twice"),
    ],
)
def test_impossible_allowances_are_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        gate(text)


def test_a_judged_report_keeps_its_fallbacks() -> None:
    report = synthetic_report(lost=5)
    name = "tflite-int8"
    before, after = {Metric.MATCH_HARD: 1.4}, {Metric.MATCH_HARD: 0.9}
    fallbacks = (Fallback(("layers.0.fc2",), "image_encoder", Precision.FP32, 120_000, before, after),)
    passed = GateResult(passed=True, fallbacks=fallbacks)
    earlier = dataclasses.replace(report.variants[name], gate=passed)
    judged = judge_report(dataclasses.replace(report, variants={name: earlier}), gate())
    result = judged.variants[name].gate
    assert result is not None
    assert not result.passed
    assert result.fallbacks == fallbacks
    again = report_from_json(report_to_json(judged))
    assert again == judged
    assert '"precision": "fp32"' in report_to_json(judged)
