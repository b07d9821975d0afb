"""BLIP's own: scores of both heads end to end, the split attention, a dropped head, what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, BlipForImageTextRetrieval
from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil

from pocketvl.compress.heads import prune_heads_
from pocketvl.compress.methods.low_rank import factorise, factorise_
from pocketvl.compress.shrink import linear
from pocketvl.errors import SourceError
from pocketvl.families import family_of, open_checkpoint, read_contract
from pocketvl.families.base import example_inputs
from pocketvl.families.component_shape import ComponentShape
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.pooled import PooledLayer
from pocketvl.quantize.fold import fold_
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.text import Tokenizer
from tests.families.edits import Edit, set_in
from tests.families.tiny_blip import make_tiny_blip
from tests.pillow import rows_first

TEXTS = ["a photo of a cat", "two dogs", "a", "a large striped green triangle above a star"]
ATTENTION = "vision_model.encoder.layers.0.self_attn"


def test_scores_are_transformers_own(tmp_path: Path) -> None:
    folder = make_tiny_blip(tmp_path / "tiny", limit=30, outlier=20.0)
    checkpoint = open_checkpoint(folder)
    numbers = np.random.default_rng(0)
    pictures = [Image.fromarray(numbers.integers(0, 256, (50, side, 3), np.uint8)) for side in (40, 61)]
    with rows_first():
        shown = BlipImageProcessorPil.from_pretrained(folder)(images=pictures, return_tensors="pt")
    read = AutoTokenizer.from_pretrained(folder)(TEXTS, padding=True, return_tensors="pt")
    model = BlipForImageTextRetrieval.from_pretrained(folder).train(False)
    ids = Tokenizer(checkpoint.tokenizer_json, checkpoint.tokenizer).encode(TEXTS).ids
    pixels = np.stack([load_pixels(each, checkpoint.preprocess) for each in pictures])
    with torch.no_grad():
        images, hidden = checkpoint.component("image_encoder").module(torch.from_numpy(pixels))
        texts = checkpoint.component("text_encoder").module(torch.from_numpy(ids))
        given = {"input_ids": read["input_ids"], "attention_mask": read["attention_mask"]}
        wanted = model(**given, pixel_values=shown["pixel_values"], use_itm_head=False).itm_score
        torch.testing.assert_close(images @ texts.T, wanted, atol=2e-5, rtol=0)
        for row, seen in zip(hidden, shown["pixel_values"], strict=True):  # each picture with all the texts
            repeated = row.expand(len(TEXTS), -1, -1)
            fits = checkpoint.component("fusion").module(repeated, torch.from_numpy(ids))
            wanted = model(**given, pixel_values=seen.expand(len(TEXTS), -1, -1, -1)).itm_score
            assert float((wanted[0] - wanted[3]).abs().max()) > 1e-3  # 50 times the tolerance: texts count
            torch.testing.assert_close(fits, wanted, atol=2e-5, rtol=0)


def test_a_matching_score_reads_the_whole_picture_and_no_padding(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_blip(tmp_path / "a"))
    fusion, pad = checkpoint.component("fusion").module, checkpoint.tokenizer.pad_id
    torch.manual_seed(0)
    hidden, ids = torch.randn(1, 17, 32), torch.randint(5, 300, (1, 16), dtype=torch.int32)
    ids[:, 9:] = pad
    with torch.no_grad():
        whole = fusion(hidden, ids)
        torch.testing.assert_close(fusion(hidden, ids[:, :9]), whole, atol=1e-5, rtol=0)
        for position in (0, 8, 16):
            other = hidden.clone()
            other[:, position] += 1
            assert float((fusion(other, ids) - whole).abs().max()) > 1e-4


def test_a_dropped_head_is_said_in_compression_json_and_leaves_graphs_of_the_first_alone(
    tmp_path: Path,
) -> None:
    folder = make_tiny_blip(tmp_path / "a")
    checkpoint = open_checkpoint(folder)
    checkpoint.drop_reranker_()
    checkpoint.save(tmp_path / "b")
    stored = json.loads((tmp_path / "b" / "compression.json").read_text())
    assert stored == {"linears": {}, "dropped": ["fusion"], "schema_version": 1}
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "b"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    family = family_of(tmp_path / "b")
    assert (family.components, family.reranker) == (("image_encoder", "text_encoder"), None)
    assert family_of(folder).components == ("image_encoder", "text_encoder", "fusion")
    again = open_checkpoint(tmp_path / "b")
    again.save(tmp_path / "c")
    assert family_of(tmp_path / "c").reranker is None
    image = again.component("image_encoder")
    fold_(image.module, example_inputs(image))
    assert isinstance(image.module.get_submodule("vision_model.encoder.layers.1"), PooledLayer)
    whole = open_checkpoint(folder).component("image_encoder")
    fold_(whole.module, example_inputs(whole))
    assert not any(isinstance(each, PooledLayer) for each in whole.module.modules())


@pytest.mark.parametrize("dropped", [["decoder"], ["fusion", "image_encoder"]])
def test_what_is_no_second_head_cannot_be_dropped(tmp_path: Path, dropped: list[str]) -> None:
    folder = make_tiny_blip(tmp_path / "a")
    stored = {"schema_version": 1, "dropped": dropped}
    (folder / "compression.json").write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(SourceError, match=rf"'{dropped[-1]}' is dropped, which is no second head") as caught:
        read_contract(folder)
    assert "\n" not in str(caught.value)


def test_the_tensors_of_both_halves_are_called_as_before(tmp_path: Path) -> None:
    folder = make_tiny_blip(tmp_path / "a")
    open_checkpoint(folder).save(tmp_path / "b")
    before, after = (load_file(each / "model.safetensors") for each in (folder, tmp_path / "b"))
    assert set(before) == set(after)
    assert any("crossattention" in name for name in before)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pruned_and_factorised_attentions_are_saved_and_opened(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_blip(tmp_path / "a"))
    model = checkpoint.model
    (attention,) = (each for each in attentions(model) if each.name == ATTENTION)
    prune_heads_(model, attention, [1])
    other = ATTENTION.replace("0", "1")
    assert factorise_(model, f"{other}.q_proj", factorise(linear(model, f"{other}.q_proj").weight), 5)
    assert factorise_(model, f"{other}.out_proj", factorise(linear(model, f"{other}.out_proj").weight), 5)
    checkpoint.save(tmp_path / "b")
    assert load_file(tmp_path / "b" / "model.safetensors")[f"{ATTENTION}.qkv.weight"].shape == (48, 32)
    pixels = torch.arange(32 * 32 * 3).reshape(1, 32, 32, 3).to(torch.uint8)
    with torch.no_grad():
        found = [
            each.component("image_encoder").module(pixels)
            for each in (checkpoint, open_checkpoint(tmp_path / "b"))
        ]
    assert all(torch.equal(*each) for each in zip(*found, strict=True))


def test_reinitialised_encoders_can_be_trained(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(make_tiny_blip(tmp_path / "a"))
    shape = ComponentShape(width=16, layers=1, heads=2)
    checkpoint.reinitialize_({"image_encoder": shape, "text_encoder": shape}, seed=0)
    weights = checkpoint.model.get_parameter(f"{ATTENTION}.q_proj.weight")
    assert weights.shape == (16, 16)
    assert 0 < float(weights.detach().std()) < 1
    checkpoint.save(tmp_path / "b")
    assert open_checkpoint(tmp_path / "b").space() == checkpoint.space()


def test_the_scale_is_of_the_configuration_and_a_note_says_so(tmp_path: Path) -> None:
    folder = make_tiny_blip(tmp_path / "a", limit=None)
    contract = read_contract(folder)
    assert open_checkpoint(folder).logit_scale == pytest.approx(math.exp(2.6592))
    assert any("multiplied by 14.28" in note for note in contract.notes)
    assert contract.tokenizer.max_length == 35
    assert any("texts are cut at 35 tokens" in note for note in contract.notes)


@pytest.mark.parametrize("shape", [(), (95,), (94, 32)])
def test_queries_keys_and_values_that_are_no_three_of_a_size_are_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    folder = make_tiny_blip(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    weights[f"{ATTENTION}.qkv.weight"] = torch.zeros(shape)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(SourceError, match="config.json describes another model"):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (set_in("config.json", "architectures", to=["BlipForQuestionAnswering"]), "only BlipForImageText"),
        (set_in("config.json", "text_config", "is_decoder", to=False), "has cross-attentions"),
        (set_in("config.json", "image_text_hidden_size", to=0), "one positive number is needed"),
        (set_in("config.json", "logit_scale_init_value", to=99.0), "not the logarithm of a temperature"),
        (set_in("tokenizer_config.json", "pad_token", to="[SEP]"), "a pad token of its own"),
        (set_in("preprocessor_config.json", "pad_size", to={"height": 64, "width": 64}), "do_pad is true"),
    ],
)
def test_what_is_wrong_is_one_clear_line(tmp_path: Path, edit: Edit, complaint: str) -> None:
    folder = make_tiny_blip(tmp_path / "tiny")
    edit(folder)
    with pytest.raises(SourceError, match=complaint) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
