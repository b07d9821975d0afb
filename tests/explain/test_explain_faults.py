"""Every rule names the fault of a graph that was built to have it, run by the real engines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvl.explain.explanation import Explanation, explain
from pocketvl.explain.finding import Finding, Severity
from pocketvl.explain.table import explanation_lines
from pocketvl_runtime.bench import bench_graph
from pocketvl_runtime.bench_result import BenchResult
from tests.explain import onnx_faults, tflite_faults

MACHINE_RULES = ("one-thread", "threads-limited", "too-many-threads", "threads-no-use")
"""What they say is of the machine and of how it was measured, not of a graph."""
NOT_ALARMS = ("dominant-op", "repeated-quantization", "decomposed-activation", "half-stored")
"""Rules that say where the time goes in graphs that may be right as they are."""
Make = Callable[[Path], Path]


def name_of(value: str | Make) -> str:
    """What a parameter is called: the rule, or what makes the graph."""
    return value if isinstance(value, str) else value.__name__


def explained(path: Path, threads: tuple[int, ...] = (1,)) -> Explanation:
    return explain(bench_graph(path, threads, runs=1), lambda variant, component: path)


def findings(path: Path) -> dict[str, Finding]:
    return findings_of(bench_graph(path, (1,), runs=1), path)


def findings_of(result: BenchResult, path: Path) -> dict[str, Finding]:
    """The gravest of each rule that speaks of a graph, by rule."""
    (variant,) = explain(result, lambda variant, component: path).variants
    found: dict[str, Finding] = {}
    for each in variant.findings:
        if each.rule not in MACHINE_RULES:
            found.setdefault(each.rule, each)  # the gravest of a rule comes first
    return found


def alarms(found: dict[str, Finding]) -> list[str]:
    return [each.rule for each in found.values() if each.severity is Severity.ALARM]


def check(rule: str, path: Path) -> None:
    found = findings(path)
    assert rule in found, f"{rule} is not among {list(found)}"
    finding = found[rule]
    if rule not in NOT_ALARMS:
        assert finding.severity is Severity.ALARM, finding
    assert finding.component == path.stem
    assert finding.cause
    assert finding.advice


@pytest.mark.parametrize(("rule", "make"), onnx_faults.FAULTS, ids=name_of)
def test_a_fault_of_an_onnx_graph_is_named(rule: str, make: Make, tmp_path: Path) -> None:
    check(rule, make(tmp_path / "planted.onnx"))


@pytest.mark.parametrize(("rule", "make"), tflite_faults.FAULTS, ids=name_of)
def test_a_fault_of_a_tflite_graph_is_named(rule: str, make: Make, tmp_path: Path) -> None:
    check(rule, make(tmp_path / "planted.tflite"))


@pytest.mark.parametrize("kind", [onnx_faults, tflite_faults])
@pytest.mark.parametrize("make", ["clean", "clean_int8"])
def test_a_clean_graph_raises_no_alarm(kind: object, make: str, tmp_path: Path) -> None:
    suffix = "onnx" if kind is onnx_faults else "tflite"
    path = getattr(kind, make)(tmp_path / f"clean.{suffix}")
    assert alarms(findings(path)) == []


def test_a_thousand_conversions_are_counted_and_come_first(tmp_path: Path) -> None:
    path = tflite_faults.conversions(tmp_path / "planted.tflite")
    (variant,) = explained(path).variants
    first = variant.findings[0]
    assert first.rule == "conversions"
    assert first.ops == 1000
    assert "1000 conversions of number formats around 500 Multiply" in first.cause
    assert "1000 conversions of number formats" in variant.advice


def test_linears_whose_weights_are_computed_are_told_apart(tmp_path: Path) -> None:
    finding = findings(tflite_faults.computed_weights(tmp_path / "planted.tflite"))["outside-delegate"]
    assert "4 FULLY_CONNECTED among them multiply by weights that the graph computes" in finding.cause
    assert "merging LoRA's" in finding.advice
    sums = findings(tflite_faults.outside_delegate(tmp_path / "sums.tflite"))["outside-delegate"]
    assert "among them" not in sums.cause


def test_the_op_outside_of_the_delegate_is_named_with_its_tensors(tmp_path: Path) -> None:
    path = tflite_faults.outside_delegate(tmp_path / "planted.tflite")
    lines = "\n".join(explanation_lines(explained(path)))
    assert "9 CUMSUM; the longest, CUMSUM, makes float32[256,512] of float32[256,512]" in lines
    assert "kernels  norms and reductions" in lines
    assert "delegate  linears and products" in lines
