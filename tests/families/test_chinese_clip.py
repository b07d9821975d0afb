"""Chinese-CLIP's own: pictures and strings end to end, padding, the length of texts, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from transformers import AutoTokenizer, ChineseCLIPModel
from transformers.models.chinese_clip.image_processing_pil_chinese_clip import ChineseCLIPImageProcessorPil

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint, read_contract
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.text import Tokenizer
from tests.families.edits import Edit, set_in
from tests.families.tiny_chinese import make_tiny_chinese
from tests.pillow import rows_first

TEXTS = ["一只猫", "a photo of a cat", "街上有两只猫、一只狗和一辆车", "猫", "Ça c'est  UNE photo?"]


@pytest.mark.parametrize("outlier", [1.0, 20.0])
def test_pictures_and_texts_are_embedded_as_by_transformers_own_processors(
    tmp_path: Path, outlier: float
) -> None:
    folder = make_tiny_chinese(tmp_path / "tiny", positions=64, limit=40, outlier=outlier)
    checkpoint = open_checkpoint(folder)
    numbers = np.random.default_rng(0)
    pictures = [Image.fromarray(numbers.integers(0, 256, (50, side, 3), np.uint8)) for side in (40, 61)]
    with rows_first():
        shown = ChineseCLIPImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    read = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    assert read["input_ids"].shape[1] < checkpoint.tokenizer.max_length
    model = ChineseCLIPModel.from_pretrained(folder).train(False)
    ids = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer).encode(TEXTS).ids
    pixels = np.stack([load_pixels(each, checkpoint.preprocess) for each in pictures])
    with torch.no_grad():
        images = checkpoint.component("image_encoder").module(torch.from_numpy(pixels))
        texts = checkpoint.component("text_encoder").module(torch.from_numpy(ids))
        wanted = F.normalize(model.get_image_features(**shown).pooler_output, dim=-1)
        torch.testing.assert_close(images, wanted, atol=2e-5, rtol=0)
        wanted = F.normalize(model.get_text_features(**read).pooler_output, dim=-1)
    torch.testing.assert_close(texts, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("positions", "limit", "length", "is_noted"),
    [
        (512, None, 52, True),
        (512, 512, 52, True),  # what BERT's tokenizers say of every model
        (512, 100, 100, False),
        (512, 20, 20, False),
        (40, None, 40, False),
    ],
)
def test_texts_are_as_long_as_in_training_unless_the_tokenizer_has_a_limit(
    tmp_path: Path, positions: int, limit: int | None, length: int, is_noted: bool
) -> None:
    contract = read_contract(make_tiny_chinese(tmp_path / "tiny", positions=positions, limit=limit))
    assert contract.tokenizer.max_length == length
    assert any("texts are cut at 52 tokens" in note for note in contract.notes) == is_noted


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (set_in("tokenizer_config.json", "pad_token", to="[SEP]"), "a pad token of its own"),
        (set_in("config.json", "vision_config", "num_channels", to=1), "pictures have 3"),
        (set_in("config.json", "vision_config", "image_size", to=[32, 32]), "one positive number is needed"),
        (set_in("config.json", "text_config", "vocab_size", to=100), "vocab_size is 100"),
        (set_in("config.json", "projection_dim", to=0), "one positive number is needed"),
        (set_in("preprocessor_config.json", "image_processor_type", to="ViTImageProcessor"), "'ViTImage"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, edit: Edit, complaint: str) -> None:
    folder = make_tiny_chinese(tmp_path / "tiny")
    edit(folder)
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
