"""An export of a fresh model with pictures that have labels only, from folders as people have them."""

from __future__ import annotations

import codecs
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl.data.dataset import write_samples
from pocketvl.tabletop.folder import write_tabletop
from pocketvl_runtime import load
from pocketvl_runtime.manifest import ContrastiveTask, Manifest
from tests.e2e.conftest import pocketvl
from tests.families.tiny import make_tiny_clip
from tests.pillow import rows_first

VARIANTS = ("onnx-fp32", "onnx-int8", "tflite-fp32", "tflite-int8")
LABELS = ("hat", "cat", "bat")


def fresh_clip(folder: Path) -> Path:
    """Biases of 0 and LayerNorms that scale by 1, as a model begins; a newer processor beside an old one."""
    make_tiny_clip(folder, seed=3)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if name.endswith("bias"):
            value.zero_()
        elif "norm" in name or "layrnorm" in name:
            value.fill_(1)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    newer = {"image_processor": processor | {"image_mean": 0.5, "image_std": [0.25] * 3}}
    (folder / "processor_config.json").write_text(json.dumps(newer))
    return folder


def labelled_links(folder: Path) -> Path:
    """Pictures that are links out of the folder, with nothing but labels, listed on Windows."""
    store = folder.with_name("store")
    store.mkdir()
    write_tabletop(store, 21, 36, size=40)
    (folder / "images").mkdir(parents=True)
    rows = []
    for number, path in enumerate(sorted((store / "images").iterdir())):
        (folder / "images" / path.name).symlink_to(path)
        rows.append({"image": f"images/{path.name}", "label": LABELS[number % len(LABELS)]})
    write_samples(folder, rows)
    listing = folder / "samples.jsonl"
    listing.write_bytes(codecs.BOM_UTF8 + listing.read_bytes().replace(b"\n", b"\r\n"))
    return folder


@pytest.mark.slow
def test_a_fresh_model_is_exported_with_labelled_links(tmp_path: Path) -> None:
    checkpoint, data = fresh_clip(tmp_path / "fresh"), labelled_links(tmp_path / "data")
    pictures = [Image.open(path) for path in sorted((data / "images").iterdir())[:6]]
    model, processor = (
        CLIPModel.from_pretrained(checkpoint),
        CLIPImageProcessorPil.from_pretrained(checkpoint),
    )
    with torch.inference_mode(), rows_first():
        features = [
            model.get_image_features(**processor(images=each, return_tensors="pt")) for each in pictures
        ]
    rows = torch.stack([getattr(each, "pooler_output", each)[0] for each in features])
    expected = torch.nn.functional.normalize(rows, dim=1).numpy()
    for path in checkpoint.glob("*.json"):  # transformers itself does not read them so
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    bundle = tmp_path / "bundle"
    words: list[object] = [
        "export",
        checkpoint,
        "-o",
        bundle,
        "--calibration",
        data,
        "--variants",
        ",".join(VARIANTS),
    ]
    done = pocketvl(*words, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert "processor_config.json and preprocessor_config.json differ in image_mean, image_std" in done.stdout
    classify = Manifest.read(bundle / "manifest.json").tasks["classify"]
    assert isinstance(classify, ContrastiveTask)
    assert classify.labels == tuple(sorted(LABELS))
    for variant in VARIANTS:
        opened = load(bundle, variant)
        found = np.stack([opened.embed_image(each) for each in pictures])
        least = 0.99999 if variant.endswith("fp32") else 0.97
        assert (found * expected).sum(1).min() > least, variant
    device, picture = Path(sys.executable).with_name("pocketvl-run"), sorted((data / "images").iterdir())[0]
    command = [str(each) for each in (device, "classify", bundle, "--json", "--image", picture)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert {row["label"] for row in json.loads(answer.stdout)["results"]} == set(LABELS)


def test_photos_alone_are_refused_at_once(tmp_path: Path) -> None:
    checkpoint = make_tiny_clip(tmp_path / "tiny")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    write_samples(tmp_path, [{"image": "a.png"}] * 2)
    words = ["export", checkpoint, "-o", tmp_path / "bundle", "--calibration", tmp_path]
    done = pocketvl(*words, cache=tmp_path / "cache")
    assert done.returncode != 0
    assert "captions" in done.stderr
    assert "label" in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert not (tmp_path / "bundle").exists()
