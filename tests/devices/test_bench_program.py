"""The program that times bundles on phones tells of operators what LiteRT's own profiler tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.devices.bench_program import bench_graph
from tests.explain import tflite_faults
from tests.explain.test_explain_faults import Make, alarms, findings_of, name_of

OTHERWISE = {"repeated-quantization": "outside-delegate"}
"""TFLite 2.16's delegate leaves linears of dynamic int8 to TFLite's own kernels: their fault then."""
FAULTS = [(OTHERWISE.get(rule, rule), make) for rule, make in tflite_faults.FAULTS if rule != "memory-bound"]
"""What is bound by memory differs from machine to machine, as do integers on x86 in that version."""


@pytest.mark.parametrize(("rule", "make"), FAULTS, ids=name_of)
def test_a_fault_of_a_graph_is_named(rule: str, make: Make, program: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "planted.tflite")
    assert rule in findings_of(bench_graph(program, path), path)


@pytest.mark.parametrize("make", [tflite_faults.clean, tflite_faults.clean_int8])
def test_a_clean_graph_raises_no_alarm(make: Make, program: Path, tmp_path: Path) -> None:
    path = make(tmp_path / "clean.tflite")
    assert set(alarms(findings_of(bench_graph(program, path), path))) <= {"slow-integers"}


def test_it_tells_which_ops_the_delegate_runs(program: Path, tmp_path: Path) -> None:
    path = tflite_faults.partitions(tmp_path / "g.tflite")
    (graph,) = bench_graph(program, path).variants["tflite"].graphs
    outside = [op for op in graph.ops if op.unit == "builtin"]
    assert {op.type for op in outside} == {"CUMSUM"}
    assert [op.node for op in outside] == list(range(1, 17, 2))
    assert {op.partition for op in graph.ops if op.unit == "xnnpack"} == set(range(9))
    assert all(op.ms > 0 for op in outside)


def test_the_turns_of_a_loop_are_counted_once(program: Path, tmp_path: Path) -> None:
    path = tflite_faults.loop(tmp_path / "g.tflite", turns=7)
    (graph,) = bench_graph(program, path).variants["tflite"].graphs
    calls = {(op.type, op.name): op.calls for op in graph.ops}
    assert calls["WHILE", None] == 1
    assert calls["LESS", "subgraph 1"] == 8
    assert calls["CUMSUM", "subgraph 2"] == 7
    assert graph.ops[0].type == "WHILE"  # callers come before what they call
