"""Layers of every form and components that mix them: the same integers in both files, run by both engines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower.backends import BACKENDS, backend_of_file
from pocketvl.lower.onnx.graph import op_counts_onnx
from pocketvl.lower.onnx.quantized import packed_blocks
from pocketvl.lower.tflite.graph import read_tflite
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedLayer, QuantizedProduct
from pocketvl.network.specification import (
    ACTIVATION_8,
    BLOCKS_4,
    CHANNELS_8,
    INT4_DYNAMIC,
    INT8_DYNAMIC,
    Granularity,
    LayerSpec,
    Mode,
    ProductSpec,
    Scheme,
)
from pocketvl.quantize.arithmetic import (
    least_weight_scale,
    quantize_bias,
    quantize_weights,
    weight_scale,
)
from pocketvl.quantize.fake import fake_quantize_dynamic
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.manifest import Engine
from tests.lower.engines import run, run_onnx
from tests.lower.lowered import COMPONENTS, FLOATS, lowered, samples
from tests.lower.readers import (
    FORMATS,
    INT8_WIDENED,
    MIXED,
    WRITE,
    in_forms,
    onnx_integers,
    tflite_integers,
    unpacked,
)

TENSOR_8 = replace(CHANNELS_8, granularity=Granularity.PER_TENSOR)
AFFINE_4 = replace(BLOCKS_4, scheme=Scheme.AFFINE)
SPECS = {
    "dynamic": (INT8_DYNAMIC,),
    "int4": (INT4_DYNAMIC,),
    "widened": (INT8_WIDENED,),
    "mixed": MIXED,
    "tensor-dynamic": (LayerSpec(Mode.DYNAMIC, TENSOR_8),),
    "tensor-widened": (LayerSpec(Mode.WEIGHT_ONLY, TENSOR_8),),
}
FREE_BLOCKS = {
    "int2": (LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=2)),),
    "int8-blocks": (LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=8)),),
    "affine-int2": (LayerSpec(Mode.DYNAMIC, replace(AFFINE_4, bits=2)),),
    "affine-int4": (LayerSpec(Mode.DYNAMIC, AFFINE_4),),
    "affine-int8": (LayerSpec(Mode.DYNAMIC, replace(AFFINE_4, bits=8)),),
    "int4-widened": (LayerSpec(Mode.WEIGHT_ONLY, BLOCKS_4),),
    "affine-int2-widened": (LayerSpec(Mode.WEIGHT_ONLY, replace(AFFINE_4, bits=2)),),
}
WRITTEN = [(mode, kind) for mode in (*SPECS, "tensor-static") for kind in FORMATS] + [
    (mode, "onnx") for mode in FREE_BLOCKS
]


@cache
def component_of(component: str, mode: str) -> QuantizedComponent:
    """Linears as the mode says, the convolution static and the table's rows in int8; mixed: some in float."""
    static = lowered().integers(component)
    if mode == "tensor-static":
        return per_tensor(lowered().module(component), static)
    specs = {**SPECS, **FREE_BLOCKS}[mode]
    linears_only = mode not in ("widened", "tensor-widened")
    return in_forms(lowered().module(component), static, specs, linears_only=linears_only)


def per_tensor(module: nn.Module, static: QuantizedComponent) -> QuantizedComponent:
    """A static component whose layers have one scale each for their weights."""
    layers = {}
    for name, layer in static.layers.items():
        if layer.input is not None:
            weights, bias = module.get_parameter(f"{name}.weight").detach().numpy(), layer.float_bias()
            least = 0.0 if bias is None else least_weight_scale(bias, layer.input.scale)
            scale = weight_scale(weights, TENSOR_8, least)
            assert len(scale) == len(weights)
            assert len(set(scale.tolist())) == 1
            steps = None if bias is None else quantize_bias(bias, layer.input.scale, scale)
            spec, integers = replace(layer.spec, weights=TENSOR_8), quantize_weights(weights, scale, TENSOR_8)
            layers[name] = replace(layer, spec=spec, weights=integers, scale=scale, bias=steps)
    return QuantizedComponent(layers)


@cache
def written(component: str, mode: str, kind: str) -> Path:
    path = lowered().path(component, f"{mode}.{kind}")
    if not path.exists():
        WRITE[kind](lowered().path(component, f"fp32.{kind}"), component_of(component, mode), path)
    return path


