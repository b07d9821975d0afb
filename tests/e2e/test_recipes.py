"""Recipes that train, other precisions, and the bit search, through the commands that users type."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pocketvl.evaluate.report import Report
from pocketvl.evaluate.report_json import read_report
from pocketvl_runtime.manifest import Manifest, Precision
from tests.e2e.conftest import Exported, pocketvl

GATE = "match_hard=100,retrieval_r1=100"
QAT = """
[weights]
rounding = "gptq"

[qat]
precision = "int4"

[qat.training]
phases = [
    {{ components = ["image_encoder"], steps = {steps} }},
    {{ components = ["text_encoder"], steps = {steps} }},
    {{ steps = {steps} }},
]
batch_size = 8
save_every = 5
"""


def words(exported: Exported, command: str, out: Path, *more: object) -> list[object]:
    calibration = ["--calibration", exported.calibration, "--data", exported.data, "--gate", GATE]
    return [command, exported.checkpoint, "-o", out, *calibration, "--keep-failing", *more]


@pytest.mark.slow
def test_every_other_precision_is_exported_and_answers(exported: Exported, tmp_path: Path) -> None:
    variants = "onnx-fp16,onnx-int8dyn,tflite-int8dyn,onnx-int4,tflite-int4"
    done = pocketvl(*words(exported, "export", tmp_path / "b", "--variants", variants), cache=exported.cache)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "b" / "report.json")
    assert set(report.variants) == set(variants.split(","))
    for variant in report.variants.values():
        least = 0.5 if variant.precision is Precision.INT4 else 0.98
        assert all(parity.centred_cosine_median > least for parity in variant.parity.values()), variant.name
    sizes = {name: variant.size_bytes for name, variant in report.variants.items()}
    assert sizes["onnx-int4"] < sizes["onnx-int8dyn"] < sizes["onnx-fp16"]
    assert sizes["tflite-int4"] < sizes["tflite-int8dyn"]


@pytest.mark.slow
def test_a_recipe_that_trains_goes_on_after_a_kill(exported: Exported, tmp_path: Path) -> None:
    recipe, out = tmp_path / "qat.toml", tmp_path / "b"
    recipe.write_text(QAT.format(steps=40))
    more = ["--variants", "onnx-int4,tflite-int4", "--recipe", recipe]
    refused = pocketvl(*words(exported, "export", out, *more), cache=exported.cache)
    assert refused.returncode == 1
    assert "--train" in refused.stderr

    command = words(exported, "export", out, *more, "--train", exported.data)
    cache = exported.cache
    states = cache / "train-qat"
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("pocketvl")), *map(str, command)],
        env=os.environ | {"POCKETVL_CACHE": str(cache)},
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 200
    while not list(states.glob("*.work/states/*/step-*")) and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert list(states.glob("*.work/states/*/step-*"))  # what it has done so far is still there

    done = pocketvl(*command, cache=cache)
    assert done.returncode == 0, done.stderr
    assert not list(states.glob("*.work"))
    assert set(Manifest.read(out / "manifest.json").variants) == {"onnx-int4", "tflite-int4"}


def assert_sizes_are_told(report: Report, narrowest: str) -> None:
    """What choices take is known before their files are written, but for what an int8 layer has around it."""
    assert report.search is not None
    told = min(trial.size_bytes for trial in report.search.trials)
    written = report.variants[narrowest].size_bytes
    assert 0.99 * written < told < written + 1000 * len(report.search.bits)


@pytest.mark.slow
def test_a_search_keeps_to_its_budget_and_shows_what_it_tried(exported: Exported, tmp_path: Path) -> None:
    uniform = read_report(exported.bundle / "report.json").variants["tflite-int8"].size_bytes
    budget = f"size={0.93 * uniform / 1e6:.4f}MB"
    more = ["--budget", budget, "--trials", 6]
    done = pocketvl(*words(exported, "search", tmp_path / "b", *more), cache=exported.cache)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "b" / "report.json")
    assert report.search is not None
    assert len(report.search.trials) == 6
    assert set(report.search.bits.values()) == {4, 8}
    assert report.variants["tflite-mixed"].size_bytes <= 0.93 * uniform
    assert_sizes_are_told(report, "tflite-int4")
    assert "onnx-mixed" in Manifest.read(tmp_path / "b" / "manifest.json").variants

    more = ["--budget", "latency_ms=1000", "--engine", "onnx", "--trials", 2, "--sampler", "tpe"]
    done = pocketvl(*words(exported, "search", tmp_path / "d", *more), cache=exported.cache)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "d" / "report.json")
    assert report.search is not None
    assert all((trial.latency_ms or 0) > 0 for trial in report.search.trials)
    assert_sizes_are_told(report, "onnx-int4")

    more = ["--budget", "size=1KB"]
    done = pocketvl(*words(exported, "search", tmp_path / "c", *more), cache=exported.cache)
    assert done.returncode == 1
    assert "is less than" in done.stderr.splitlines()[-1]
