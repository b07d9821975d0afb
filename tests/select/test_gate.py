from __future__ import annotations

import dataclasses

import pytest

from pocketvl.errors import RecipeError
from pocketvl.evaluate.parity import LossHistogram, ParityReport
from pocketvl.evaluate.report import MetricReport, VariantReport
from pocketvl.evaluate.tasks import Metric
from pocketvl.select.gate import GateResult, GateSettings, judge, judge_report, parse_gate
from pocketvl_runtime.manifest import Engine, Precision, Role, Status
from tests.evaluate.worlds import synthetic_report

HIT = MetricReport(0.8, 2000, (0.78, 0.82), 0.0, (-0.2, 0.2), 0, 0)


def parity(minimum: float = 0.999999, median: float = 0.9999999, max_abs: float = 1e-6) -> ParityReport:
    return ParityReport(100, minimum, median, minimum, median, max_abs, 0, LossHistogram(-10, 0.5, (100,)))


def variant(
    precision: Precision = Precision.INT8,
    drops: dict[Metric, float] | None = None,
    seen: ParityReport | None = None,
) -> VariantReport:
    metrics = {metric: dataclasses.replace(HIT, drop_pp=drop) for metric, drop in (drops or {}).items()}
    close = seen or parity()
    roles = {Role.IMAGE_ENCODER: close, Role.TEXT_ENCODER: parity()}
    return VariantReport(Engine.ONNX, precision, Status.ACCEPTED, 10, metrics=metrics, parity=roles)


def test_a_drop_up_to_the_allowance_passes_and_beyond_it_fails() -> None:
    settings = parse_gate("match_hard=0.5")
    assert judge(variant(drops={Metric.MATCH_HARD: 0.5}), settings).passed
    result = judge(variant(drops={Metric.MATCH_HARD: 0.55}), settings)
    assert not result.passed
    assert result.failures == ("onnx-int8: match_hard dropped 0.550 pp, 0.5 pp allowed",)
    assert result.allowance_pp == {Metric.MATCH_HARD: 0.5}


def test_every_metric_is_judged_by_its_own_allowance() -> None:
    drops = {Metric.MATCH_HARD: 1.1, Metric.RETRIEVAL_R1: 1.2, Metric.CLASSIFY: 50.0}
    result = judge(variant(drops=drops), GateSettings())
    assert [failure.split()[1] for failure in result.failures] == ["match_hard", "retrieval_r1"]
    assert result.notes == ("classify has no allowance and was not judged",)
    assert "classify" in judge(variant(drops=drops), parse_gate("classify=2")).failures[2]


@pytest.mark.parametrize(("n", "median", "passed"), [(99, 0.96, True), (99, 0.94, False), (100, 0.96, False)])
def test_few_embeddings_are_held_to_less_and_the_result_says_so(n: int, median: float, passed: bool) -> None:
    seen = dataclasses.replace(parity(median=median), n=n)
    result = judge(variant(Precision.INT8, {Metric.MATCH_HARD: 0.0}, seen), GateSettings())
    assert result.passed == passed
    assert any("image_encoder: only 99 embeddings" in note for note in result.notes) == (n == 99)
    assert not judge(variant(Precision.FP16, {Metric.MATCH_HARD: 0.0}, seen), GateSettings()).passed


def test_a_gain_always_passes() -> None:
    assert judge(variant(drops={Metric.MATCH_HARD: -3.0}), parse_gate("match_hard=0")).passed


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
    good = {Metric.MATCH_HARD: 0.0, Metric.RETRIEVAL_R1: 0.0}
    result = judge(variant(precision, good, seen), GateSettings())
    assert len(result.failures) == 1
    assert result.failures[0].startswith(f"onnx-{precision.value}: image_encoder")
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
    assert judge(variant(precision, {Metric.MATCH_HARD: 0.0}, seen), GateSettings()).passed


def test_without_task_data_parity_alone_is_judged_and_that_is_said() -> None:
    result = judge(variant(), GateSettings())
    assert result.passed
    assert result.allowance_pp == {}
    assert result.notes == ("no task metric was measured: parity alone was judged",)
    assert not judge(variant(seen=parity(median=0.5)), GateSettings()).passed


def test_a_metric_asked_for_by_name_must_have_been_measured() -> None:
    result = judge(variant(drops={Metric.MATCH_HARD: 0.0}), parse_gate("retrieval_r1=1"))
    assert result.failures == ("onnx-int8: retrieval_r1 was asked for (1 pp) but not measured",)
    by_default = judge(variant(drops={Metric.MATCH_HARD: 0.0}), GateSettings())
    assert by_default.passed
    assert by_default.notes == ("retrieval_r1 could not be measured and was not judged",)


def test_nothing_measured_is_no_pass() -> None:
    nothing = dataclasses.replace(variant(), parity={})
    assert "parity was not measured" in judge(nothing, GateSettings()).failures[0]
    four_bits = judge(variant(Precision.INT4), GateSettings())
    assert four_bits.failures == ("onnx-int4: int4 is judged by its answers alone; give task data",)
    assert judge(variant(Precision.INT4, {Metric.MATCH_HARD: 0.1}), GateSettings()).passed


def test_allowances_are_read_from_text() -> None:
    settings = parse_gate(" match_hard = 0.5 , ask=2,")
    assert settings.allowance_pp == {Metric.MATCH_HARD: 0.5, Metric.RETRIEVAL_R1: 1.0, Metric.ASK: 2.0}
    assert settings.required == {Metric.MATCH_HARD, Metric.ASK}
    assert parse_gate(None) == parse_gate("") == GateSettings()


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
        parse_gate(text)


def test_a_judged_report_keeps_what_was_reverted() -> None:
    report = synthetic_report(lost=5)
    name = "tflite-int8"
    gate = GateResult(passed=True, reverted=("layer.3",))
    earlier = dataclasses.replace(report.variants[name], gate=gate)
    judged = judge_report(dataclasses.replace(report, variants={name: earlier}), GateSettings())
    result = judged.variants[name].gate
    assert result is not None
    assert not result.passed
    assert result.reverted == ("layer.3",)
