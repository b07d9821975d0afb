"""A VisionTextDualEncoder folder opens to two encoders that say what transformers says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import VisionTextDualEncoderModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.layers.blocks import attentions, feed_forwards
from pocketvl.tabletop.tokenizer import EOS_ID, PAD_ID
from tests.families.tiny_dual import EMBEDDING_DIM, IMAGE_SIZE, TEXT_LENGTH, VOCABULARY, make_tiny_dual


def unit(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


def random_ids(count: int = 16) -> torch.Tensor:
    """Texts of random ids and lengths, ended by eos and filled up; one is full, one is of a single token."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, VOCABULARY, (count, TEXT_LENGTH), dtype=torch.int32, generator=generator)
    lengths = torch.randint(1, TEXT_LENGTH, (count,), generator=generator)
    lengths[:2] = torch.tensor([TEXT_LENGTH - 1, 0])
    places = torch.arange(TEXT_LENGTH)
    ids[places == lengths[:, None]] = EOS_ID
    ids[places > lengths[:, None]] = PAD_ID
    return ids


def random_pixels(count: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (count, IMAGE_SIZE, IMAGE_SIZE, 3)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_dual(tmp_path_factory.mktemp("dual") / "tiny")


def test_image_embedding_equals_transformers(folder: Path) -> None:
    source, checkpoint = open_checkpoint(folder), open_checkpoint(folder)
    picture = Image.fromarray(random_pixels(1)[0].numpy())
    values = CLIPImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        model = VisionTextDualEncoderModel.from_pretrained(folder)
        expected = unit(model.get_image_features(values).pooler_output)
        for encoder in (
            source.component("image_encoder").module,
            checkpoint.component("image_encoder").module,
        ):
            found = encoder(torch.from_numpy(np.array(picture)[None]))
            assert found.dtype == torch.float32
            assert found.shape == (1, EMBEDDING_DIM)
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_text_embedding_equals_transformers(folder: Path) -> None:
    source, checkpoint = open_checkpoint(folder), open_checkpoint(folder)
    ids = random_ids()
    with torch.no_grad():
        model = VisionTextDualEncoderModel.from_pretrained(folder)
        mask = (ids != PAD_ID).long()
        expected = unit(model.get_text_features(ids.long(), attention_mask=mask).pooler_output)
        for encoder in (source.component("text_encoder").module, checkpoint.component("text_encoder").module):
            torch.testing.assert_close(encoder(ids), expected, atol=1e-5, rtol=0)


def test_a_text_says_the_same_however_much_it_is_filled_up(folder: Path) -> None:
    component = open_checkpoint(folder).component("text_encoder").module
    ids = random_ids()
    short = ids[(ids != PAD_ID).sum(1) <= 8]
    assert len(short) > 3
    with torch.no_grad():
        torch.testing.assert_close(component(short[:, :8]), component(short), atol=1e-5, rtol=0)


def test_half_precision_weights_open(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_dual(tmp_path / "half", dtype=torch.float16))
    assert checkpoint.dtype is torch.float16
    checkpoint.save(tmp_path / "copy")
    assert open_checkpoint(tmp_path / "copy").space() == open_checkpoint(tmp_path / "half").space()


def test_the_space_is_of_weights_and_contract(folder: Path, tmp_path: Path) -> None:
    same, other = make_tiny_dual(tmp_path / "same"), make_tiny_dual(tmp_path / "other", seed=1)
    assert open_checkpoint(folder).space() == open_checkpoint(same).space()
    assert open_checkpoint(folder).space() != open_checkpoint(other).space()


def test_the_text_towers_neurons_and_heads_are_known(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    assert tuple(checkpoint.components) == ("image_encoder", "text_encoder")
    layer = "text_model.encoder.layer.1"
    assert checkpoint.stack("text_encoder").name == "text_model.encoder.layer"
    assert [each.up for each in feed_forwards(checkpoint.model)][1] == f"{layer}.intermediate.dense"
    assert [each.head_size for each in attentions(checkpoint.model)] == [16, 16]
    assert attentions(checkpoint.model)[1].output == f"{layer}.attention.output.dense"


def test_the_image_tower_is_no_stack_of_layers(folder: Path) -> None:
    with pytest.raises(RecipeError, match="the image_encoder is no stack of transformer layers"):
        open_checkpoint(folder).stack("image_encoder")


def _section(section: str, **values: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config[section].update(values)
        (folder / "config.json").write_text(json.dumps(config))

    return change


def _pad_is_eos(folder: Path) -> None:
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config["pad_token"] = config["eos_token"]
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def _preprocessor(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "preprocessor_config.json"
        stored = {**json.loads(path.read_text()), **values}
        path.write_text(json.dumps({key: value for key, value in stored.items() if value is not None}))

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_section("vision_config", model_type="vit"), "vision_config.model_type is 'vit'"),
        (_section("text_config", model_type="roberta"), "text_config.model_type is 'roberta'"),
        (_section("vision_config", image_size=[32, 32]), "image_size is .*; one positive number is needed"),
        (_section("vision_config", num_channels=1), "pictures have 3"),
        (_section("vision_config", depths=[2]), "no VisionTextDualEncoder model can be built|not a valid"),
        (_section("vision_config", hidden_sizes=[16, 32]), "config.json asks for"),
        (_section("text_config", is_decoder=True), "a text tower is an encoder"),
        (_section("text_config", vocab_size=100), "vocab_size is 100"),
        (_section("text_config", max_position_embeddings=2), "leave no room for a word|asks for"),
        (_pad_is_eos, "a pad token of its own"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no model.safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "nor preprocessor_config.json"),
        (_preprocessor(image_processor_type=None), "names no image_processor_type"),
        (_preprocessor(image_processor_type="ConvNextImageProcessor"), "'ConvNextImageProcessor'; only"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    tmp_path: Path, change: Callable[[Path], None], complaint: str
) -> None:
    make_tiny_dual(tmp_path / "tiny")
    change(tmp_path / "tiny")
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(tmp_path / "tiny")
    assert "\n" not in str(caught.value)
