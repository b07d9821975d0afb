"""Products of two activations in 8 bits: found in graphs of both engines, and as torch simulates them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import LoweringError, RecipeError
from pocketvl.families import open_checkpoint
from pocketvl.families.base import Component
from pocketvl.families.layers.block_attention import block_attentions_
from pocketvl.families.layers.segments import Blocks, Segments
from pocketvl.families.layers.split_attention import Block, split_attentions_
from pocketvl.lower.backends import backend_of
from pocketvl.lower.products import matched
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedProduct
from pocketvl.network.specification import ACTIVATION_8, INT8_PRODUCT, ProductSpec, Range
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.arithmetic import activation_grid
from pocketvl.quantize.fake import fake_quantize
from pocketvl.quantize.products import calibrate_products, product_shapes, quantize_products
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.manifest import Engine
from tests.families.test_conformance import RUN
from tests.families.vilt_folder import LAYER, make_vilt_folder, vilt_inputs
from tests.lower.engines import run

COUNT = 16
GRID = ActivationGrid(0.1, 128)
Floats = NDArray[np.float32]


class Product(nn.Module):
    """One product, of what ops before it gave."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return torch.matmul(left * 1.5, right * 0.5) + 1.0


def grid_of(values: torch.Tensor) -> ActivationGrid:
    return activation_grid(Range(float(values.min()), float(values.max())))


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_a_product_is_off_by_one_step_at_most(engine: Engine, shift: float, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    left, right = (
        torch.randn(shape, generator=generator) + shift for shape in ((1, 5, 33, 16), (1, 5, 16, 21))
    )
    grids = [grid_of(each) for each in (left * 1.5, right * 0.5, (left * 1.5) @ (right * 0.5))]
    first, second, output = grids
    component = QuantizedComponent(
        {}, {"a.scores": QuantizedProduct(INT8_PRODUCT, first, second, output)}, {"a.scores": (33, 16, 21)}
    )
    backend = backend_of(engine)
    source, target = (tmp_path / f"{name}{backend.suffix}" for name in ("float", "int8"))
    backend.export(Product().eval(), {"left": left, "right": right}, source)
    backend.write_quantized(source, component, target)
    backend.check(target)
    got = run(target, [{"left": left.numpy(), "right": right.numpy()}])
    simulated = (
        fake_quantize(fake_quantize(left * 1.5, first) @ fake_quantize(right * 0.5, second), output) + 1
    )
    steps = np.abs(got - simulated.numpy()) / output.scale
    assert steps.max() < 1.01
    assert (steps > 0.5).mean() < 0.01  # LiteRT's multiplier is of fewer bits


@cache
def fusion() -> Component:
    with TemporaryDirectory() as folder:
        return open_checkpoint(make_vilt_folder(Path(folder) / "vilt")).component("fusion")


def segments() -> Segments:
    (stack,) = fusion().stacks
    assert stack.segments is not None
    return stack.segments


def feeds() -> list[tuple[NDArray[np.generic], ...]]:
    pixels, ids = (values.numpy() for values in vilt_inputs(COUNT))
    return [(pixels[i : i + 1], ids[i : i + 1]) for i in range(COUNT)]


def answers(module: nn.Module) -> Floats:
    with torch.no_grad():
        rows = [module(*map(torch.from_numpy, feed)).numpy() for feed in feeds()]
    return np.concatenate(rows)


def quantized(blocks: Blocks) -> QuantizedComponent:
    """Its products alone: every op beside them stays in float."""
    module = fusion().module
    seen = calibrate_products(module, feeds(), CalibrationSettings(), segments(), blocks)
    every = Blocks.WHOLE if blocks is Blocks.WHOLE else Blocks.EACH
    return QuantizedComponent(
        {},
        quantize_products(dict.fromkeys(seen, INT8_PRODUCT), seen),
        product_shapes(module, feeds()[0], segments(), every),
    )


@pytest.fixture(scope="module")
def float_graphs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[bool, Engine], Path]:
    """By whether attention is in blocks, and engine."""
    folder, found = tmp_path_factory.mktemp("graphs"), {}
    pixels, ids = vilt_inputs(1)
    with TemporaryDirectory() as source:
        opened = open_checkpoint(make_vilt_folder(Path(source) / "vilt"))
    for in_blocks in (False, True):
        module = opened.component("fusion").module
        if in_blocks:
            block_attentions_(module, segments())
        for engine in Engine:
            backend = backend_of(engine)
            path = folder / f"{in_blocks}{backend.suffix}"
            backend.export(module, {"pixels": pixels, "ids": ids}, path, ("logits",))
            found[in_blocks, engine] = path
    return found


