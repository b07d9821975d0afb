"""Latency and memory of a bundle's variants, measured by the runtime's own bench in fresh processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.evaluate.latency import measure_latency, measure_latency_and_memory
from pocketvl_runtime.errors import BackendError
from tests.runtime import bundles, graphs


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundles.write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


def test_a_variant_that_gives_nan_is_timed_all_the_same(tmp_path: Path) -> None:
    broken = bundles.write_bundle(tmp_path / "broken")
    graphs.onnx_image_graph(broken / "graphs" / "image_encoder.fp32.onnx", scale=float("inf"))
    bundles.reseal(broken)
    assert measure_latency(broken, ["onnx-fp32"], [1], runs=1).variants.keys() == {"onnx-fp32"}


def test_latency_is_measured_per_stage_and_thread_count(tiny: Path) -> None:
    result = measure_latency(tiny, ["onnx-fp32", "tflite-fp32"], [1, 2], runs=5)
    assert result.settings.runs == 5
    assert result.variants.keys() == {"onnx-fp32", "tflite-fp32"}
    for variant in result.variants.values():
        assert variant.peak_memory_bytes is None  # of a process that runs several
        assert [timing.threads for timing in variant.timings] == [1, 2]
        for timing in variant.timings:
            assert timing.stages.keys() == {
                "decode",
                "preprocess",
                "tokens",
                "image",
                "text",
                "post",
                "total",
            }
            assert timing.stages["total"].median >= timing.stages["image"].median > 0


def test_memory_is_of_one_process_a_variant(tiny: Path) -> None:
    told: list[tuple[int, int, str]] = []
    variants = ["onnx-fp32", "tflite-fp32"]
    result = measure_latency_and_memory(tiny, variants, [1, 2], 2, lambda *news: told.append(news))
    assert list(result.variants) == variants
    for variant in result.variants.values():
        assert variant.peak_memory_bytes is not None
        assert 10e6 < variant.peak_memory_bytes < 2e9
        assert [timing.threads for timing in variant.timings] == [1, 2]
    assert told == [(1, 2, "memory of onnx-fp32"), (2, 2, "memory of tflite-fp32")]


def test_a_bench_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"bench of onnx-fp32 failed: .*does not exist"):
        measure_latency(tmp_path / "none", ["onnx-fp32"], [1], runs=1)
