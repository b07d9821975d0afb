"""`pocketvl profile`, and the same from Python."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.devices.routes import ROUTES
from pocketvl.errors import RecipeError
from pocketvl.pipelines.bundle import profiles_in
from pocketvl.pipelines.export import written_bundle
from pocketvl.stage import publish
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.selftest import selftest
from tests.runtime import bundles


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-c", "from pocketvl.cli import main; main()", "profile", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return bundles.write_bundle(tmp_path / "tiny")


def test_a_profile_is_printed_and_kept_in_the_bundle(tiny: Path) -> None:
    done = run(tiny, "--variant", "onnx-fp32", "--variant", "tflite-fp32", "--threads", "1,2", "--runs", 3)
    assert done.returncode == 0, done.stderr
    path = tiny / "profiles" / "local.json"
    assert done.stdout.splitlines()[-1] == f"profile: {path}"
    assert sum(line.startswith(("onnx-fp32 ", "tflite-fp32 ")) for line in done.stdout.splitlines()) == 4
    assert "3/3 timing" not in done.stdout
    assert "4/4 timing" in done.stderr
    result = BenchResult.from_json(path.read_bytes(), path.name)
    assert list(result.variants) == ["onnx-fp32", "tflite-fp32"]
    assert selftest(Bundle.open(tiny), ["onnx-fp32"], lambda *_: None, 1).passed


def test_a_profile_goes_where_it_is_told_to(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine.json"
    done = run(tiny, "--variant", "onnx-fp32", "--threads", 1, "--runs", 1, "-o", out, "--json", "--samples")
    assert done.returncode == 0, done.stderr
    assert done.stdout == out.read_text()
    stages = json.loads(done.stdout)["variants"]["onnx-fp32"]["timings"][0]["stages"]
    assert len(stages["total"]["samples"]) == 1
    assert not (tiny / "profiles").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--threads", "1,x"], 2, "--threads is '1,x', and must be numbers from 1 to 256"),
        (["--threads", "0"], 2, "--threads is '0'"),
        (["--all-variants", "--variant", "onnx-fp32"], 2, "exclude each other"),
        (["--variant", "onnx-fp64"], 1, "error: .*onnx-fp64"),
        (["--variant", "onnx-fp32", "-o", "manifest.json/x"], 1, "manifest.json/x cannot be written"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_runs(
    arguments: list[str], status: int, message: str, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny)
    done = run(tiny, *arguments)
    assert done.returncode == status
    assert done.stdout == ""
    assert re.search(message, done.stderr)
    assert len(done.stderr.splitlines()) == 1 or status == 2
    assert not (tiny / "profiles").exists()


def test_a_profile_that_fails_leaves_nothing_behind(tiny: Path) -> None:
    (tiny / "graphs" / "image_encoder.fp32.onnx").write_bytes(b"no graph")
    with pytest.raises(Exception, match="the bench of onnx-fp32 failed: "):
        api.profile(tiny, variants=["onnx-fp32"], threads=[1], runs=1)
    assert not (tiny / "profiles").exists()


def test_from_python_it_is_the_same(tiny: Path) -> None:
    told: list[str] = []
    result = api.profile(
        tiny,
        variants=["onnx-fp32"],
        threads=[1, 1],
        runs=2,
        progress=lambda done, total, what: told.append(what),
    )
    assert [timing.threads for timing in result.variants["onnx-fp32"].timings] == [1]
    assert told[-1] == "timing"
    assert BenchResult.from_json((tiny / "profiles" / "local.json").read_text(), "it") == result
    with pytest.raises(BundleError):
        api.profile(tiny, variants=["none"])


def test_the_function_has_the_commands_defaults() -> None:
    options = cli.commands["profile"].make_context("profile", ["x"]).params
    parameters = inspect.signature(api.profile).parameters
    to_device = {option.name for route in ROUTES for option in (route.place, route.program)}
    assert set(options) - {"as_json", "compare"} - to_device == set(parameters) - {"device", "progress"}
    for name in ("variants", "all_variants", "runs", "duration", "timeout", "samples", "out"):
        assert options[name] == parameters[name].default


def test_a_new_bundle_keeps_the_profiles_of_the_old_one(tiny: Path, tmp_path: Path) -> None:
    kept = tiny / "profiles" / "pi5.json"
    kept.parent.mkdir()
    kept.write_text("{}")
    newer = bundles.write_bundle(tmp_path / "newer")
    (newer / "report.json").write_text("{}")
    assert profiles_in(tiny) == ("profiles/pi5.json",)
    publish(newer, tiny, written_bundle, profiles_in(tiny))
    assert kept.read_text() == "{}"
    assert (tiny / "report.json").exists()
    publish(newer, tiny, written_bundle, profiles_in(tiny))
    assert kept.exists()


def test_a_profile_is_explained_on_demand(tiny: Path) -> None:
    options = ["--variant", "onnx-fp32", "--variant", "tflite-fp32", "--threads", "1", "--runs", 2]
    done = run(tiny, *options, "--explain")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("onnx-fp32 image_encoder: ") and line.endswith(", 1 thread") for line in lines)
    assert any(line.startswith("tflite-fp32 text_encoder: ") for line in lines)
    assert any(
        line.startswith("  onnx-fp32 takes ") and " in its graphs with 1 thread" in line for line in lines
    )
    assert "INFO:" not in done.stderr.replace("INFO: Created TensorFlow Lite", "")
    result = BenchResult.from_json((tiny / "profiles" / "local.json").read_bytes(), "local.json")
    assert all(variant.graphs for variant in result.variants.values())
    assert api.explain(tiny, result).to_json().keys() == {"variants", "comparisons", "doubts"}


def test_an_explanation_is_told_as_json_too(tiny: Path) -> None:
    done = run(tiny, "--variant", "onnx-fp32", "--threads", "1", "--runs", 1, "--explain", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["profile"]["variants"]["onnx-fp32"]["graphs"]
    explained = told["explanation"]["variants"]["onnx-fp32"]
    assert explained["threads"] == 1
    assert set(explained["graphs"]) == {"image_encoder", "text_encoder"}
    shares = [row["share"] for row in explained["graphs"]["image_encoder"]["classes"].values()]
    assert sum(shares) == pytest.approx(1)


def test_a_graph_file_is_explained_without_a_bundle(tiny: Path) -> None:
    done = run(tiny / "graphs" / "image_encoder.fp32.onnx", "--explain", "--threads", "1")
    assert done.returncode == 0, done.stderr
    assert "onnx image_encoder.fp32: " in done.stdout
    refused = run(tiny / "graphs" / "image_encoder.fp32.onnx", "--explain", "--variant", "onnx-fp32")
    assert refused.returncode == 2
    assert "a graph file is explained here alone, and has no variants" in refused.stderr
    broken = tiny / "broken.onnx"
    broken.write_bytes(b"no graph")
    done = run(broken, "--explain")
    assert done.returncode == 1
    assert "ONNX Runtime cannot load the graph" in done.stderr


def test_what_was_not_measured_by_operator_is_not_explained(tiny: Path) -> None:
    result = api.profile(tiny, variants=["onnx-fp32"], threads=[1], runs=1)
    with pytest.raises(RecipeError, match="no operators were timed"):
        api.explain(tiny, result)
    elsewhere = replace(result, bundle=replace(result.bundle, manifest_file_sha256="0" * 64))
    with pytest.raises(RecipeError, match="the profile is of another bundle"):
        api.explain(tiny, elsewhere)
    emulated = replace(result, machine=replace(result.machine, emulated=True))
    with pytest.raises(RecipeError, match="the processor was emulated"):
        api.explain(tiny, emulated)
