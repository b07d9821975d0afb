"""A SigLIP, compressed, distilled, trained on grids and searched, as bundles that answer by sigmoids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pocketvl import api
from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.report_json import read_report
from pocketvl.families import open_checkpoint
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Activation, ContrastiveTask
from pocketvl_runtime.selftest import selftest
from tests.e2e.test_export import keys_of
from tests.families.test_conformance import LOWERED
from tests.families.tiny_siglip import make_tiny_siglip

EVERY = tuple(f"{engine.value}-{precision.value}" for engine, precision in LOWERED)
DOCS = Path(__file__).parents[2] / "docs"
GATE = {"match_hard": 100.0}
COMPRESSION = """
[[steps]]
kind = "prune"
units = ["neurons", "heads"]
ratio = 0.5
score = "taylor"
[steps.learn]
phases = [{ components = ["image_encoder"], steps = 2 }, { steps = 2, losses = { contrast = 1.0 } }]
batch_size = 8

[[steps]]
kind = "low-rank"
ratio = 0.75
components = ["text_encoder"]

[[steps]]
kind = "qat"
precision = "int8"
training = { phases = [{ steps = 2 }], batch_size = 8 }
"""
TRAINED = """
[qat]
precision = "int8"
training = { phases = [{ steps = 2 }], batch_size = 8 }
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("siglip")
    make_tiny_siglip(folder / "tiny")
    (folder / "data").mkdir()
    (folder / "judged").mkdir()
    write_tabletop(folder / "data", 21, 24, size=40)
    write_tabletop(folder / "judged", 22, 24, size=40)
    (folder / "compression.toml").write_text(COMPRESSION)
    (folder / "trained.toml").write_text(TRAINED)
    return folder


def answers(root: Path, bundle: Path, checkpoint: Path) -> None:
    """Every variant passes its golden self-test and embeds like torch; answers are sigmoids."""
    opened = Bundle.open(bundle)
    variants = tuple(opened.manifest.variants)
    assert selftest(opened, variants).failures == ()
    task = opened.manifest.tasks["match"]
    assert isinstance(task, ContrastiveTask)
    assert task.activation is Activation.SIGMOID
    assert task.bias == pytest.approx(-2.5)
    source, sample = open_checkpoint(checkpoint), Dataset.open(root / "data").samples[0]
    pixels = torch.from_numpy(load_pixels(sample.image, source.preprocess)[None])
    with torch.no_grad():
        expected = source.component("image_encoder").module(pixels)[0].numpy()
    texts = [*sample.captions, *sample.negatives]
    for variant in variants:
        model = load(opened, variant)
        least = 0.99 if variant.endswith(("fp32", "fp16", "int8", "int8dyn")) else 0.5
        assert model.embed_image(sample.image) @ expected > least, variant
        for each in model.match(sample.image, texts).results:
            logit = task.scale.first * each.similarity + task.bias
            assert each.probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-9)


def test_a_compressed_one_is_exported_in_every_variant(root: Path) -> None:
    small, recipe = root / "small", str(root / "compression.toml")
    api.compress(root / "tiny", small, recipe=recipe, data=root / "data", cache=root / "cache")
    assert open_checkpoint(small).space() != open_checkpoint(root / "tiny").space()
    out = root / "small-bundle"
    made = api.export(
        small,
        out,
        calibration=root / "data",
        data=root / "judged",
        variants=EVERY,
        gate=GATE,
        keep_failing=True,
        cache=root / "cache",
    )
    assert made.failures == ()
    assert set(read_report(out / "report.json").variants) == set(EVERY)
    answers(root, out, small)


def test_one_that_is_trained_on_its_grids_is_exported(root: Path) -> None:
    api.export(
        root / "tiny",
        root / "trained",
        calibration=root / "data",
        data=root / "judged",
        variants=("onnx-int8", "tflite-int8"),
        recipe=str(root / "trained.toml"),
        train=root / "data",
        gate=GATE,
        keep_failing=True,
        cache=root / "cache",
    )
    answers(root, root / "trained", root / "tiny")
    shown, own = (
        json.loads(path.read_text())
        for path in (DOCS / "manifests" / "siglip.json", root / "trained" / "manifest.json")
    )
    for manifest in (shown, own):
        manifest["provenance"] = {key: [] for key in manifest["provenance"]}
        manifest["files"] = [entry for _, entry in sorted(manifest["files"].items())]
        for task in manifest["tasks"].values():
            task.pop("labels", None)
    assert keys_of(shown) == keys_of(own)


def test_bits_are_searched(root: Path) -> None:
    api.search(
        root / "tiny",
        root / "searched",
        budget="size=200KB",
        data=root / "judged",
        calibration=root / "data",
        trials=3,
        sampler="tpe",
        gate=GATE,
        keep_failing=True,
        cache=root / "cache",
    )
    answers(root, root / "searched", root / "tiny")
