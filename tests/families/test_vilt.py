"""ViLT as it is compressed: it answers like transformers' own, and what it lost stays lost in files."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from pocketvl.compress.costs import cost_of, positions
from pocketvl.compress.heads import prune_heads_
from pocketvl.compress.methods.drop_layers import drop_layers_
from pocketvl.compress.methods.low_rank import factorise, factorise_
from pocketvl.compress.methods.prune_cross_modal import block_scores, least_blocks
from pocketvl.compress.neurons import prune_neurons_
from pocketvl.compress.settings import Score, Units
from pocketvl.compress.shrink import linear
from pocketvl.compress.structured import groups_of
from pocketvl.errors import RecipeError, SourceError
from pocketvl.families import family_of, open_checkpoint
from pocketvl.families.base import example_inputs
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.folders.files import COMPRESSION_FILE
from pocketvl.families.layers.blocks import attentions, feed_forwards
from pocketvl.families.layers.compression import read_compression
from pocketvl.families.layers.plain import RawPixels
from pocketvl.families.layers.segments import Segments
from pocketvl.families.layers.split_attention import Block, removed_blocks, split_attentions_
from pocketvl.network.heads import HeadKind, LabelHead
from pocketvl.quantize.fold import fold_
from pocketvl.tabletop.language import ANSWERS
from tests.families.tiny import make_tiny_clip
from tests.families.vilt_folder import (
    HEAD_SIZE,
    IMAGE_SIZE,
    LAYER,
    PATCHES,
    TEXT_LENGTH,
    make_vilt_folder,
    vilt_inputs,
)

NAMES = [f"{LAYER}.{place}.attention.attention" for place in (0, 1)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_vilt_folder(tmp_path / "vilt")


def _segments(checkpoint: Checkpoint) -> Segments:
    found = checkpoint.stack("fusion").segments
    assert found is not None
    return found


def _answer(checkpoint: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = checkpoint.component("fusion").module(*vilt_inputs())
    return found


def test_it_answers_like_transformers(folder: Path) -> None:
    from transformers import ViltForQuestionAnswering

    checkpoint = open_checkpoint(folder)
    pixels, ids = vilt_inputs()
    spec = checkpoint.preprocess
    values = pixels.permute(0, 3, 1, 2) / 255
    values = (values - torch.tensor(spec.normalized_in_graph.mean).view(3, 1, 1)) / torch.tensor(
        spec.normalized_in_graph.std
    ).view(3, 1, 1)
    model = ViltForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).train(False)
    with torch.no_grad():
        wanted = model(
            input_ids=ids.long(),
            attention_mask=(ids != checkpoint.tokenizer.pad_id).long(),
            pixel_values=values,
            pixel_mask=torch.ones(len(ids), IMAGE_SIZE, IMAGE_SIZE, dtype=torch.long),
        ).logits
    assert wanted.std() > 0.1
    assert (_answer(checkpoint) - wanted).abs().max() < 1e-5
    assert checkpoint.contract.head == LabelHead("fusion", ANSWERS)
    assert tuple(checkpoint.components) == ("fusion",)
    assert family_of(folder).head is HeadKind.LABELS


def test_what_fills_a_question_up_is_not_looked_at(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    pixels, ids = vilt_inputs(1)
    short = ids[:, : int((ids != checkpoint.tokenizer.pad_id).sum())]
    with torch.no_grad():
        component = checkpoint.component("fusion").module
        assert short.shape[1] < ids.shape[1]
        assert (component(pixels, ids) - component(pixels, short)).abs().max() < 1e-5


def test_everything_that_was_changed_is_there_again(folder: Path, tmp_path: Path) -> None:
    """Blocks go, then a head, more blocks, neurons, a rank, and a layer."""
    checkpoint = open_checkpoint(folder)
    model = checkpoint.model
    split_attentions_(model, _segments(checkpoint), [Block(NAMES[1], "text", "image", 1)])
    prune_heads_(model, attentions(model)[1], [1])  # the head that is split is now the first
    assert removed_blocks(model) == (Block(NAMES[1], "text", "image", 0),)
    split_attentions_(model, _segments(checkpoint), [Block(NAMES[1], "image", "text", 0)])
    prune_neurons_(model, feed_forwards(model)[1], list(range(5, 60)))
    assert factorise_(model, f"{NAMES[1]}.query", factorise(linear(model, f"{NAMES[1]}.query").weight), 5)
    drop_layers_(model, LAYER, [1])
    checkpoint.config["num_hidden_layers"] = 1
    checkpoint.save(tmp_path / "small")
    again = open_checkpoint(tmp_path / "small")
    assert torch.allclose(_answer(checkpoint), _answer(again), atol=2e-3)  # weights are stored in fp16
    again.save(tmp_path / "twice")
    assert torch.equal(_answer(again), _answer(open_checkpoint(tmp_path / "twice")))
    told = json.loads((tmp_path / "small" / COMPRESSION_FILE).read_text())
    assert told["segments"] == {"text": TEXT_LENGTH, "image": 1 + PATCHES}
    name = NAMES[0]
    assert told["removed"] == [
        {"attention": name, "queries": "text", "keys": "image", "heads": [0]},
        {"attention": name, "queries": "image", "keys": "text", "heads": [0]},
    ]
    assert read_compression(tmp_path / "small").linears[f"{name}.query"].rank == 5


def test_a_removed_block_saves_its_multiply_adds(folder: Path, tmp_path: Path) -> None:
    checkpoint, inputs = open_checkpoint(folder), vilt_inputs(1)
    before = cost_of(checkpoint.component("fusion").module, inputs)
    gone = [Block(NAMES[0], "text", "image", 0), Block(NAMES[1], "image", "text", 1)]
    split_attentions_(checkpoint.model, _segments(checkpoint), gone)
    checkpoint.save(tmp_path / "split")
    after = cost_of(open_checkpoint(tmp_path / "split").component("fusion").module, inputs)
    assert before.macs - after.macs == 2 * 2 * TEXT_LENGTH * (1 + PATCHES) * HEAD_SIZE
    assert before.parameters == after.parameters


def test_what_a_head_saves_is_not_overrated_where_attention_is_split(folder: Path) -> None:
    """What one more head less saves is at least what is counted on, and no less where nothing is split."""
    checkpoint, inputs = open_checkpoint(folder), vilt_inputs(1)
    split_attentions_(checkpoint.model, _segments(checkpoint), [Block(NAMES[0], "text", "image", 1)])
    component = checkpoint.component("fusion").module
    rows = positions(component, inputs)
    groups = groups_of(component, component, [Units.HEADS], Score.MAGNITUDE, rows)
    for group, attention, exact in zip(groups, attentions(checkpoint.model), (False, True), strict=True):
        for kept in ([0], [1]):
            smaller = deepcopy(checkpoint.model)
            prune_heads_(smaller, attention, kept)
            other = open_checkpoint(folder)
            other.model = smaller
            saved = cost_of(component, inputs).macs - cost_of(other.component("fusion").module, inputs).macs
            assert saved == group.saves.macs if exact or kept == [0] else saved > group.saves.macs


def test_a_second_round_counts_what_is_gone_already(folder: Path) -> None:
    checkpoint = open_checkpoint(folder)
    component = checkpoint.component("fusion").module
    scores = block_scores(component, [vilt_inputs()], _segments(checkpoint))
    first = least_blocks(scores, 0.25)
    split_attentions_(checkpoint.model, _segments(checkpoint), first)
    component = checkpoint.component("fusion").module
    again = block_scores(component, [vilt_inputs()], _segments(checkpoint))
    assert all(again[block] == 0 for block in first)
    assert all(value > 0 for block, value in again.items() if block not in first)
    second = least_blocks(again, 0.5)
    assert len(second) == 2 * len(first)
    assert set(first) < set(second)
    split_attentions_(checkpoint.model, _segments(checkpoint), second)
    assert set(removed_blocks(checkpoint.model)) == set(second)


def test_pixel_normalisation_is_folded_into_the_patches(folder: Path) -> None:
    """LiteRT's converter would do so after the weights were quantized."""
    component = open_checkpoint(folder).component("fusion")
    with torch.inference_mode():
        expected = component.module(*vilt_inputs())
    fold_(component.module, example_inputs(component))
    assert isinstance(component.module.normalize, RawPixels)
    with torch.inference_mode():
        torch.testing.assert_close(component.module(*vilt_inputs()), expected, atol=1e-4, rtol=1e-4)