def blockwise(values: torch.Tensor, size: int = 32) -> torch.Tensor:
    """Values on the symmetric 8-bit grid of each block: what MatMulNBits does to its input."""
    blocks = values.reshape(*values.shape[:-1], -1, size)
    scale = (blocks.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-30)
    return (torch.round(blocks / scale) * scale).reshape(values.shape)


def rowwise(values: torch.Tensor) -> torch.Tensor:
    """Values on the affine 8-bit grid of each row: what LiteRT does to a dynamic layer's input."""
    return fake_quantize_dynamic(values.reshape(-1, values.shape[-1])).reshape(values.shape)


@contextmanager
def computing_as(module: nn.Module, component: QuantizedComponent, kind: str) -> Iterator[None]:
    """Like `simulated`, but with the very grids that an engine finds for dynamic inputs."""
    weights_only = {
        name: replace(layer, spec=LayerSpec(Mode.WEIGHT_ONLY, layer.spec.weights))
        if layer.spec.mode is Mode.DYNAMIC
        else layer
        for name, layer in component.layers.items()
    }
    with ExitStack() as stack:
        stack.enter_context(simulated(module, QuantizedComponent(weights_only)))
        for name, layer in component.layers.items():
            if layer.spec.mode is Mode.DYNAMIC:
                in_blocks = layer.spec.weights.granularity is Granularity.PER_GROUP
                onnx_grid = blockwise if in_blocks else fake_quantize_dynamic
                put = rowwise if kind == "tflite" else onnx_grid
                hook = module.get_submodule(name).register_forward_pre_hook(lambda _, x, put=put: put(x[0]))
                stack.callback(hook.remove)
        yield


def embeddings(component: str, feeds: list[dict[str, NDArray[Any]]]) -> FLOATS:
    return np.concatenate([lowered().torch_embedding(component, feed[component]) for feed in feeds])


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(("mode", "kind"), WRITTEN)
def test_engines_compute_what_torch_simulates(component: str, mode: str, kind: str) -> None:
    """Dynamic grids are finer in the engines than simulated; on the engines' own, only ties differ."""
    feeds, integers = samples(component, 32, 5), component_of(component, mode)
    module = lowered().module(component)
    plain = embeddings(component, feeds)
    with simulated(module, integers):
        simulation = embeddings(component, feeds)
    with computing_as(module, integers, kind):
        expected = embeddings(component, feeds)
    found = run(written(component, mode, kind), feeds)
    moved = np.median(np.abs(plain - expected).max(axis=1))
    assert np.median(np.abs(found - expected).max(axis=1)) < 0.1 * moved
    assert np.abs(found - simulation).max() < 0.03


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(("mode", "kind"), WRITTEN)
def test_files_hold_the_integers_that_left_torch(component: str, mode: str, kind: str) -> None:
    expected = component_of(component, mode)
    read = onnx_integers if kind == "onnx" else tflite_integers
    found = read(written(component, mode, kind), expected)
    assert found.keys() == expected.layers.keys()
    for name, layer in expected.layers.items():
        np.testing.assert_array_equal(found[name].weights, layer.weights, err_msg=name)
        np.testing.assert_array_equal(found[name].scale, layer.scale, err_msg=name)
        assert _listed(found[name].zero_point) == _listed(layer.zero_point), name
        if layer.bias is not None:
            bias = found[name].bias
            assert bias is not None
            np.testing.assert_array_equal(bias, layer.bias, err_msg=name)
            assert bias.dtype == layer.bias.dtype


def _listed(values: NDArray[np.uint8] | None) -> object:
    return None if values is None else values.tolist()


@pytest.mark.parametrize("component", COMPONENTS)
def test_layers_that_the_component_does_not_name_stay_in_float(component: str) -> None:
    module, quantized_names = lowered().module(component), component_of(component, "mixed").layers
    floats = {
        f"{name}.weight": child.weight.detach().numpy()
        for name, child in module.named_modules()
        if isinstance(child, nn.Linear) and name not in quantized_names
    }
    assert len(floats) == 3
    stored = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load(written(component, "mixed", "onnx")).graph.initializer
    }
    model = read_tflite(written(component, "mixed", "tflite"))
    tensors = {tensor.name.decode(): tensor for tensor in model.subgraphs[0].tensors}
    for name, weights in floats.items():
        assert any(np.array_equal(stored[name], each) for each in (weights, weights.T))
        content = np.asarray(model.buffers[tensors[name].buffer].data).view(np.float32)
        np.testing.assert_array_equal(content.reshape(tensors[name].shape), weights)


