"""Operators are timed one by one: the same answers, times that add up, and a reason where there are none."""

from __future__ import annotations

import gzip
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest

from bench.peak_graphs import FOLDER, written
from pocketvl_runtime.backends import litert_ops, open_backend
from pocketvl_runtime.backends.litert_ops import LiteRtProfiler
from pocketvl_runtime.backends.onnx_ops import OnnxProfiler
from pocketvl_runtime.backends.versions import release
from pocketvl_runtime.bench import bench, bench_graph
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.manifest import Engine, Precision
from pocketvl_runtime.op_profile import described_graph, made_up_inputs, without_profiler
from pocketvl_runtime.op_result import GraphOps, OpTime
from pocketvl_runtime.peaks import linear_graph, measure_peak, packed_graph
from tests.explain import onnx_faults, tflite_faults
from tests.runtime.operators import check_encoders

litert_tells = pytest.mark.skipif(
    release(version("ai-edge-litert")) < litert_ops._LEAST, reason="this LiteRT does not tell"
)


@litert_tells
def test_the_operators_of_every_graph_are_told_on_demand(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32", "tflite-fp32"], [1, 2], runs=1, ops=True)
    for name, unit in (("onnx-fp32", "cpu"), ("tflite-fp32", "builtin")):
        graphs = result.variants[name].graphs
        check_encoders(graphs)
        for graph in graphs:
            assert unit in {op.unit for op in graph.ops}
    assert [peak.threads for peak in result.peaks] == [1, 2]
    assert set(result.peaks[0].gmacs_per_s) == {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8"}
    assert BenchResult.from_json(result.to_json(), "it") == result


def test_nothing_is_told_of_operators_unless_asked(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], runs=1)
    assert (result.variants["onnx-fp32"].graphs, result.peaks, result.cache_bytes) == ((), (), None)


@litert_tells
def test_litert_under_its_profiler_gives_the_same_outputs(tmp_path: Path) -> None:
    graph, content = described_graph(tflite_faults.float_among_integers(tmp_path / "g.tflite"))
    inputs = made_up_inputs(graph)
    expected = open_backend(graph, content, 1).run(inputs)
    with LiteRtProfiler(content, 1) as profiler:
        runs = profiler.run(inputs, 3)
        for name, value in expected.items():
            np.testing.assert_array_equal(profiler.output(name, value), value)
    assert len(runs) == 3
    assert len({tuple(event.type for event in events) for _, events in runs}) == 1


@litert_tells
def test_litert_tells_which_ops_its_delegate_runs(tmp_path: Path) -> None:
    path = tflite_faults.partitions(tmp_path / "g.tflite")
    (graph,) = bench_graph(path, [1], 1).variants["tflite"].graphs
    outside = [op for op in graph.ops if op.unit == "builtin"]
    assert {op.type for op in outside} == {"CUMSUM"}
    assert [op.node for op in outside] == list(range(1, 17, 2))
    assert {op.partition for op in graph.ops if op.unit == "xnnpack"} == set(range(9))


@litert_tells
def test_litert_takes_loops_apart(tmp_path: Path) -> None:
    graph, content = described_graph(tflite_faults.loop(tmp_path / "g.tflite", turns=20))
    with LiteRtProfiler(content, 1) as profiler:
        runs = profiler.run(made_up_inputs(graph), 3)
    assert len(runs) == 3
    whole_us, ops = runs[-1]
    assert [op.type for op in ops].count("CUMSUM") == 20
    (loop,) = (op for op in ops if op.type == "WHILE")
    assert loop.elapsed_us + sum(op.elapsed_us for op in ops if op is not loop) <= whole_us
    (told,) = bench_graph(tmp_path / "g.tflite", [1], 1).variants["tflite"].graphs
    assert {op.type: op.calls for op in told.ops if op.name == "subgraph 2"}["CUMSUM"] == 20


def test_onnx_runtime_tells_shapes_and_takes_loops_apart(tmp_path: Path) -> None:
    graph, content = described_graph(onnx_faults.loop(tmp_path / "g.onnx"))
    with OnnxProfiler(graph, content, 1) as profiler:
        profiler.run(made_up_inputs(graph), 2, 1)
        whole_us, runs = profiler.end()
    assert len(whole_us) == len(runs) == 2
    turns = [node for node in runs[0] if node.type == "MatMul"]
    assert len(turns) == 200
    assert turns[0].inputs[0] == "float32[1,32]"
    (loop,) = (node for node in runs[0] if node.type == "Loop")
    assert loop.own_us + sum(node.own_us for node in runs[0] if node is not loop) <= whole_us[0]


@litert_tells
@pytest.mark.parametrize("kind", [onnx_faults, tflite_faults])
def test_all_operators_together_take_about_as_long_as_a_plain_run(kind: object, tmp_path: Path) -> None:
    suffix = "onnx" if kind is onnx_faults else "tflite"
    result = bench_graph(kind.clean(tmp_path / f"g.{suffix}"), [1], 3)  # type: ignore[attr-defined]
    (graph,) = result.variants[suffix].graphs
    assert 0.2 < sum(op.ms for op in graph.ops) / graph.plain_ms < 5  # a shared machine stops either


def test_what_the_profiler_adds_is_taken_off_all_calls_alike() -> None:
    ops = (OpTime("A", "cpu", 1.0), OpTime("B", "cpu", 0.3, calls=2), OpTime("C", "cpu", 0.05))
    left = without_profiler(ops, plain_ms=1.0, chained_ms=0.1)
    assert [op.ms for op in left] == pytest.approx([0.9, 0.1, 0.0], abs=1e-3)
    assert [op.calls for op in left] == [1, 2, 1]


def test_what_is_beyond_the_most_that_a_profiler_adds_is_taken_off_in_proportion() -> None:
    left = without_profiler((OpTime("A", "cpu", 2.0), OpTime("B", "cpu", 4.0)), 3.0, 1e-9)
    assert [op.ms for op in left] == pytest.approx([1.0, 2.0])


def test_nothing_is_taken_off_where_a_plain_run_takes_longer() -> None:
    (op,) = without_profiler((OpTime("A", "cpu", 2.0),), 3.0, 0.1)
    assert op.ms == pytest.approx(2.0, abs=1e-3)


def test_an_engine_that_does_not_tell_says_so_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert_ops, "_LEAST", (99,))
    result = bench_graph(tflite_faults.clean(tmp_path / "g.tflite"), [1], 1)
    (graph,) = result.variants["tflite"].graphs
    assert graph.ops == ()
    assert graph.profiled_ms is None
    assert graph.reason is not None
    assert "does not tell the times of single ops: pip install 'ai-edge-litert>=2.3'" in graph.reason
    assert graph.plain_ms > 0