def _removed(**changes: object) -> Callable[[dict[str, Any]], None]:
    entry = {"attention": NAMES[0], "queries": "text", "keys": "image", "heads": [0], **changes}

    def change(stored: dict[str, Any]) -> None:
        stored["removed"] = [entry]

    return change


def _other_segments(stored: dict[str, Any]) -> None:
    _removed()(stored)
    stored["segments"] = {"text": 3, "image": 4}


def _other_order(stored: dict[str, Any]) -> None:
    _removed()(stored)
    stored["segments"] = {"image": 1 + PATCHES, "text": TEXT_LENGTH}


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (_removed(attention="nothing"), "nothing is no attention of this model"),
        (_removed(heads=[2]), "there are 2 heads and the segments text, image"),
        (_removed(keys="text"), "always stays"),
        (_removed(keys="sound"), "the segments text, image"),
        (_removed(heads="all"), r"removed\.0\.heads"),
        (_other_order, "segments are"),
        (_other_segments, r"segments are \{'text': 3, 'image': 4\}, and of this model"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(
    folder: Path, change: Callable[[dict[str, Any]], None], complaint: str
) -> None:
    stored: dict[str, Any] = {
        "schema_version": 1,
        "linears": {},
        "segments": {"text": TEXT_LENGTH, "image": 1 + PATCHES},
    }
    change(stored)
    (folder / COMPRESSION_FILE).write_text(json.dumps(stored))
    with pytest.raises(SourceError, match=complaint):
        open_checkpoint(folder)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("id2label", {"0": "yes"}, "two answers or more"),
        ("id2label", {"0": "yes", "2": "no"}, "the answers 0 to 1"),
        ("image_size", [32, 16], "image_size is"),
        ("max_image_length", 3, "fewer than the 16 patches"),
        ("vocab_size", 100, "tokenizer.json has ids up to"),
    ],
)
def test_a_broken_configuration_is_named(folder: Path, key: str, value: object, complaint: str) -> None:
    config = json.loads((folder / "config.json").read_text())
    config[key] = value
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SourceError, match=complaint):
        open_checkpoint(folder)