@pytest.mark.parametrize("component", COMPONENTS)
def test_onnxruntime_multiplies_integers_in_dynamic_layers(component: str, tmp_path: Path) -> None:
    for mode in ("dynamic", "int4", "widened"):
        run_onnx(
            written(component, mode, "onnx"), samples(component, 1, 0), optimized=tmp_path / f"{mode}.onnx"
        )
    dynamic, blocks, widened = (
        op_counts_onnx(tmp_path / f"{mode}.onnx") for mode in ("dynamic", "int4", "widened")
    )
    fused = ("com.microsoft::MatMulIntegerToFloat", "com.microsoft::DynamicQuantizeMatMul")
    assert sum(dynamic.get(name, 0) for name in fused) == 13
    assert "MatMulInteger" not in dynamic
    assert blocks["com.microsoft::MatMulNBits"] == widened["Gemm"] == 13
    assert not {"com.microsoft::MatMulNBits", "DequantizeLinear"} & widened.keys()
    assert op_counts_onnx(written(component, "int4", "onnx"))["com.microsoft::MatMulNBits"] == 13


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_files_shrink_with_the_bits_of_their_weights(component: str, kind: str) -> None:
    whole = lowered().path(component, f"fp32.{kind}").stat().st_size
    dynamic, blocks = (written(component, mode, kind).stat().st_size for mode in ("dynamic", "int4"))
    linears = sum(
        child.weight.numel()
        for child in lowered().module(component).modules()
        if isinstance(child, nn.Linear)
    )
    assert whole - dynamic > 2 * linears
    # half a byte less a weight, 2 or 4 bytes more a block of 32, none for a channel's scale or zero point
    assert dynamic - blocks > 0.25 * linears


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("kind", FORMATS)
def test_the_same_component_gives_the_same_bytes(component: str, kind: str, tmp_path: Path) -> None:
    backwards = QuantizedComponent(dict(reversed(list(component_of(component, "mixed").layers.items()))))
    WRITE[kind](lowered().path(component, f"fp32.{kind}"), backwards, tmp_path / f"again.{kind}")
    first = written(component, "mixed", kind)
    assert (tmp_path / f"again.{kind}").read_bytes() == first.read_bytes()
    backend = backend_of_file(first)
    assert backend.graph_io(first) == backend.graph_io(lowered().path(component, f"fp32.{kind}"))
    backend.check_ops(first)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_component_without_layers_is_the_float_graph(kind: str, tmp_path: Path) -> None:
    feeds = samples("ids", 4, 0)
    WRITE[kind](lowered().path("ids", f"fp32.{kind}"), QuantizedComponent({}), tmp_path / f"g.{kind}")
    floats = run(lowered().path("ids", f"fp32.{kind}"), feeds)
    np.testing.assert_array_equal(run(tmp_path / f"g.{kind}", feeds), floats)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_layer_that_the_graph_lacks_is_named(kind: str, tmp_path: Path) -> None:
    layer = next(iter(component_of("ids", "dynamic").layers.values()))
    with pytest.raises(LoweringError, match=r"1 layers, no\.such for one"):
        WRITE[kind](
            lowered().path("ids", f"fp32.{kind}"), QuantizedComponent({"no.such": layer}), tmp_path / "g"
        )


