"""Products of two activations are found, put on grids and measured, whole or where text meets picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from transformers import CLIPVisionConfig, CLIPVisionModel

from pocketvl.errors import DataError, RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.segments import Blocks, Segments, block_name
from pocketvl.network.integers import QuantizedComponent, QuantizedProduct
from pocketvl.network.specification import (
    ACTIVATION_8,
    CHANNELS_8,
    Granularity,
    GridSpec,
    ProductSpec,
    Range,
    Scheme,
)
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl.prototype.product_sensitivity import product_sensitivity, products_to_quantize
from pocketvl.quantize.arithmetic import activation_grid
from pocketvl.quantize.products import (
    Ranges,
    calibrate_products,
    multiplied,
    on_grids,
    product_shapes,
    quantize_products,
    run,
)
from pocketvl.quantize.simulate import simulated
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_vilt import IMAGE_LENGTH, PAD, TEXT_IDS, TEXT_LENGTH, TinyVilt, make_tiny_vilt

SEGMENTS = Segments({"text": TEXT_LENGTH, "image": IMAGE_LENGTH})
MIN_MAX = CalibrationSettings(observer=Observer.MIN_MAX)
IMAGE_PRODUCTS, TEXT_PRODUCTS = (
    tuple(
        f"{component}_model.encoder.layers.{layer}.self_attn.{kind}"
        for layer in (0, 1)
        for kind in ("scores", "values")
    )
    for component in ("vision", "text")
)
VILT_PRODUCTS = tuple(
    f"model.encoder.layer.{layer}.attention.attention.{kind}"
    for layer in (0, 1)
    for kind in ("scores", "values")
)
Products = Mapping[str, QuantizedProduct]


@cache
def clip() -> Checkpoint:
    with TemporaryDirectory() as folder:
        return open_checkpoint(make_tiny_clip(Path(folder) / "clip"))


@cache
def vilt() -> TinyVilt:
    return make_tiny_vilt()


def pictures(count: int, seed: int = 0) -> list[NDArray[Any]]:
    """For CLIP's image tower."""
    values = np.random.default_rng(seed).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return [values[i : i + 1] for i in range(count)]


def texts(count: int, seed: int = 0) -> list[NDArray[Any]]:
    """For CLIP's text tower; each ends, and is filled, with the highest id."""
    ids = np.random.default_rng(seed).integers(0, 300, (count, 16), dtype=np.int32)
    ids[:, 9:] = clip().tokenizer.pad_id
    return [ids[i : i + 1] for i in range(count)]


def pixels(count: int, seed: int = 0) -> list[NDArray[Any]]:
    """For ViLT."""
    values = np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)
    return [values[i : i + 1] for i in range(count)]


def specs(names: tuple[str, ...], bits: int = 8, has_output: bool = False) -> dict[str, ProductSpec]:
    grid = GridSpec(bits, Scheme.AFFINE, Granularity.PER_TENSOR)
    return dict.fromkeys(names, ProductSpec(grid, grid, grid if has_output else None))


def quantized(
    module: nn.Module, feeds: list[NDArray[Any]], bits: int = 8, blocks: Blocks = Blocks.WHOLE
) -> dict[str, QuantizedProduct]:
    seen = calibrate_products(module, feeds, MIN_MAX, SEGMENTS, blocks)
    return quantize_products(specs(tuple(seen), bits), seen)


