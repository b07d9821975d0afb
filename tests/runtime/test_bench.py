"""What `bench` measures, and how it takes turns."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.bench import _latency, bench
from pocketvl_runtime.bench_result import BenchResult, BundleIdentity, Inputs, Latency, Settings, Software
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.machine import this_machine
from pocketvl_runtime.manifest import Manifest
from pocketvl_runtime.model import Model
from pocketvl_runtime.version import __version__
from tests.runtime.bundles import edit_golden


def test_every_variant_thread_count_and_stage_is_measured(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32", "tflite-fp32"], [1, 2, 1], runs=4)
    assert set(result.variants) == {"onnx-fp32", "tflite-fp32"}
    assert result.settings == Settings(4, 1, True, 0, Inputs.GOLDEN)
    for measured in result.variants.values():
        assert [timing.threads for timing in measured.timings] == [1, 2]
        assert measured.peak_memory_bytes is None  # several ran in this process
        for timing in measured.timings:
            assert timing.load_ms > 0
            assert list(timing.stages) == ["decode", "preprocess", "tokens", "image", "text", "post", "total"]
            for latency in timing.stages.values():
                assert 0 < latency.p10 <= latency.median <= latency.p90 <= latency.max
                assert (latency.n, latency.samples) == (4, None)


def test_a_result_says_which_bundle_engine_and_machine_it_is_of(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], 1, text="a ball")
    digest = hashlib.sha256((whole_bundle / "manifest.json").read_bytes()).hexdigest()
    assert result.bundle == BundleIdentity(Manifest.read(whole_bundle / "manifest.json").model.name, digest)
    assert result.variants["onnx-fp32"].engine == Software("onnxruntime", version("onnxruntime"))
    assert result.tool.version == __version__
    assert result.settings.inputs is Inputs.GIVEN
    assert result.machine == this_machine()
    assert (result.variants["onnx-fp32"].peak_memory_bytes or 0) > 20_000_000


def test_samples_are_kept_on_demand(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], 3, warmup_runs=0, keep_samples=True)
    latency = result.variants["onnx-fp32"].timings[0].stages["total"]
    assert latency.samples is not None
    assert latency.n == len(latency.samples) == 3
    assert latency.max == max(latency.samples)
    assert latency.median == sorted(latency.samples)[1]


def test_runs_are_interleaved_and_the_first_is_not_counted(
    whole_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[tuple[str, int]] = []
    real = Model.match

    def match(self: Model, *args: Any) -> Any:
        turns.append((self.variant, self.threads))
        return real(self, *args)

    monkeypatch.setattr(Model, "match", match)
    told: list[tuple[int, int]] = []
    variants, threads = ["onnx-int8", "tflite-fp32"], [1, 2]
    opened = Bundle.open(whole_bundle)
    result = bench(opened, variants, threads, 3, progress=lambda d, t, _: told.append((d, t)))
    rounds = [turns[k : k + 4] for k in range(0, len(turns), 4)]
    assert [sorted(done) for done in rounds] == [sorted((v, n) for v in variants for n in threads)] * 4
    assert len({tuple(done) for done in rounds}) > 1  # in no fixed order
    timings = [timing for measured in result.variants.values() for timing in measured.timings]
    assert {latency.n for timing in timings for latency in timing.stages.values()} == {3}
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_figures_are_percentiles() -> None:
    values = [float(v) for v in range(1, 102)]
    assert _latency(values, keep_samples=False) == Latency(11.0, 51.0, 91.0, 101.0, 101, 100.0)


def test_a_single_variant_tells_its_memory_and_its_first_answer(whole_bundle: Path) -> None:
    measured = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], 20).variants["onnx-fp32"]
    assert 20e6 < (measured.steady_memory_bytes or 0) <= (measured.peak_memory_bytes or 0)
    (timing,) = measured.timings
    assert (timing.first_ms or 0) > 0
    assert timing.cold_start_ms is None  # this process was not started for it
    together = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1, 2], 1, fresh=True).variants["onnx-fp32"]
    assert together.steady_memory_bytes is None
    assert [each.cold_start_ms for each in together.timings] == [None, None]


def test_a_fresh_process_tells_its_cold_start(whole_bundle: Path) -> None:
    command = [sys.executable, "-m", "pocketvl_runtime", "bench", str(whole_bundle), "--json"]
    command += ["--variant", "onnx-fp32", "--threads", "1", "--runs", "1", "--warmup", "0"]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    took_ms = 1000 * (time.perf_counter() - begin)
    (timing,) = BenchResult.from_json(done.stdout, "stdout").variants["onnx-fp32"].timings
    assert timing.first_ms == timing.stages["total"].max  # the first answer was the counted one
    assert timing.load_ms + timing.first_ms < (timing.cold_start_ms or 0) < took_ms + 20


def test_threads_that_compute_are_counted(whole_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Model.match
    spent = []

    def busy(self: Model, *args: Any) -> Any:
        cpu, begin = time.process_time(), time.perf_counter()
        while time.process_time() < cpu + 0.05:
            pass
        answer = real(self, *args)
        spent.append((time.process_time() - cpu, time.perf_counter() - begin))
        return answer

    def idle(self: Model, *args: Any) -> Any:
        time.sleep(0.2)
        return real(self, *args)

    def busy_threads(match: Callable[..., Any]) -> float:
        monkeypatch.setattr(Model, "match", match)
        result = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], 5)
        return result.variants["onnx-fp32"].timings[0].busy_threads or 0

    assert busy_threads(idle) < 0.2
    found = busy_threads(busy)
    cpu_s, wall_s = (sum(each) for each in zip(*spent[1:], strict=True))  # the first is not counted
    assert found == pytest.approx(cpu_s / wall_s, rel=0.1)


def test_the_machine_is_sampled_during_the_counted_runs(whole_bundle: Path) -> None:
    result = bench(Bundle.open(whole_bundle), ["onnx-fp32"], [1], 2)
    assert result.conditions is not None
    assert len(result.conditions.samples) >= 2  # before the first and after the last
    assert result.conditions.samples[0].at_s == 0
    assert result.conditions.samples[-1].other_load is not None
    assert BenchResult.from_json(result.to_json(), "it") == result


def test_each_variant_then_answers_without_a_pause(whole_bundle: Path) -> None:
    told: list[tuple[int, int, str]] = []
    opened = Bundle.open(whole_bundle)
    names = ["onnx-fp32", "tflite-fp32"]
    result = bench(opened, names, [2, 1], 1, progress=lambda *news: told.append(news), duration_s=1.5)
    assert [(each.variant, each.threads, each.duration_s) for each in result.sustained] == [
        ("onnx-fp32", 2, 1.5),
        ("tflite-fp32", 2, 1.5),
    ]
    assert all(sum(window.n for window in each.windows) > 10 for each in result.sustained)
    assert {(t.threads, t.stages["total"].n) for v in result.variants.values() for t in v.timings} == {
        (1, 1),
        (2, 1),
    }
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert told[-1] == (6, 6, "sustained load of tflite-fp32")
    assert result.conditions is not None
    assert result.conditions.samples[-1].at_s > 3


def test_a_picture_and_a_text_of_ones_own_are_used(whole_bundle: Path) -> None:
    opened = Bundle.open(whole_bundle)
    with pytest.raises(InputError, match="no such picture"):
        bench(opened, ["onnx-fp32"], [1], 1, image=whole_bundle / "none.jpg")
    with pytest.raises(InputError, match="text 0 is empty"):
        bench(opened, ["onnx-fp32"], [1], 1, text="")


@pytest.mark.parametrize(
    ("variants", "threads", "runs"), [([], [1], 1), (["onnx-fp32"], [], 1), (["onnx-fp32"], [1], 0)]
)
def test_nothing_to_do_is_an_error(
    whole_bundle: Path, variants: list[str], threads: list[int], runs: int
) -> None:
    with pytest.raises(InputError, match="at least one variant, one thread count and one run"):
        bench(Bundle.open(whole_bundle), variants, threads, runs)


@pytest.mark.parametrize("what", ["picture", "text"])
def test_an_empty_golden_pack_asks_for_inputs(bundle: Path, what: str) -> None:
    def edit(golden: Any) -> None:
        golden["inputs"].pop("image" if what == "picture" else "text")
        golden.update(outputs={}, answers={})

    edit_golden(bundle, edit)
    with pytest.raises(InputError, match=f"the golden pack has no {what}: give one"):
        bench(Bundle.open(bundle), ["onnx-fp32"], [1], 1)