ACTIVATION_4 = replace(ACTIVATION_8, bits=4)
CHANNELS_4, CHANNELS_3 = replace(CHANNELS_8, bits=4), replace(CHANNELS_8, bits=3)
LINEAR, TABLE = "text_projection", "text_model.embeddings.token_embedding"
CONVOLUTION = "vision_model.embeddings.patch_embedding"


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        (LINEAR, LayerSpec(Mode.DYNAMIC, CHANNELS_3), "dynamic, weights of 3 bits per channel"),
        (LINEAR, LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=3)), "3 bits per group of 32"),
        (LINEAR, LayerSpec(Mode.WEIGHT_ONLY, CHANNELS_4), "weight-only, weights of 4 bits per channel"),
        (LINEAR, LayerSpec(Mode.STATIC, BLOCKS_4, ACTIVATION_8, ACTIVATION_8), "4 bits per group of 32"),
        (LINEAR, LayerSpec(Mode.STATIC, CHANNELS_4, ACTIVATION_8, ACTIVATION_8), "weights of 4 bits"),
        (LINEAR, LayerSpec(Mode.STATIC, CHANNELS_8, ACTIVATION_4, ACTIVATION_8), "input of 4 bits"),
        (LINEAR, LayerSpec(Mode.STATIC, CHANNELS_8, ACTIVATION_8, ACTIVATION_4), "output of 4 bits"),
        (TABLE, INT8_DYNAMIC, "dynamic, weights of 8 bits per channel, which no engine runs in"),
    ],
)
def test_what_no_engine_runs_is_named(
    kind: str, name: str, spec: LayerSpec, said: str, tmp_path: Path
) -> None:
    layer = replace(lowered().integers("ids").layers[name], spec=spec)
    with pytest.raises(LoweringError, match=f"^{name} is .*{said}.*float are lowered$"):
        WRITE[kind](lowered().path("ids", f"fp32.{kind}"), QuantizedComponent({name: layer}), tmp_path / "g")


@pytest.mark.parametrize("kind", FORMATS)
def test_products_and_scales_that_would_be_rounded_are_refused(kind: str, tmp_path: Path) -> None:
    source = lowered().path("ids", f"fp32.{kind}")
    grid = ActivationGrid(0.1, 2, bits=6)
    narrow = replace(ACTIVATION_8, bits=6)
    product = QuantizedProduct(ProductSpec(narrow, narrow), grid, grid)
    with pytest.raises(LoweringError, match=r"^attention\.scores is a product of two .* 8 bits alone"):
        WRITE[kind](source, QuantizedComponent({}, {"attention.scores": product}), tmp_path / "g")
    layer = component_of("ids", "int4").layers[LINEAR]
    for step in (2**-9, 2**-12):  # a number of fp16 but not of bfloat16, and of neither
        component = QuantizedComponent({LINEAR: replace(layer, scale=layer.scale * np.float32(1 + step))})
        with pytest.raises(LoweringError, match=f"^{LINEAR}: .*16 bits"):
            WRITE[kind](source, component, tmp_path / "g")


@given(st.sampled_from((2, 4, 8)), st.data())
def test_packed_blocks_hold_every_weight(bits: int, data: st.DataObject) -> None:
    most = (1 << (bits - 1)) - 1
    weights = data.draw(arrays.arrays(np.int8, (3, 64), elements=st.integers(-most, most)))
    spec = LayerSpec(Mode.DYNAMIC, replace(BLOCKS_4, bits=bits))
    packed = packed_blocks(QuantizedLayer(spec, weights, np.ones((3, 2), np.float32)))
    assert packed.shape == (3, 2, 4 * bits)
    np.testing.assert_array_equal(unpacked(packed, bits).reshape(3, 64) - most - 1, weights)
    zeros = data.draw(arrays.arrays(np.uint8, (3, 2), elements=st.integers(0, 2 * most + 1)))
    stored = data.draw(arrays.arrays(np.int16, (3, 2, 32), elements=st.integers(0, 2 * most + 1)))
    steps = (stored - zeros[..., None]).reshape(3, 64)
    layer = QuantizedLayer(spec, steps, np.ones((3, 2), np.float32), zero_point=zeros)
    np.testing.assert_array_equal(unpacked(packed_blocks(layer), bits), stored)


@pytest.mark.parametrize("mode", FREE_BLOCKS)
def test_litert_says_which_blocks_it_does_not_run(mode: str, tmp_path: Path) -> None:
    component, source = component_of("ids", mode), lowered().path("ids", "fp32.tflite")
    spec = FREE_BLOCKS[mode][0]
    zeros = " with a zero point" if spec.weights.scheme is Scheme.AFFINE else ""
    weights = f"weights of {spec.weights.bits} bits per group of 32{zeros}"
    said = f"{weights}, which LiteRT does not run: it runs blocks, dynamic, static, widened"
    with pytest.raises(LoweringError, match=said):
        BACKENDS[Engine.TFLITE].write_quantized(source, component, tmp_path / "g")