@contextmanager
def intercepted(
    module: nn.Module, change: Callable[[str, torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
) -> Iterator[None]:
    """Inside, each product of two activations in the module's attention is of what `change` returns."""
    with multiplied(module, lambda name, left, right: torch.matmul(*change(name, left, right))):
        yield


class Unchanged:
    """Keeps the names of the products that it is asked to change."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __call__(
        self, name: str, left: torch.Tensor, right: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        self.seen.append(name)
        return left, right


def answers(module: nn.Module, feeds: list[NDArray[Any]]) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([run(module, feed) for feed in feeds]).double()


def error(module: nn.Module, feeds: list[NDArray[Any]], products: Products) -> float:
    """Squared error of the answers, as a part of their variance over the feeds."""
    plain = answers(module, feeds)
    with simulated(module, QuantizedComponent({}, products), SEGMENTS):
        found = answers(module, feeds)
    return float((found - plain).square().mean() / plain.var(dim=0).mean())


def components() -> list[Any]:
    return [
        pytest.param(lambda: clip().component("image_encoder").module, pictures, IMAGE_PRODUCTS, id="image"),
        pytest.param(lambda: clip().component("text_encoder").module, texts, TEXT_PRODUCTS, id="text"),
        pytest.param(vilt, pixels, VILT_PRODUCTS, id="vilt"),
    ]


ALL_COMPONENTS = pytest.mark.parametrize(("module_of", "feeds_of", "names"), components())
ModuleOf = Callable[[], nn.Module]
FeedsOf = Callable[..., list[NDArray[Any]]]


@ALL_COMPONENTS
def test_both_products_of_every_attention_are_found(
    module_of: ModuleOf, feeds_of: FeedsOf, names: tuple[str, ...]
) -> None:
    assert tuple(product_shapes(module_of(), feeds_of(1)[0])) == names


@ALL_COMPONENTS
def test_the_module_is_left_as_it_was(module_of: ModuleOf, feeds_of: FeedsOf, names: tuple[str, ...]) -> None:
    module, feeds = module_of(), feeds_of(3)
    before = answers(module, feeds)
    state = {name: value.clone() for name, value in module.state_dict().items()}
    products = quantized(module, feeds, bits=2)
    assert error(module, feeds, products) > 0
    product_sensitivity(module, feeds, products)
    assert torch.equal(answers(module, feeds), before)
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in module.modules())


@ALL_COMPONENTS
def test_what_is_not_changed_gives_the_very_same_answers(
    module_of: ModuleOf, feeds_of: FeedsOf, names: tuple[str, ...]
) -> None:
    module, feeds = module_of(), feeds_of(2)
    before, change = answers(module, feeds), Unchanged()
    with intercepted(module, change):
        assert torch.equal(answers(module, feeds), before)
    assert tuple(change.seen) == names * 2


@ALL_COMPONENTS
def test_each_bit_takes_three_quarters_of_the_squared_error_away(
    module_of: ModuleOf, feeds_of: FeedsOf, names: tuple[str, ...]
) -> None:
    module, feeds = module_of(), feeds_of(16)
    errors = [error(module, feeds, quantized(module, feeds, bits)) for bits in range(2, 9)]
    assert errors[0] > 0.5  # 2 bits change the answers by what they differ in,
    assert errors[-1] < 2e-3  # and 8 a little
    fine = errors[2:]  # below 4 bits the error is no noise any more
    ratio = (fine[0] / fine[-1]) ** (1 / (len(fine) - 1))
    assert 3.3 < ratio < 4.8


@ALL_COMPONENTS
def test_grids_as_fine_as_can_be_leave_no_error(
    module_of: ModuleOf, feeds_of: FeedsOf, names: tuple[str, ...]
) -> None:
    module, feeds = module_of(), feeds_of(16)
    seen = calibrate_products(module, feeds, MIN_MAX)
    errors = {}
    for bits in (8, 16, 20):  # as no engine has them: what is left is not the grids' doing
        products = {
            name: QuantizedProduct(
                specs((name,))[name], activation_grid(left, bits), activation_grid(right, bits)
            )
            for name, (left, right, _) in seen.items()
        }
        errors[bits] = error(module, feeds, products)
    assert 1 / 3 < errors[16] / (errors[8] / 4**8) < 3
    assert errors[20] < 1e-9


def test_the_operands_of_a_product_are_those_that_were_on_grids() -> None:
    """The simulation is torch.matmul of the two dequantized operands, and of nothing else."""
    module, feed = clip().component("image_encoder").module, pictures(1)[0]
    products = quantized(module, [feed], bits=4)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    on = on_grids(products)

    def watch(name: str, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        seen[name] = (left, right, on(name, left, right))
        return seen[name][2]

    with torch.inference_mode(), multiplied(module, watch):
        run(module, feed)
    for name, (left, right, product) in seen.items():
        grids = (products[name].left, products[name].right)
        steps = [
            torch.clamp(torch.round(operand / grid.scale) + grid.zero_point, 0, 15) - grid.zero_point
            for operand, grid in zip((left, right), grids, strict=True)
        ]
        expected = (steps[0] @ steps[1]) * grids[0].scale * grids[1].scale  # of integers
        torch.testing.assert_close(product, expected, rtol=1e-5, atol=1e-5)


def test_what_the_text_component_masks_stays_masked() -> None:
    """What follows the eos is unseen by it, and must be with the coarsest grids too: 0 is a point of them."""
    module = clip().component("text_encoder").module
    products = quantized(module, texts(8), bits=2)
    feed = texts(1, seed=5)[0]
    other = feed.copy()
    other[:, 10:] = np.arange(6) + 40
    with simulated(module, QuantizedComponent({}, products)):
        assert torch.equal(answers(module, [feed]), answers(module, [other]))
    earlier = feed.copy()
    earlier[:, 3] += 1
    assert not torch.equal(answers(module, [feed]), answers(module, [earlier]))


@pytest.mark.parametrize("blocks", list(Blocks))
def test_padding_stays_masked_in_a_fusion_model(blocks: Blocks) -> None:
    module, feeds = make_tiny_vilt(seed=3), pixels(4)
    products = quantized(module, feeds, bits=2, blocks=blocks)
    with simulated(module, QuantizedComponent({}, products), SEGMENTS):
        before = answers(module, feeds)
        table = module.model.embeddings.text_embeddings.word_embeddings.weight
        table[PAD] = -table[PAD]
        torch.testing.assert_close(answers(module, feeds), before, rtol=1e-6, atol=1e-6)
        table[TEXT_IDS[1]] = -table[TEXT_IDS[1]]
        assert (answers(module, feeds) - before).abs().max() > 1e-2


def operands(name: str, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one product over the segments: two heads of 16."""
    total = SEGMENTS.total
    wide = torch.randn(1, 2, total, 16, generator=generator)
    if name == "attn.scores":
        return wide, torch.randn(1, 2, 16, total, generator=generator)
    return torch.randn(1, 2, total, total, generator=generator).softmax(-1), wide


def grids_of(seen: Mapping[str, Ranges], bits: int) -> dict[str, QuantizedProduct]:
    return quantize_products(specs(tuple(seen), bits), seen)


RANGES = (Range(-3, 3), Range(-2, 2), Range(-9, 9))
TEXT, IMAGE = (SEGMENTS.slices()[name] for name in ("text", "image"))


def test_cross_modal_scores_leave_the_blocks_of_one_modality_bit_by_bit() -> None:
    left, right = operands("attn.scores", torch.Generator().manual_seed(0))
    names = [block_name("attn.scores", pair) for pair in SEGMENTS.pairs(Blocks.CROSS)]
    found = on_grids(grids_of(dict.fromkeys(names, RANGES), 3), SEGMENTS)("attn.scores", left, right)
    plain = left @ right
    for own in (TEXT, IMAGE):
        assert torch.equal(found[..., own, own], plain[..., own, own])
    for rows, columns in ((TEXT, IMAGE), (IMAGE, TEXT)):
        assert (found[..., rows, columns] - plain[..., rows, columns]).abs().mean() > 0.1


def test_cross_modal_values_leave_what_a_modality_takes_of_itself_bit_by_bit() -> None:
    """With cross-modal weights of 0, which every grid has, only a modality's own values are left."""
    weights, values = operands("attn.values", torch.Generator().manual_seed(1))
    names = [block_name("attn.values", pair) for pair in SEGMENTS.pairs(Blocks.CROSS)]
    on = on_grids(grids_of(dict.fromkeys(names, (Range(0, 1), Range(-3, 3), Range(-3, 3))), 3), SEGMENTS)
    alone = weights.clone()
    alone[..., TEXT, IMAGE] = alone[..., IMAGE, TEXT] = 0
    found = on("attn.values", alone, values)
    for own in (TEXT, IMAGE):
        assert torch.equal(found[..., own, :], alone[..., own, own] @ values[..., own, :])
    assert (on("attn.values", weights, values) - weights @ values).abs().mean() > 0.01


@pytest.mark.parametrize("name", ["attn.scores", "attn.values"])
def test_one_cross_modal_block_changes_its_own_rows_only(name: str) -> None:
    left, right = operands(name, torch.Generator().manual_seed(2))
    one = grids_of({block_name(name, ("text", "image")): RANGES}, 3)
    found, plain = on_grids(one, SEGMENTS)(name, left, right), left @ right
    assert torch.equal(found[..., IMAGE, :], plain[..., IMAGE, :])
    assert not torch.equal(found[..., TEXT, :], plain[..., TEXT, :])


@given(st.integers(0, 2**31), st.sampled_from(["attn.scores", "attn.values"]), st.integers(2, 8))
def test_blocks_that_share_their_grids_are_the_whole_product(seed: int, name: str, bits: int) -> None:
    left, right = operands(name, torch.Generator().manual_seed(seed))
    whole = grids_of({name: RANGES}, bits)
    each = grids_of({block_name(name, pair): RANGES for pair in SEGMENTS.pairs()}, bits)
    torch.testing.assert_close(
        on_grids(each, SEGMENTS)(name, left, right), on_grids(whole)(name, left, right), rtol=1e-5, atol=1e-5
    )


def test_a_modality_of_a_smaller_scale_gains_by_grids_of_its_own() -> None:
    left, right = operands("attn.scores", torch.Generator().manual_seed(3))
    left[..., TEXT, :] /= 20
    pairs = SEGMENTS.pairs()

    def ranges(left: torch.Tensor, right: torch.Tensor) -> Ranges:
        first, second, result = (
            Range(*map(float, torch.aminmax(each))) for each in (left, right, left @ right)
        )
        return first, second, result

    seen = {
        block_name("attn.scores", pair): ranges(*SEGMENTS.block("attn.scores", pair, left, right))
        for pair in pairs
    }
    whole = {"attn.scores": ranges(left, right)}
    plain = left @ right
    errors = [
        float((found - plain)[..., TEXT, :].square().mean())
        for found in (
            on_grids(grids_of(whole, 6), SEGMENTS)("attn.scores", left, right),
            on_grids(grids_of(seen, 6), SEGMENTS)("attn.scores", left, right),
        )
    ]
    assert errors[0] > 50 * errors[1]


def test_blocks_are_calibrated_by_what_they_hold() -> None:
    module, feeds = vilt(), pixels(4)
    whole = calibrate_products(module, feeds, MIN_MAX)
    each = calibrate_products(module, feeds, MIN_MAX, SEGMENTS, Blocks.EACH)
    cross = calibrate_products(module, feeds, MIN_MAX, SEGMENTS, Blocks.CROSS)
    assert cross.items() <= each.items()
    assert set(cross) == {name for name in each if name.endswith(("text_image", "image_text"))}
    for name, sides in whole.items():
        for side, seen in enumerate(sides[:2]):  # a block of the values is a part of a sum
            parts = [each[block_name(name, pair)][side] for pair in SEGMENTS.pairs()]
            assert min(part.low for part in parts) == seen.low
            assert max(part.high for part in parts) == seen.high
        queries = {each[block_name(name, ("text", keys))][0] for keys in ("text", "image")}
        assert len(queries) == (1 if name.endswith("scores") else 2)  # weights differ by what they weigh


def test_a_feed_of_several_samples_is_averaged_sample_by_sample() -> None:
    settings = CalibrationSettings(observer=Observer.MOVING_AVERAGE, momentum=0.5)
    feeds = pixels(3)
    one_by_one = calibrate_products(vilt(), feeds, settings, SEGMENTS, Blocks.EACH)
    at_once = calibrate_products(vilt(), [np.concatenate(feeds)], settings, SEGMENTS, Blocks.EACH)
    for name, sides in one_by_one.items():
        for expected, found in zip(sides, at_once[name], strict=True):
            assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=1e-4)


def test_attention_weights_are_seen_to_lie_within_0_and_1() -> None:
    told: list[tuple[int, int, str]] = []
    seen = calibrate_products(vilt(), pixels(3), MIN_MAX, progress=lambda *news: told.append(news))
    assert [(done, total) for done, total, _ in told] == [(1, 3), (2, 3), (3, 3)]
    for name in VILT_PRODUCTS[1::2]:
        weights, values, _ = seen[name]
        assert 0 == weights.low < weights.high <= 1
        assert values.low < 0 < values.high


@pytest.mark.parametrize("blocks", [Blocks.EACH, Blocks.CROSS])
def test_blocks_on_fine_grids_change_a_fusion_model_little(blocks: Blocks) -> None:
    module, feeds = vilt(), pixels(16)
    errors = {bits: error(module, feeds, quantized(module, feeds, bits, blocks)) for bits in (2, 8)}
    assert 0 < errors[8] < 2e-3
    assert errors[2] > 0.5


def test_the_worst_product_is_known_by_its_loss() -> None:
    module, feeds = clip().component("image_encoder").module, pictures(24)
    fine, coarse = quantized(module, feeds, 8), quantized(module, feeds, 2)
    bad = IMAGE_PRODUCTS[2]
    losses = product_sensitivity(module, feeds, fine | {bad: coarse[bad]})
    assert tuple(losses) == IMAGE_PRODUCTS
    assert max(losses, key=losses.__getitem__) == bad
    rest = tuple(name for name in IMAGE_PRODUCTS if name != bad)
    assert losses[bad] > 20 * max(losses[name] for name in rest)
    assert products_to_quantize(losses) == ()
    assert products_to_quantize(losses, losses[bad]) == rest


def test_blocks_have_losses_of_their_own() -> None:
    module, feeds = vilt(), pixels(8)
    products = quantized(module, feeds, 4, Blocks.CROSS)
    losses = product_sensitivity(module, feeds, products, SEGMENTS)
    assert set(losses) == set(product_shapes(module, feeds[0], SEGMENTS, Blocks.CROSS))
    for name, loss in losses.items():
        # the answer is the text's first place: what the picture makes of the text in the last layer is lost
        unread = ".layer.1." in name and name.endswith("image_text")
        assert (loss == 0) if unread else (0 < loss < 0.5), name


def test_one_sample_says_nothing_of_sensitivity() -> None:
    with pytest.raises(DataError, match="two or more, not 1"):
        product_sensitivity(vilt(), pixels(1), {})


def test_fused_attention_is_refused() -> None:
    config = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    config._attn_implementation = "sdpa"
    model = CLIPVisionModel(config)
    with pytest.raises(DataError, match='self_attn computes .* attn_implementation="eager"'):
        product_shapes(model, pixels(1)[0])
    assert not any(child._forward_hooks or child._forward_pre_hooks for child in model.modules())


class Attention(nn.Module):
    """Of two inputs, by a product that is given."""

    def __init__(self, multiply: Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.multiply = multiply
        self.weight = nn.Parameter(torch.ones(4, 4))

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.multiply(self, left, right)


class Model(nn.Module):
    """Scales both inputs, has them attended to, and multiplies them once more outside."""

    def __init__(self, multiply: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.attn = Attention(multiply)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        attended: torch.Tensor = self.attn(2 * left, 2 * right)
        return attended @ (left + right)


PAIR = (np.ones((1, 4, 4), np.float32), np.ones((1, 4, 4), np.float32))


@pytest.mark.parametrize(
    "multiply",
    [
        lambda _, left, right: left @ right,
        lambda _, left, right: left.matmul(right),
        lambda _, left, right: left.bmm(right),
        lambda _, left, right: torch.bmm(left, mat2=right),
        lambda _, left, right: torch.matmul(input=left, other=right),
    ],
)
def test_every_way_to_multiply_is_seen(multiply: Callable[..., torch.Tensor]) -> None:
    module = Model(multiply)
    assert tuple(product_shapes(module, PAIR)) == ("attn.scores",)
    with intercepted(module, lambda name, left, right: (0 * left, right)):
        assert not run(module, PAIR).any()


@pytest.mark.parametrize(
    "multiply",
    [
        lambda attn, left, right: left @ attn.weight + right,
        lambda attn, left, right: attn.weight.t() @ left + right,
        lambda attn, left, right: torch.einsum("bij,jk->bik", left, attn.weight) + right,
    ],
)
def test_a_product_with_a_weight_is_none_of_two_activations(multiply: Callable[..., torch.Tensor]) -> None:
    assert product_shapes(Model(multiply), PAIR) == {}


@pytest.mark.parametrize(
    "multiply",
    [
        lambda _, left, right: torch.einsum("bij,bjk->bik", left, right),
        lambda _, left, right: torch.einsum("bij,bjk->bik", [left, right]),
        lambda _, left, right: torch.baddbmm(left, left, right),
        lambda _, left, right: nn.MultiheadAttention(4, 1, batch_first=True).eval()(left, right, right)[0],
    ],
)
def test_products_in_other_words_are_refused(multiply: Callable[..., torch.Tensor]) -> None:
    with pytest.raises(DataError, match="attn computes attention in .* torch.matmul"):
        product_shapes(Model(multiply), PAIR)


def test_a_third_product_is_refused() -> None:
    with pytest.raises(DataError, match="attn computes a third product"):
        product_shapes(Model(lambda _, left, right: left @ right @ right @ right), PAIR)


def test_a_forward_that_fails_leaves_no_module_running() -> None:
    fail = [True]

    def multiply(_: nn.Module, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = left @ right
        if fail.pop():
            raise ValueError("once")
        return product

    module, change = Model(multiply), Unchanged()
    with intercepted(module, change):
        with pytest.raises(ValueError, match="once"):
            run(module, PAIR)
        fail.append(False)
        run(module, PAIR)  # the product outside of attention would be its second, were it still running
    assert change.seen == ["attn.scores"] * 2


def test_names_that_no_attention_has_are_refused() -> None:
    module = clip().component("image_encoder").module
    products = quantized(module, pictures(1))
    one = next(iter(products.values()))
    block = block_name(IMAGE_PRODUCTS[0], ("text", "image"))
    for wrong in ("vision_model.encoder.layers.9.self_attn.scores", f"{IMAGE_PRODUCTS[0]}2", block):
        with (
            pytest.raises(DataError, match="is no product"),
            simulated(module, QuantizedComponent({}, {wrong: one})),
        ):
            pass
    both = QuantizedComponent({}, {IMAGE_PRODUCTS[0]: one, block: one})
    with pytest.raises(DataError, match="named beside its block"), simulated(module, both, SEGMENTS):
        pass


def test_segments_that_do_not_fit_the_sequence_are_refused() -> None:
    module, feeds = vilt(), pixels(1)
    products = quantized(module, feeds, blocks=Blocks.CROSS)
    shorter = Segments({"text": TEXT_LENGTH, "image": IMAGE_LENGTH - 1})
    with (
        pytest.raises(DataError, match="not over the 24 positions"),
        simulated(module, QuantizedComponent({}, products), shorter),
    ):
        run(module, feeds[0])
    assert product_shapes(module, feeds[0], shorter, Blocks.EACH) == {}


@pytest.mark.parametrize("lengths", [{}, {"text": 4}, {"text": 4, "image": 0}, {"te.xt": 4, "image": 4}])
def test_segments_that_are_none_are_refused(lengths: dict[str, int]) -> None:
    with pytest.raises(RecipeError, match="segments are"):
        Segments(lengths)


def test_blocks_without_segments_are_refused() -> None:
    with pytest.raises(RecipeError, match="none are given"):
        product_shapes(vilt(), pixels(1)[0], blocks=Blocks.CROSS)


def test_grids_that_products_cannot_have_are_refused() -> None:
    seen = {"attn.scores": RANGES}
    with pytest.raises(RecipeError, match="attn.scores: a product has affine grids"):
        quantize_products({"attn.scores": ProductSpec(ACTIVATION_8, CHANNELS_8)}, seen)
    with pytest.raises(DataError, match="never ran attn.values"):
        quantize_products(specs(("attn.values",)), seen)


def test_calibration_of_products_needs_samples_that_are_whole() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        calibrate_products(vilt(), [])
    broken = pixels(1)[0]
    broken[0, 0, 0, 0] = np.nan
    with pytest.raises(
        DataError, match=r"left operand of model.encoder.layer.0.attention.attention.scores holds"
    ):
        calibrate_products(vilt(), [broken])


def test_quantized_blocks_are_saved_and_come_back(tmp_path: Path) -> None:
    products = quantized(vilt(), pixels(2), 4, Blocks.EACH)
    shapes = product_shapes(vilt(), pixels(1)[0], SEGMENTS, Blocks.EACH)
    QuantizedComponent({}, products, shapes).save(tmp_path)
    again = QuantizedComponent.load(tmp_path)
    assert (again.products, again.product_shapes) == (products, shapes)
