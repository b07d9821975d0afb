"""A variant of integers beside the float one of its engine, class by class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pocketvl.explain.classes import OpClass
from pocketvl.explain.explanation import Explanation, explain
from pocketvl.explain.finding import Severity
from pocketvl.explain.table import explanation_lines
from pocketvl_runtime.bench import bench_graph
from pocketvl_runtime.bench_result import BenchResult, Conditions
from tests.explain import onnx_faults

QUIET = Conditions(1.0, (), None, None, ())


def together(folder: Path, float_graph: Path, int8_graph: Path) -> Explanation:
    """What is said of two graphs as if they were two variants of one bundle."""
    paths = {"onnx-fp32": float_graph, "onnx-int8": int8_graph}
    results = {name: bench_graph(path, [1], 1) for name, path in paths.items()}
    first: BenchResult = results["onnx-fp32"]
    variants = {name: next(iter(each.variants.values())) for name, each in results.items()}
    return explain(replace(first, variants=variants, conditions=QUIET), lambda name, _: paths[name])


def test_integers_that_are_no_quicker_are_named_with_what_grew(tmp_path: Path) -> None:
    explanation = together(
        tmp_path,
        onnx_faults.small_floats(tmp_path / "f.onnx"),
        onnx_faults.conversions(tmp_path / "q.onnx"),
    )
    (comparison,) = explanation.comparisons
    assert (comparison.variant, comparison.reference) == ("onnx-int8", "onnx-fp32")
    rows = {row.kind: row for row in comparison.rows}
    assert rows[OpClass.CONVERT].float_ms == 0
    assert rows[OpClass.CONVERT].other_ms > 0
    said = next(each for each in explanation.variants[1].findings if each.rule == "no-quicker-than-float")
    assert said.severity is Severity.ALARM
    assert "what grew: conversions" in said.cause
    assert any(line.startswith("onnx-int8 beside onnx-fp32") for line in explanation_lines(explanation))


def test_integers_that_are_quicker_are_only_compared(tmp_path: Path) -> None:
    explanation = together(
        tmp_path,
        onnx_faults.large_floats(tmp_path / "f.onnx"),
        onnx_faults.clean_int8(tmp_path / "q.onnx"),
    )
    assert len(explanation.comparisons) == 1
    rules = {each.rule for variant in explanation.variants for each in variant.findings}
    assert "no-quicker-than-float" not in rules
