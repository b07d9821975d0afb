"""Photographs and captions become the pixels and ids that transformers makes of them, at published sizes."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from pocketvl.data.dataset import Dataset
from pocketvl.families import read_contract
from pocketvl.families.folders.image_processor import read_preprocess
from pocketvl_runtime.image import load_pixels, open_image
from pocketvl_runtime.text import Tokenizer
from tests.families.drawn import MEAN, STD, write_json
from tests.families.tiny_blip import make_tiny_blip
from tests.families.tiny_chinese import make_tiny_chinese
from tests.families.tiny_metaclip import make_tiny_metaclip
from tests.pillow import rows_first

PHOTOS = Path(__file__).parents[3] / "shared" / "data" / "photos"
pytestmark = pytest.mark.skipif(not PHOTOS.is_dir(), reason="no folder of photographs beside the checkout")
PUBLISHED: dict[str, tuple[str, int, dict[str, Any]]] = {
    "CLIP of 336 pixels": (
        "CLIPImageProcessor",
        336,
        {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
    ),
    "Chinese-CLIP": (
        "ChineseCLIPImageProcessor",
        224,
        {"size": {"height": 224, "width": 224}, "do_center_crop": False},
    ),
    "BLIP": ("BlipImageProcessor", 384, {"size": {"height": 384, "width": 384}, "do_pad": True}),
}
MODULES = {
    "CLIPImageProcessor": "clip",
    "ChineseCLIPImageProcessor": "chinese_clip",
    "BlipImageProcessor": "blip",
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_pixels_of_150_photographs_are_transformers_own(name: str, tmp_path: Path) -> None:
    kind, side, config = PUBLISHED[name]
    stored = {"image_processor_type": kind, "resample": 3, "image_mean": MEAN, "image_std": STD, **config}
    write_json(tmp_path / "preprocessor_config.json", stored)
    spec, _ = read_preprocess(tmp_path, side, kind)
    module = import_module(f"transformers.models.{MODULES[kind]}.image_processing_pil_{MODULES[kind]}")
    theirs = getattr(module, f"{kind}Pil").from_pretrained(tmp_path, do_rescale=False, do_normalize=False)
    images = [sample.image for sample in Dataset.open(PHOTOS).samples]
    assert len(images) == 150
    for path in images:
        picture = open_image(path.read_bytes())
        with rows_first():
            wanted = theirs(images=picture, return_tensors="np")["pixel_values"][0]
        assert np.array_equal(load_pixels(picture, spec), wanted.transpose(1, 2, 0)), path.name


@pytest.mark.parametrize("make", [make_tiny_chinese, make_tiny_blip, make_tiny_metaclip])
def test_ids_of_their_captions_are_transformers_own(make: Callable[[Path], Path], tmp_path: Path) -> None:
    folder = make(tmp_path / "tiny")
    contract = read_contract(folder)
    captions = [caption for sample in Dataset.open(PHOTOS).samples for caption in sample.captions]
    assert len(captions) == 150
    found = Tokenizer(contract.tokenizer_json, contract.tokenizer).encode(captions).ids
    wanted = AutoTokenizer.from_pretrained(folder)(
        captions, padding="max_length", truncation=True, max_length=contract.tokenizer.max_length
    )
    assert found.tolist() == wanted["input_ids"]