def test_ops_and_a_reason_why_there_are_none_exclude_each_other() -> None:
    op = OpTime("A", "cpu", 1.0)
    with pytest.raises(BundleError, match="either ops or a reason"):
        GraphOps("g", 1, 1, 1.0, 1.0, 1.0, (op,), "none")
    with pytest.raises(BundleError, match="either ops or a reason"):
        GraphOps("g", 1, 1, 1.0, 1.0, None, (), None)


def test_what_is_no_graph_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"must end in \.onnx or \.tflite"):
        bench_graph(tmp_path / "g.pt", [1], 1)
    with pytest.raises(InputError, match="cannot be read"):
        bench_graph(tmp_path / "missing.onnx", [1], 1)
    (tmp_path / "broken.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match="ONNX Runtime cannot load the graph"):
        bench_graph(tmp_path / "broken.onnx", [1], 1)
    (tmp_path / "broken.tflite").write_bytes(b"no graph")
    with pytest.raises(BackendError, match="LiteRT cannot load the graph"):
        bench_graph(tmp_path / "broken.tflite", [1], 1)


@pytest.mark.parametrize("engine", list(Engine))
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.INT8])
def test_the_linear_of_a_peak_multiplies(engine: Engine, precision: Precision) -> None:
    graph = linear_graph(engine, precision)
    backend = open_backend(graph, packed_graph(graph), 1)
    (given,) = graph.inputs
    (value,) = backend.run({given.name: np.ones(given.shape, given.dtype)}).values()
    assert value.shape == (256, 512)


def test_a_peak_is_of_every_engine_that_is_asked_for() -> None:
    peak = measure_peak([Engine.ONNX], 1)
    assert set(peak.gmacs_per_s) == {"onnx-fp32", "onnx-int8"}
    assert all(value > 0.01 for value in peak.gmacs_per_s.values())
    assert peak.memory_gb_per_s > 0.01
    assert peak.cached_gb_per_s > 0.01


def test_the_graphs_that_come_with_the_runtime_are_those_that_bench_writes() -> None:
    files = {
        path.name.removesuffix(".gz"): gzip.decompress(path.read_bytes()) for path in FOLDER.glob("*.gz")
    }
    assert files == written()
