"""An image encoder by itself from plain photos to a bundle that finds near-duplicates, and back to torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from pocketvl import api
from pocketvl.families import open_checkpoint
from pocketvl.network.ports import PortKind
from pocketvl.pipelines.export import ExportResult
from pocketvl.stage import PlanError
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.manifest import EmbedTask
from pocketvl_runtime.selftest import selftest
from tests.families.tiny_towers import make_tiny_tower

VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-int8")


def write_photos(folder: Path, count: int, labelled: bool) -> Path:
    """Coarse random pictures, each twice: as it is, and blurred; the label says which two belong together."""
    (folder / "images").mkdir(parents=True)
    random, lines = np.random.default_rng(3), []
    for number in range(count // 2):
        coarse = Image.fromarray(random.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        picture = coarse.resize((48, 48), Image.Resampling.BICUBIC)
        for name, image in (("whole", picture), ("blurred", picture.filter(ImageFilter.BoxBlur(1)))):
            file = f"images/{number}-{name}.png"
            image.save(folder / file)
            label = {"label": f"scene {number}"} if labelled else {}
            lines.append(json.dumps({"image": file, **label}))
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_tower(tmp_path_factory.mktemp("tower") / "tiny", "CLIPVisionModelWithProjection")


@pytest.fixture(scope="module")
def exported(tower: Path, tmp_path_factory: pytest.TempPathFactory) -> ExportResult:
    """Calibrated with photos that say nothing of themselves, judged on pairs of near-duplicates."""
    root = tmp_path_factory.mktemp("export")
    return api.export(
        tower,
        root / "out",
        calibration=write_photos(root / "photos", 40, labelled=False),
        data=write_photos(root / "pairs", 40, labelled=True),
        variants=VARIANTS,
        cache=root / "cache",
    )


def test_it_is_judged_by_nearest_neighbours_and_ships(exported: ExportResult) -> None:
    assert exported.failures == ()
    assert exported.bundle is not None
    assert set(exported.report.reference) == {Metric.KNN}
    assert exported.report.reference[Metric.KNN].n == 40
    assert exported.report.reference[Metric.KNN].value == 1.0  # a blurred copy is nearer than any other
    for name in VARIANTS:
        measured = exported.report.variants[name]
        assert measured.metrics[Metric.KNN].drop_pp == 0.0
        assert set(measured.parity) == {"image_encoder.embedding"}
        assert set(measured.latency_ms) == {"decode", "preprocess", "image", "total"}
    assert "knn" in exported.page.read_text()


def test_the_bundle_holds_one_encoder_and_no_tokenizer(exported: ExportResult, tower: Path) -> None:
    assert exported.bundle is not None
    bundle = Bundle.open(exported.bundle)
    assert bundle.manifest.tasks == {"embed": EmbedTask("image_encoder.embedding")}
    assert set(bundle.manifest.processors) == {"image"}
    assert "tokenizer.json" not in bundle.manifest.files
    assert bundle.manifest.spaces == {open_checkpoint(tower).space()}
    report = selftest(bundle, VARIANTS)
    assert (report.failures, report.images, report.texts, report.answers) == ((), 6, 0, 0)


def test_near_duplicates_are_found_on_the_device(exported: ExportResult) -> None:
    assert exported.bundle is not None
    model = load(exported.bundle, "tflite-int8")
    folder = exported.bundle.parent / "pairs" / "images"
    whole, blurred = (
        np.stack([model.embed_image(folder / f"{number}-{name}.png") for number in range(20)])
        for name in ("whole", "blurred")
    )
    assert (whole @ blurred.T).argmax(axis=1).tolist() == list(range(20))


def test_it_is_verified_against_its_checkpoint(exported: ExportResult, tower: Path) -> None:
    assert exported.bundle is not None
    report = api.verify(exported.bundle, tower, exported.bundle.parent / "pairs")
    assert report.failures == ()
    assert set(report.reference) == {Metric.KNN}


def test_it_is_pruned_and_distilled_from_plain_photos(tower: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(
        '[[steps]]\nkind = "prune"\nratio = 0.25\nscore = "gate"\n'
        "[steps.learn]\nphases = [{ steps = 4 }]\nbatch_size = 8\n"
    )
    photos = write_photos(tmp_path / "photos", 40, labelled=False)
    api.compress(tower, tmp_path / "smaller", recipe=str(recipe), data=photos, cache=tmp_path / "cache")
    before, after = open_checkpoint(tower), open_checkpoint(tmp_path / "smaller")
    sizes = [sum(each.numel() for each in opened.model.parameters()) for opened in (before, after)]
    assert sizes[1] < sizes[0]
    (port,) = after.contract.components["image_encoder"].outputs
    assert port.kind is PortKind.EMBEDDING


def test_a_text_encoder_by_itself_is_not_calibrated_with_photos(tmp_path: Path) -> None:
    text = make_tiny_tower(tmp_path / "text", "CLIPTextModelWithProjection")
    photos = write_photos(tmp_path / "photos", 4, labelled=False)
    with pytest.raises(PlanError, match="the text tower is calibrated with captions or labels") as caught:
        api.export(text, tmp_path / "out", calibration=photos, cache=tmp_path / "cache")
    assert "\n" not in str(caught.value)