@pytest.mark.parametrize("engine", Engine)
@pytest.mark.parametrize("blocks", Blocks)
def test_attention_computes_what_torch_simulates(
    blocks: Blocks, engine: Engine, float_graphs: dict[tuple[bool, Engine], Path], tmp_path: Path
) -> None:
    """Its text is as long as a head is wide, so that shapes alone tell few blocks apart."""
    component, backend = quantized(blocks), backend_of(engine)
    plain = answers(fusion().module)
    with simulated(fusion().module, component, segments()):
        expected = answers(fusion().module)
    target = tmp_path / f"int8{backend.suffix}"
    backend.write_quantized(float_graphs[blocks is not Blocks.WHOLE, engine], component, target)
    backend.check(target)
    inputs = (dict(zip(("pixels", "ids"), feed, strict=True)) for feed in feeds())
    got = RUN[engine](target, inputs, "logits")
    moved, off = (np.sqrt(np.square(each - expected).mean()) for each in (plain, got))
    assert off < (1e-5 if engine is Engine.ONNX else 0.7 * moved)
    assert moved > 1e-3


@pytest.mark.parametrize("engine", Engine)
def test_a_graph_of_other_products_is_refused(
    engine: Engine, float_graphs: dict[tuple[bool, Engine], Path], tmp_path: Path
) -> None:
    whole, cross = quantized(Blocks.WHOLE), quantized(Blocks.CROSS)
    for component, graph in ((whole, True), (cross, False)):
        with pytest.raises(LoweringError, match="holds (no|a) product"):
            backend_of(engine).write_quantized(float_graphs[graph, engine], component, tmp_path / "g")


def test_products_that_the_module_does_not_have_are_refused() -> None:
    product = QuantizedProduct(INT8_PRODUCT, GRID, GRID, GRID)
    component = QuantizedComponent({}, {"b.scores": product}, {"a.scores": (2, 3, 4)})
    with pytest.raises(LoweringError, match=r"b\.scores is quantized, and is none"):
        matched(component, [((2, 3, 4), "node")], "graph")


def test_litert_needs_a_grid_for_what_comes_out(
    float_graphs: dict[tuple[bool, Engine], Path], tmp_path: Path
) -> None:
    whole = quantized(Blocks.WHOLE)
    name = next(iter(whole.products))
    product = QuantizedProduct(ProductSpec(ACTIVATION_8, ACTIVATION_8), GRID, GRID)
    component = QuantizedComponent({}, {name: product}, whole.product_shapes)
    with pytest.raises(LoweringError, match="LiteRT multiplies .* an output needs a grid"):
        backend_of(Engine.TFLITE).write_quantized(
            float_graphs[False, Engine.TFLITE], component, tmp_path / "g"
        )
    target = tmp_path / "g.onnx"
    backend_of(Engine.ONNX).write_quantized(float_graphs[False, Engine.ONNX], component, target)
    assert backend_of(Engine.ONNX).op_counts(target)["DequantizeLinear"] == 2


def test_attention_in_blocks_answers_as_before_and_keeps_its_weights() -> None:
    with TemporaryDirectory() as folder:
        module = open_checkpoint(make_vilt_folder(Path(folder) / "vilt")).component("fusion").module
    before, names = answers(module), list(module.state_dict())
    block_attentions_(module, segments())
    np.testing.assert_allclose(answers(module), before, atol=1e-5)
    assert list(module.state_dict()) == names


def test_attention_that_lost_blocks_has_no_whole_products() -> None:
    with TemporaryDirectory() as folder:
        module = open_checkpoint(make_vilt_folder(Path(folder) / "vilt")).component("fusion").module
    split_attentions_(module, segments(), [Block(f"{LAYER}.0.attention.attention", "text", "image", 0)])
    with pytest.raises(RecipeError, match="SplitAttention is no whole attention"):
        block_attentions_(module, segments())
