"""Graphs that pocketvl exports itself: clean, so that nothing raises an alarm."""

from __future__ import annotations

import pytest

from pocketvl.explain.finding import Severity
from tests.explain.test_explain_faults import findings
from tests.lower.lowered import lowered


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["fp32.onnx", "int8.onnx", "fp32.tflite", "int8.tflite"])
def test_an_exported_encoder_raises_no_alarm(suffix: str) -> None:
    found = findings(lowered().path("pixels", suffix))
    assert {rule: each.cause for rule, each in found.items() if each.severity is Severity.ALARM} == {}
