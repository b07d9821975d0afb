"""From a checkpoint folder to answers, through the commands that users type."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.report_json import read_report
from pocketvl.families import open_checkpoint
from pocketvl.pipelines.variants import Fallbacks, VariantStages
from pocketvl.recipes.export_recipe import DEFAULT, read_export_recipe
from pocketvl.stage import plan, run
from pocketvl_runtime import load
from pocketvl_runtime.manifest import Engine, Manifest, Precision, Status
from tests.e2e.conftest import Exported, make_outlier_clip, pocketvl

EXPORT = ["export", "{checkpoint}", "-o", "out", "--calibration", "{calibration}"]
VARIANTS = {"onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-fp16", "tflite-int8"}


def run_device(*words: object) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("pocketvl-run")), *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def manifest_of(bundle: Path) -> Manifest:
    return Manifest.read(bundle / "manifest.json")


def test_export_ends_well_and_says_where_things_are(exported: Exported) -> None:
    assert exported.first.returncode == 0, exported.first.stderr
    assert f"bundle: {exported.bundle}" in exported.first.stdout
    assert (exported.bundle / "report.html").stat().st_size > 10_000
    assert set(manifest_of(exported.bundle).variants) == VARIANTS


def test_a_second_export_finds_everything_done(exported: Exported) -> None:
    before = {p: p.stat().st_mtime_ns for p in exported.bundle.rglob("*") if p.is_file()}
    again = exported.again("--keep-failing")
    assert again.returncode == 0, again.stderr
    assert "done in" not in again.stderr  # no stage ran
    assert before == {p: p.stat().st_mtime_ns for p in exported.bundle.rglob("*") if p.is_file()}


def keys_of(value: Any, path: str = "") -> set[str]:
    """Every key path in parsed JSON; items of a list share one."""
    if isinstance(value, dict):
        return {f"{path}.{key}" for key in value}.union(
            *(keys_of(v, f"{path}.{k}") for k, v in value.items())
        )
    found: set[str] = set()
    return found.union(*(keys_of(item, f"{path}[]") for item in value)) if isinstance(value, list) else found


def test_the_manifest_in_docs_has_the_keys_of_an_export(exported: Exported) -> None:
    docs = Path(__file__).parents[2] / "docs" / "manifests" / "tabletop-clip.json"
    shown, own = (json.loads(path.read_text()) for path in (docs, exported.bundle / "manifest.json"))
    for manifest in (shown, own):
        manifest["provenance"] = {key: [] for key in manifest["provenance"]}
        manifest["files"].pop("golden/golden.json")  # the others are named after pictures and precisions
        manifest["files"] = [entry for _, entry in sorted(manifest["files"].items())]
    assert keys_of(shown) == keys_of(own)


def test_the_manifest_has_neither_paths_nor_times(exported: Exported) -> None:
    text = (exported.bundle / "manifest.json").read_text()
    assert str(exported.checkpoint.parent) not in text
    for graph in (exported.bundle / "graphs").iterdir():
        content = graph.read_bytes()
        assert str(exported.checkpoint.parent).encode() not in content
        assert b"site-packages" not in content
        assert b".py" not in content


@pytest.mark.parametrize("variant", sorted(VARIANTS))
def test_every_variant_answers_like_torch(exported: Exported, variant: str) -> None:
    import torch

    source = open_checkpoint(exported.checkpoint)
    model = load(exported.bundle, variant)
    sample = Dataset.open(exported.data).samples[0]
    from pocketvl_runtime.image import open_image, preprocess

    pixels = preprocess(open_image(sample.image), source.preprocess)
    with torch.inference_mode():
        expected = source.component("image_encoder").module(torch.from_numpy(pixels[None]))[0].numpy()
    got = model.embed_image(sample.image)
    assert got @ expected > 0.98
    if manifest_of(exported.bundle).variants[variant].precision is Precision.FP32:
        assert np.abs(got - expected).max() < 1e-4
    assert abs(float(np.linalg.norm(got)) - 1) < 1e-4


def test_the_report_has_every_figure(exported: Exported) -> None:
    report = read_report(exported.bundle / "report.json")
    assert set(report.variants) == VARIANTS
    for variant in report.variants.values():
        assert {metric.value for metric in variant.metrics} >= {"match_hard", "retrieval_r1"}
        assert variant.latency_ms["image"]["2"].median > 0
        assert variant.peak_rss_bytes is not None
        assert variant.peak_rss_bytes > 10_000_000
        assert all(ops for ops in variant.ops.values())
    assert report.machine.isa


def test_equal_integers_by_another_name_are_a_file_of_their_own(exported: Exported) -> None:
    stages = VariantStages(exported.checkpoint, exported.calibration, read_export_recipe(DEFAULT), True)
    precisions = (Precision.INT8, Precision.MIXED)
    role, engine = "text_encoder", Engine.ONNX
    graphs = [stages.graph(role, engine, precision, Fallbacks()) for precision in precisions]
    results = run(plan(graphs), exported.cache)
    first, second = (results[graph].folder / graph.file for graph in graphs)
    assert first != second
    assert first.read_bytes() == second.read_bytes()


def test_the_cache_holds_each_graph_once_and_the_bundle_has_its_own(exported: Exported) -> None:
    graphs: dict[tuple[str, str], set[int]] = defaultdict(set)
    names = Counter[tuple[str, str]]()
    for path in exported.cache.rglob("*"):
        if path.suffix in (".onnx", ".tflite"):
            content = path.name, hashlib.sha256(path.read_bytes()).hexdigest()
            graphs[content].add(path.stat().st_ino)
            names[content] += 1
    shipped = list((exported.bundle / "graphs").iterdir())
    assert {path.name for path in shipped} <= {name for name, _ in graphs}
    assert all(len(files) == 1 for files in graphs.values())
    assert max(names.values()) >= 4  # its own, a bundle to try it in, the candidate, the judged one
    inodes = {inode for files in graphs.values() for inode in files}
    assert not inodes & {path.stat().st_ino for path in shipped}


def test_what_is_doubtful_about_calibration_is_said(exported: Exported) -> None:
    said = "image_encoder: calibration saw 16 samples only; give it 32 or more"
    assert said in read_report(exported.bundle / "report.json").notes
    assert f"note: {said}" in exported.first.stdout


def test_match_prints_the_promised_json(exported: Exported) -> None:
    picture = Dataset.open(exported.data).samples[0].image
    done = run_device(
        "match", exported.bundle, "--image", picture, "--text", "a red circle", "--text", "b", "--json"
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"variant", "results", "timing_ms"}
    assert [set(row) for row in answer["results"]] == [{"text", "similarity", "probability"}] * 2
    assert set(answer["timing_ms"]) == {"decode", "preprocess", "tokens", "image", "text", "post", "total"}
    assert abs(sum(row["probability"] for row in answer["results"]) - 1) < 1e-6


def test_selftest_holds(exported: Exported) -> None:
    done = run_device("selftest", exported.bundle, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["images"] == 6
    assert answer["texts"] == 12
    assert set(answer["variants"]) == VARIANTS


def test_a_gate_that_cannot_be_met_fails_by_name(exported: Exported, tmp_path: Path) -> None:
    data = exported.calibration  # 16 samples: retrieval among 100 cannot be measured, and is asked for
    command = [
        "export",
        exported.checkpoint,
        "-o",
        tmp_path / "bundle",
        "--calibration",
        data,
        "--data",
        data,
    ]
    done = pocketvl(*command, "--variants", "onnx-fp32", "--gate", "retrieval_r1=1", cache=exported.cache)
    assert done.returncode == 1
    assert "onnx-fp32: retrieval_r1 was asked for" in done.stderr
    assert not (tmp_path / "bundle").exists()


@pytest.mark.slow
def test_sabotaged_layers_are_caught_moved_and_reported(exported: Exported, tmp_path: Path) -> None:
    source, bundle = make_outlier_clip(tmp_path / "outlier-clip"), tmp_path / "bundle"
    words = ["export", source, "-o", bundle, "--calibration", exported.calibration, "--data", exported.data]
    words += ["--variants", "onnx-int8,tflite-int8", "--gate", "match_hard=100,retrieval_r1=100"]
    done = pocketvl(*words, "--recipe", "min-max", cache=exported.cache)
    assert done.returncode == 0, done.stderr
    assert set(manifest_of(bundle).variants) == {"onnx-int8", "tflite-int8"}
    report = read_report(bundle / "report.json")
    for variant in report.variants.values():
        assert variant.gate is not None
        assert variant.gate.passed
        moved = {layer: step.precision for step in variant.gate.fallbacks for layer in step.layers}
        first = "vision_model.encoder.layers.0.mlp"
        assert moved[f"{first}.fc1"] is Precision.INT8DYN  # its output needs no grid then
        assert moved[f"{first}.fc2"] is Precision.FP32  # what goes in is large in any grid
        assert len(moved) < 5
        assert sum(step.bytes_added for step in variant.gate.fallbacks) > 0
        assert variant.parity["image_encoder.embedding"].centred_cosine_median > 0.99
    assert "vision_model.encoder.layers.0.mlp.fc" in report.sensitivity[0].layer
    assert "layers moved to a higher precision" in (bundle / "report.html").read_text()


@pytest.mark.slow
def test_a_variant_that_lost_too_much_is_left_out_and_named(exported: Exported, tmp_path: Path) -> None:
    """Where no layer may go to float; then the same bundle with it kept: `verify` finds the same fault."""
    source, bundle = make_outlier_clip(tmp_path / "outlier-clip"), tmp_path / "bundle"
    recipe = tmp_path / "stubborn.toml"
    recipe.write_text("equalize = false\nmost_growth = 1.0\n")
    words = ["export", source, "-o", bundle, "--calibration", exported.calibration, "--data", exported.data]
    words += ["--variants", "onnx-fp32,onnx-int8dyn", "--gate", "match_hard=100,retrieval_r1=100"]
    words += ["--recipe", recipe]
    lost = r"onnx-int8dyn: image_encoder.embedding centred_cosine_median 0\.\d+, at least 0\.99 required"

    done = pocketvl(*words, cache=exported.cache)
    assert done.returncode == 1
    assert re.search(lost, done.stderr)
    assert set(manifest_of(bundle).variants) == {"onnx-fp32"}
    assert not (bundle / "graphs" / "image_encoder.int8dyn.onnx").exists()
    assert read_report(bundle / "report.json").variants["onnx-int8dyn"].status is None
    assert "left out of the bundle" in (bundle / "report.html").read_text()
    assert run_device("selftest", bundle).returncode == 0

    kept = pocketvl(*words, "--keep-failing", cache=exported.cache)
    assert kept.returncode == 0, kept.stderr
    assert manifest_of(bundle).variants["onnx-int8dyn"].status is Status.EXPERIMENTAL

    words = ["verify", bundle, "--source", source, "--data", exported.data]
    words += ["--gate", "match_hard=100,retrieval_r1=100", "--json"]
    checked = pocketvl(*words, cache=exported.cache)
    assert checked.returncode == 1
    assert re.search(lost, checked.stderr)
    report = json.loads(checked.stdout)
    assert report == json.loads((bundle / "report.json").read_text())
    assert report["variants"]["onnx-fp32"]["gate"]["passed"]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["export", "nowhere", "-o", "out"], "nowhere does not exist; give"),
        (["export", "{checkpoint}", "-o", "{data}", "--calibration", "{calibration}"], "would lose"),
        (["export", "{checkpoint}", "-o", "out", "--calibration", "nowhere"], "not a dataset folder"),
        (
            [
                "export",
                "{checkpoint}",
                "-o",
                "out",
                "--calibration",
                "{calibration}",
                "--variants",
                "onnx-int3",
            ],
            "onnx-int3",
        ),
        (
            ["export", "{checkpoint}", "-o", "out", "--calibration", "{calibration}", "--gate", "nonsense=1"],
            "nonsense",
        ),
        (["data", "tabletop", "--seed", "1", "--count", "1", "-o", "{checkpoint}"], "would lose"),
        (["train", "nothing", "-o", "out"], "no training recipe"),
    ],
)
def test_bad_input_is_one_clear_line(
    exported: Exported, words: list[str], complaint: str, tmp_path: Path
) -> None:
    places = {k: str(v) for k, v in vars(exported).items()}
    filled = [str(tmp_path / "out") if w == "out" else w.format(**places) for w in words]
    done = pocketvl(*filled, cache=exported.cache)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert complaint in done.stderr
    assert not (tmp_path / "out").exists()
