"""A CLIP folder opens to two encoders that say what transformers says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl.families import open_checkpoint
from pocketvl_runtime.manifest import Resize, ResizeMode
from tests.families.tiny import EMBEDDING_DIM, EOS, IMAGE_SIZE, TEXT_LENGTH, make_tiny_clip


def unit(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(values, dim=-1)


def random_ids(eos: int, count: int = 64) -> torch.Tensor:
    """Texts of random ids and lengths, ended and padded with eos; some words are the highest id but eos."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(0, eos, (count, TEXT_LENGTH), dtype=torch.int32, generator=generator)
    lengths = torch.randint(1, TEXT_LENGTH, (count,), generator=generator)
    ids[torch.arange(TEXT_LENGTH) >= lengths[:, None]] = eos
    return ids


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_clip(tmp_path_factory.mktemp("clip") / "tiny")


def test_image_embedding_equals_transformers(folder: Path) -> None:
    source = open_checkpoint(folder)
    picture = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (IMAGE_SIZE, IMAGE_SIZE, 3), np.uint8)
    )
    values = CLIPImageProcessorPil.from_pretrained(folder)(picture, return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        expected = unit(CLIPModel.from_pretrained(folder).get_image_features(values).pooler_output)
        found = source.component("image_encoder").module(torch.from_numpy(np.array(picture)[None]))
    assert found.dtype == torch.float32
    assert found.shape == (1, EMBEDDING_DIM)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("legacy_eos", [False, True])
def test_text_embedding_equals_transformers_for_both_ways_of_pooling(
    tmp_path: Path, legacy_eos: bool
) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path, legacy_eos=legacy_eos))
    ids = random_ids(source.tokenizer.pad_id)
    with torch.no_grad():
        expected = unit(CLIPModel.from_pretrained(tmp_path).get_text_features(ids).pooler_output)
        torch.testing.assert_close(source.component("text_encoder").module(ids), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("legacy_eos", [False, True])
def test_text_without_eos_is_pooled_where_transformers_pools_it(tmp_path: Path, legacy_eos: bool) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path, legacy_eos=legacy_eos))
    ids = random_ids(source.tokenizer.pad_id) % 100
    with torch.no_grad():
        expected = unit(CLIPModel.from_pretrained(tmp_path).get_text_features(ids).pooler_output)
        torch.testing.assert_close(source.component("text_encoder").module(ids), expected, atol=1e-6, rtol=0)


def test_what_stands_after_eos_changes_nothing(folder: Path) -> None:
    source = open_checkpoint(folder)
    eos = source.tokenizer.pad_id
    ids = torch.full((2, TEXT_LENGTH), eos, dtype=torch.int32)
    ids[:, :4] = torch.tensor([eos - 1, 5, 6, eos])
    ids[1, 4:] = 7
    with torch.no_grad():
        one, other = source.component("text_encoder").module(ids)
    torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_embeddings_are_normalised_and_a_zero_vector_stays_finite(folder: Path) -> None:
    source = open_checkpoint(folder)
    ids = random_ids(source.tokenizer.pad_id)
    with torch.no_grad():
        torch.testing.assert_close(
            source.component("text_encoder").module(ids).norm(dim=-1), torch.ones(len(ids))
        )
        for parameter in (
            source.component("text_encoder").module.get_submodule("text_projection").parameters()
        ):
            parameter.zero_()
        assert torch.equal(source.component("text_encoder").module(ids), torch.zeros(len(ids), EMBEDDING_DIM))


def test_contract_is_read_from_the_folder(folder: Path) -> None:
    source = open_checkpoint(folder)
    assert (source.contract.family, source.contract.name, source.embedding_dim) == (
        "clip",
        "tiny",
        EMBEDDING_DIM,
    )
    assert source.logit_scale == pytest.approx(np.exp(2.5), rel=1e-6)
    assert source.tokenizer.max_length == TEXT_LENGTH
    assert source.tokenizer_json == (folder / "tokenizer.json").read_bytes()
    resize = source.preprocess.steps[0]
    assert isinstance(resize, Resize)
    assert resize.mode is ResizeMode.SHORTEST_EDGE
    assert (source.preprocess.height, source.preprocess.width) == (IMAGE_SIZE, IMAGE_SIZE)
    assert source.contract.notes == ()
    assert not source.component("image_encoder").module.training


@pytest.mark.parametrize(("limit", "expected"), [(7, 7), (1e30, TEXT_LENGTH), (99, TEXT_LENGTH)])
def test_text_length_is_the_smaller_of_tokenizer_and_positions(
    tmp_path: Path, limit: float, expected: int
) -> None:
    make_tiny_clip(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "model_max_length": limit}))
    source = open_checkpoint(tmp_path)
    assert source.tokenizer.max_length == expected
    ids = random_ids(source.tokenizer.pad_id)[:, :expected]
    with torch.no_grad():
        expected_values = unit(CLIPModel.from_pretrained(tmp_path).get_text_features(ids).pooler_output)
        torch.testing.assert_close(
            source.component("text_encoder").module(ids), expected_values, atol=1e-6, rtol=0
        )


def test_missing_tokenizer_config_pads_with_eos(tmp_path: Path) -> None:
    make_tiny_clip(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    eos = next(token["id"] for token in stored["added_tokens"] if token["content"] == EOS)
    assert open_checkpoint(tmp_path).tokenizer.pad_id == eos


def test_fp16_and_sharded_weights_load_to_fp32(tmp_path: Path) -> None:
    half = open_checkpoint(make_tiny_clip(tmp_path / "half", dtype=torch.float16))
    full = open_checkpoint(make_tiny_clip(tmp_path / "full"))
    sharded = open_checkpoint(make_tiny_clip(tmp_path / "sharded", max_shard_size="60KB"))
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    ids = random_ids(full.tokenizer.pad_id)
    with torch.no_grad():
        expected = full.component("text_encoder").module(ids)
        assert torch.equal(sharded.component("text_encoder").module(ids), expected)
        assert half.component("text_encoder").module(ids).dtype == torch.float32
        torch.testing.assert_close(half.component("text_encoder").module(ids), expected, atol=5e-3, rtol=0)
        assert not torch.equal(half.component("text_encoder").module(ids), expected)


def test_space_follows_what_an_embedding_depends_on(tmp_path: Path) -> None:
    first = open_checkpoint(make_tiny_clip(tmp_path / "a")).space()
    assert first == open_checkpoint(make_tiny_clip(tmp_path / "b", max_shard_size="60KB")).space()
    assert first.startswith("sha256:")
    spaces = {first, open_checkpoint(make_tiny_clip(tmp_path / "c", seed=1)).space()}
    spaces.add(open_checkpoint(make_tiny_clip(tmp_path / "d", legacy_eos=True)).space())
    changes: list[tuple[str, dict[str, object]]] = [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
        ("tokenizer_config.json", {"model_max_length": 9}),
    ]
    for number, (file, change) in enumerate(changes):
        path = make_tiny_clip(tmp_path / str(number)) / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        spaces.add(open_checkpoint(path.parent).space())
    assert len(spaces) == 5


def test_opening_leaves_the_random_generator_alone(folder: Path) -> None:
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    open_checkpoint(folder)
    assert torch.equal(torch.rand(3), expected)


def test_the_package_imports_without_torch() -> None:
    code = "import sys, pocketvl.families; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