@pytest.mark.parametrize("kind", [None, "ViltImageProcessor"])
def test_another_image_processor_is_named(folder: Path, kind: str | None) -> None:
    """Without a type, transformers takes a ViLT's own."""
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "image_processor_type": kind}))
    with pytest.raises(SourceError, match="only CLIPImageProcessor, SiglipImageProcessor, "):
        open_checkpoint(folder)


def test_two_towers_have_no_such_blocks(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    name = "vision_model.encoder.layers.0.self_attn"
    stored: dict[str, Any] = {"schema_version": 1, "linears": {}, "segments": {"text": 1, "image": 16}}
    _removed(attention=name)(stored)
    (folder / COMPRESSION_FILE).write_text(json.dumps(stored))
    with pytest.raises(SourceError, match="CLIPAttention is no attention over text and picture"):
        open_checkpoint(folder)


def test_attentions_are_split_by_one_kind_of_segments(folder: Path) -> None:
    model = open_checkpoint(folder).model
    split_attentions_(model, _segments(open_checkpoint(folder)), [Block(NAMES[0], "text", "image", 0)])
    with pytest.raises(RecipeError, match="split by segments of"):
        split_attentions_(model, Segments({"text": 9, "image": 24}), [Block(NAMES[0], "text", "image", 0)])
