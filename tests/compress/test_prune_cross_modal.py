"""Cross-modal blocks of a fusion model's attention: scored on data, and really gone."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pocketvl.compress.costs import cost_of
from pocketvl.compress.methods.prune_cross_modal import block_scores, least_blocks
from pocketvl.compress.settings import BlockScore, Grain
from pocketvl.compress.shrink import linear
from pocketvl.errors import DataError, RecipeError
from pocketvl.families.layers.blocks import attentions
from pocketvl.families.layers.segments import Segments
from pocketvl.families.layers.split_attention import Block, SplitAttention, split_attentions_
from tests.families.tiny_vilt import (
    HEADS,
    HIDDEN,
    IMAGE_LENGTH,
    IMAGE_SIZE,
    TEXT_LENGTH,
    TinyVilt,
    make_tiny_vilt,
)

SEGMENTS = Segments({"text": TEXT_LENGTH, "image": IMAGE_LENGTH})
NAMES = tuple(attention.name for attention in attentions(make_tiny_vilt()))
CROSS = [
    Block(name, *pair, head)
    for name in NAMES
    for pair in (("text", "image"), ("image", "text"))
    for head in range(HEADS)
]
SIZE = HIDDEN // HEADS


@pytest.fixture(scope="module")
def vilt() -> TinyVilt:
    return make_tiny_vilt()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randn(3, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def _attention(
    module: SplitAttention | torch.nn.Module, hidden: torch.Tensor, mask: torch.Tensor, gone: list[Block]
) -> torch.Tensor:
    """What attention gives whose weights are masked where a block is gone: the definition, slowly."""
    query, key, value = (
        getattr(module, part)(hidden).unflatten(-1, (HEADS, SIZE)).transpose(1, 2)
        for part in ("query", "key", "value")
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(SIZE) + mask
    places = SEGMENTS.slices()
    for block in gone:
        scores[:, block.head, places[block.queries], places[block.keys]] = -torch.inf
    found: torch.Tensor = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
    return found


@settings(deadline=None, max_examples=25)
@given(removed=st.sets(st.sampled_from(CROSS)))
def test_a_split_attention_is_a_masked_one(removed: set[Block]) -> None:
    vilt = make_tiny_vilt()
    before = deepcopy(vilt)
    split_attentions_(vilt, SEGMENTS, sorted(removed, key=str))
    hidden = torch.randn(2, SEGMENTS.total, HIDDEN, generator=torch.Generator().manual_seed(1))
    mask = torch.zeros(2, 1, 1, SEGMENTS.total)
    mask[:, :, :, 6:8] = -30000.0
    for name in NAMES:
        gone = [block for block in removed if block.attention == name]
        after = vilt.get_submodule(name)
        assert isinstance(after, SplitAttention) == bool(gone)
        with torch.no_grad():
            wanted = _attention(before.get_submodule(name), hidden, mask, gone)
            found = after(hidden, mask)[0]
        assert (wanted - found).abs().max() < 1e-5


def test_a_removed_block_saves_its_multiply_adds(vilt: TinyVilt, pixels: torch.Tensor) -> None:
    before = cost_of(vilt, pixels[:1])
    for block in (CROSS[0], CROSS[HEADS]):
        changed = deepcopy(vilt)
        split_attentions_(changed, SEGMENTS, [block])
        after = cost_of(changed, pixels[:1])
        assert before.macs - after.macs == 2 * TEXT_LENGTH * IMAGE_LENGTH * SIZE
        assert before.parameters == after.parameters


def test_all_cross_modal_blocks_gone_leave_two_models_that_do_not_meet(pixels: torch.Tensor) -> None:
    vilt = make_tiny_vilt()
    split_attentions_(vilt, SEGMENTS, CROSS)
    with torch.no_grad():
        pooled = vilt(pixels)  # of the first token, which is text's
    assert torch.allclose(pooled, pooled[:1].expand_as(pooled), atol=1e-6)


def test_plain_sums_count_positions_and_the_others_do_not(vilt: TinyVilt, pixels: torch.Tensor) -> None:
    """With queries of 0 every token is looked at alike: one block says as much as another."""
    even = deepcopy(vilt)
    for attention in attentions(even):
        with torch.no_grad():
            linear(even, attention.query).weight.zero_()
            linear(even, attention.query).bias.zero_()
    scores = {kind: block_scores(even, [(pixels,)], SEGMENTS, kind) for kind in BlockScore}
    assert len(scores[BlockScore.SUM]) == 2 * 4 * HEADS
    tokens, asking, there = 23, 6, 17  # without the two places of padding
    for block, value in scores[BlockScore.SUM].items():
        counts = {"text": asking, "image": there}
        assert value == pytest.approx(counts[block.queries] * counts[block.keys] / tokens, rel=1e-5)
    assert all(value == pytest.approx(1, rel=1e-5) for value in scores[BlockScore.POSITION].values())


def test_the_value_score_sees_that_nothing_is_carried(vilt: TinyVilt, pixels: torch.Tensor) -> None:
    blind = deepcopy(vilt)
    attention = attentions(blind)[1]
    with torch.no_grad():
        linear(blind, attention.output).weight[:, SIZE:] = 0  # the second head says nothing
    scores = {kind: block_scores(blind, [(pixels,)], SEGMENTS, kind) for kind in BlockScore}
    mute = [
        block for block in scores[BlockScore.VALUE] if block.attention == attention.name and block.head == 1
    ]
    assert len(mute) == 4
    for block in mute:
        assert scores[BlockScore.VALUE][block] == 0
        assert scores[BlockScore.POSITION][block] > 0
    gone = least_blocks(scores[BlockScore.VALUE], 2 / 8)
    assert set(gone) == {block for block in mute if block.is_cross_modal}
    with torch.no_grad():
        expected = blind(pixels)
        split_attentions_(blind, SEGMENTS, gone)
        assert (blind(pixels) - expected).abs().max() < 1e-5


def test_scores_are_means_over_samples(vilt: TinyVilt, pixels: torch.Tensor) -> None:
    whole = block_scores(vilt, [(pixels,)], SEGMENTS)
    parts = block_scores(vilt, [(pixels[:1],), (pixels[1:],)], SEGMENTS)
    assert whole.keys() == parts.keys()
    assert all(parts[block] == pytest.approx(value, rel=1e-5) for block, value in whole.items())


def test_whole_layers_go_by_their_sum() -> None:
    scores = {block: float(place) for place, block in enumerate(CROSS)}
    scores[Block(NAMES[0], "text", "text", 0)] = -1.0  # never goes
    assert set(least_blocks(scores, 0.25, Grain.LAYER)) == set(CROSS[:HEADS])
    assert set(least_blocks(scores, 1.0)) == set(CROSS)
    assert least_blocks(scores, 0.0) == ()
    with pytest.raises(RecipeError, match="ratio must be 0 to 1"):
        least_blocks(scores, 1.5)


def test_what_cannot_be_is_refused(vilt: TinyVilt, pixels: torch.Tensor) -> None:
    for block, complaint in (
        (Block(NAMES[0], "text", "text", 0), "always stays"),
        (Block(NAMES[0], "text", "image", HEADS), "there are 2 heads"),
        (Block(NAMES[0], "text", "sound", 0), "the segments text, image"),
        (Block("nothing", "text", "image", 0), "is no attention of this model"),
    ):
        with pytest.raises(RecipeError, match=complaint):
            split_attentions_(deepcopy(vilt), SEGMENTS, [block])
    with pytest.raises(DataError, match="no attention over 9 tokens ran"):
        block_scores(vilt, [(pixels,)], Segments({"text": 4, "image": 5}))
    with pytest.raises(DataError, match="no samples"):
        block_scores(vilt, [], SEGMENTS)
