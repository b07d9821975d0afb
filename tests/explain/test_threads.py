"""What is said of threads: too few, too many, no use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from pocketvl.explain.explanation import Explanation, explain
from pocketvl.explain.finding import Finding, Severity
from pocketvl_runtime.bench import bench_graph
from pocketvl_runtime.bench_result import BenchResult, Conditions, ConditionSample, Machine
from tests.explain import onnx_faults

RULES = ("one-thread", "threads-limited", "too-many-threads", "threads-no-use")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return onnx_faults.clean(tmp_path_factory.mktemp("threads") / "g.onnx")


@pytest.fixture(scope="module")
def measured(path: Path) -> BenchResult:
    return bench_graph(path, [1, 2], 1)


def on(
    result: BenchResult, processors: int, usable: int, threads: tuple[int, ...], load: float = 0.0
) -> BenchResult:
    """A result as if it were of another machine, with only some of the thread counts."""
    machine: Machine = replace(
        result.machine, processors=processors, usable_processors=usable, emulated=False
    )
    (variant,) = result.variants.values()
    graphs = tuple(graph for graph in variant.graphs if graph.threads in threads)
    sample = ConditionSample(0.0, None, None, load, None)
    return replace(
        result,
        machine=machine,
        variants={"onnx": replace(variant, graphs=graphs)},
        conditions=Conditions(1.0, (sample,), None, None, ()),
    )


def slowed(result: BenchResult, ms: dict[int, float]) -> BenchResult:
    """A result whose graphs take so long at their thread counts."""
    (variant,) = result.variants.values()
    graphs = tuple(replace(graph, plain_ms=ms[graph.threads]) for graph in variant.graphs)
    return replace(result, variants={"onnx": replace(variant, graphs=graphs)})


def found(result: BenchResult, path: Path) -> dict[str, Finding]:
    explanation: Explanation = explain(result, lambda variant, component: path)
    return {each.rule: each for each in explanation.variants[0].findings if each.rule in RULES}


def test_one_thread_where_more_processors_are_free_is_named(measured: BenchResult, path: Path) -> None:
    said = found(on(measured, 4, 4, (1,)), path)
    assert list(said) == ["one-thread"]
    assert said["one-thread"].severity is Severity.ALARM
    assert "4 processors could be" in said["one-thread"].cause
    assert "--threads 1,4" in said["one-thread"].advice
    assert said["one-thread"].gain_ms is not None


def test_one_thread_on_one_processor_is_no_fault(measured: BenchResult, path: Path) -> None:
    assert found(on(measured, 1, 1, (1,)), path) == {}


def test_a_limit_that_leaves_one_processor_is_named(measured: BenchResult, path: Path) -> None:
    said = found(on(measured, 8, 1, (1,)), path)
    assert list(said) == ["threads-limited"]
    assert said["threads-limited"].severity is Severity.ALARM
    assert "1 of the machine's 8 processors" in said["threads-limited"].cause


def test_more_threads_than_processors_are_named(measured: BenchResult, path: Path) -> None:
    result = slowed(on(measured, 1, 1, (1, 2)), {1: 2.0, 2: 9.0})
    said = found(result, path)["too-many-threads"]
    assert said.severity is Severity.ALARM
    assert (
        "2 threads share 1 processors and wait for each other; 9 ms instead of 2 ms with fewer" in said.cause
    )
    assert said.gain_ms == pytest.approx(7.0)


@pytest.mark.parametrize(("one_ms", "severity"), [(20.0, Severity.ALARM), (1.0, Severity.NOTE)])
def test_threads_that_gain_nothing_are_named(
    one_ms: float, severity: Severity, measured: BenchResult, path: Path
) -> None:
    result = slowed(on(measured, 2, 2, (1, 2)), {1: one_ms, 2: one_ms})
    assert found(result, path)["threads-no-use"].severity is severity


def test_nothing_is_said_of_their_use_where_other_programs_took_the_processors(
    measured: BenchResult, path: Path
) -> None:
    result = slowed(on(measured, 2, 2, (1, 2), load=1.5), {1: 20.0, 2: 20.0})
    assert found(result, path) == {}


def test_threads_that_help_are_no_fault(measured: BenchResult, path: Path) -> None:
    assert found(slowed(on(measured, 2, 2, (1, 2)), {1: 20.0, 2: 11.0}), path) == {}
