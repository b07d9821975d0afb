"""What `bench` measures, and how it takes turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime import bench as module
from pocketvl_runtime.bench import STAGES, BenchReport, bench, peak_rss_bytes
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.model import Model
from pocketvl_runtime.schema import decode, dump_json, parse_json
from tests.runtime.bundles import edit_golden


def test_every_variant_thread_count_and_stage_is_measured(whole_bundle: Path) -> None:
    report = bench(Bundle.open(whole_bundle), ["onnx-fp32", "tflite-fp32"], [1, 2], runs=4)
    assert set(report.variants) == {"onnx-fp32", "tflite-fp32"}
    assert report.machine.threads == os.cpu_count()
    for measured in report.variants.values():
        assert set(measured.load_ms) == {"1", "2"}
        assert set(measured.latency_ms) == set(STAGES)
        for per_threads in measured.latency_ms.values():
            assert set(per_threads) == {"1", "2"}
            assert all(0 < latency.p10 <= latency.median for latency in per_threads.values())
    assert report.peak_rss_bytes > 20_000_000
    assert decode(BenchReport, parse_json(dump_json(report), "it"), "it") == report


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
    counts: list[int] = []

    def latency(values: list[float]) -> module.Latency:
        counts.append(len(values))
        return module.Latency(0.0, 0.0)

    monkeypatch.setattr(module, "_latency", latency)
    variants, threads = ["onnx-int8", "tflite-fp32"], [1, 2]
    bench(Bundle.open(whole_bundle), variants, threads, 3, progress=lambda d, t, _: told.append((d, t)))
    rounds = [turns[k : k + 4] for k in range(0, len(turns), 4)]
    assert [sorted(done) for done in rounds] == [sorted((v, n) for v in variants for n in threads)] * 4
    assert len({tuple(done) for done in rounds}) > 1  # in no fixed order
    assert set(counts) == {3}
    assert told[-1] == (3, 3)


def test_figures_are_the_tenth_percentile_and_the_median() -> None:
    values = [float(v) for v in range(1, 102)]
    assert module._latency(values) == module.Latency(11.0, 51.0)


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


def test_peak_memory_remembers_what_was_given_back() -> None:
    code = (
        "import numpy as np\n"
        "from pocketvl_runtime.bench import peak_rss_bytes\n"
        "before = peak_rss_bytes()\n"
        "block = np.ones(200_000_000, np.uint8)\n"
        "del block\n"
        "print(peak_rss_bytes() - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 190_000_000 < int(done.stdout) < 220_000_000


def test_peak_memory_is_known_without_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    known = peak_rss_bytes()
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: (_ for _ in ()).throw(FileNotFoundError()))
    assert abs(peak_rss_bytes() - known) < 0.2 * known
