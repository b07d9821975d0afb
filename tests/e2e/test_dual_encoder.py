"""A ConvNeXt with half of its filters and a BERT, through the commands that users type."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from pocketvl.compress.methods.prune_filters import filter_groups, prune_filters_
from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.report_json import REPORT_FILE, read_report
from pocketvl.families import open_checkpoint
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime import load
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Manifest, Status
from tests.e2e.conftest import pocketvl
from tests.families.tiny_dual import IMAGE_SIZE, make_tiny_dual

VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
PROJECTION = "visual_projection"


@dataclass(frozen=True)
class Exported:
    """A pruned checkpoint, and its bundle."""

    checkpoint: Path
    calibration: Path
    bundle: Path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    root = tmp_path_factory.mktemp("dual")
    made = Exported(root / "small", root / "calibration", root / "bundle")
    made.calibration.mkdir()
    write_tabletop(made.calibration, 21, 32, size=40)
    make_tiny_dual(root / "dual", seed=3)
    _halve(root / "dual", made.checkpoint)
    words = ("--calibration", made.calibration, "--variants", ",".join(VARIANTS))
    done = pocketvl("export", made.checkpoint, "-o", made.bundle, *words, cache=root / "cache")
    assert done.returncode == 0, done.stderr
    return made


def _halve(folder: Path, out: Path) -> None:
    """Takes half of every group of filters away."""
    checkpoint = open_checkpoint(folder)
    component = checkpoint.component("image_encoder").module
    example = torch.zeros(1, IMAGE_SIZE, IMAGE_SIZE, 3, dtype=torch.uint8)
    groups = filter_groups(component, example, [PROJECTION])
    prune_filters_(
        component, example, {each.root: each.select(0.5, len(each)) for each in groups}, [PROJECTION]
    )
    checkpoint.save(out)


def test_every_variant_passes_its_gate_and_answers_like_torch(exported: Exported) -> None:
    manifest = Manifest.read(exported.bundle / "manifest.json")
    assert manifest.model.family == "vision-text-dual-encoder"
    assert set(manifest.variants) == set(VARIANTS)
    assert {variant.status for variant in manifest.variants.values()} == {Status.ACCEPTED}
    source = open_checkpoint(exported.checkpoint)
    sample = Dataset.open(exported.calibration).samples[0]
    pixels = preprocess(open_image(sample.image), source.preprocess)
    with torch.inference_mode():
        expected = source.component("image_encoder").module(torch.from_numpy(pixels[None]))[0].numpy()
    for variant in VARIANTS:
        found = load(exported.bundle, variant).embed_image(sample.image)
        if variant.endswith("fp32"):
            assert np.abs(found - expected).max() < 1e-5, variant
        assert found @ expected > 0.99, variant


def test_both_engines_int8_are_the_same_network(exported: Exported) -> None:
    one, other = (load(exported.bundle, f"{engine}-int8") for engine in ("onnx", "tflite"))
    for sample in Dataset.open(exported.calibration).samples[:8]:
        assert one.embed_image(sample.image) @ other.embed_image(sample.image) > 0.9995
    texts = ["a red circle", "a", "two blue stars"]
    assert ((one.embed_text(texts) * other.embed_text(texts)).sum(-1) > 0.9995).all()
    report = read_report(exported.bundle / REPORT_FILE)
    assert all(variant.gate and not variant.gate.fallbacks for variant in report.variants.values())


def test_the_graphs_have_the_smaller_shapes(exported: Exported) -> None:
    """Of stages of 16 and 24 channels 8 and 12 are left, depthwise convolutions and all."""
    graphs = exported.bundle / "graphs"
    for precision in ("fp32", "int8"):
        graph = onnx.load(graphs / f"image_encoder.{precision}.onnx").graph
        kernels = {tuple(each.dims) for each in graph.initializer if len(each.dims) == 4}
        assert kernels == {(8, 3, 4, 4), (8, 1, 7, 7), (12, 8, 2, 2), (12, 1, 7, 7)}
        interpreter = Interpreter(model_path=str(graphs / f"image_encoder.{precision}.tflite"))
        kernels = {tuple(t["shape"]) for t in interpreter.get_tensor_details() if len(t["shape"]) == 4}
        assert {(8, 4, 4, 3), (1, 7, 7, 8), (12, 2, 2, 8), (1, 7, 7, 12)} <= kernels
