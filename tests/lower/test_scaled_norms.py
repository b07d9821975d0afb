"""LayerNorms that scale keep their scale in every format: the linears' weights are the module's own."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from pocketvl.families import open_checkpoint
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.quantized import write_quantized_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.graph import op_name, read_tflite
from pocketvl.lower.tflite.quantized import write_quantized_tflite
from pocketvl.network.integers import QuantizedComponent, QuantizedLayer
from pocketvl.network.specification import CHANNELS_8, INT8_STATIC, INT8_TABLE
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings, Observer
from pocketvl.quantize.arithmetic import activation_grid, quantize_bias, quantize_weights, weight_scale
from pocketvl.quantize.equalize import equalize_
from pocketvl.quantize.equalized import Equalized
from pocketvl.quantize.fold import fold_
from tests.families.tiny import make_tiny_clip
from tests.lower.engines import centred_cosines, run
from tests.lower.lowered import samples
from tests.quantize.outliers import plant_outliers_

FORMATS = ("onnx", "tflite")
TABLE = "text_model.embeddings.token_embedding"
_KEPT: list[tempfile.TemporaryDirectory[str]] = []


@dataclass(frozen=True, eq=False)
class Equalised:
    """A text tower with outlier channels before and after equalisation, and `<kind>.<format>` of both.

    Kinds: "plain" and "plain8" before, "equal" and "equal8" after; 8 for int8.
    """

    module: nn.Module
    decided: tuple[Equalized, ...]
    folder: Path


def rounded(module: nn.Module, feeds: list[NDArray[np.generic]]) -> QuantizedComponent:
    """Static int8 of all layers, weights to their nearest."""
    table = module.get_submodule(TABLE).get_parameter("weight").detach().numpy()
    scale = weight_scale(table, CHANNELS_8)
    layers = {TABLE: QuantizedLayer(INT8_TABLE, quantize_weights(table, scale, CHANNELS_8), scale)}
    for name, seen in calibrate(module, feeds, CalibrationSettings(Observer.MIN_MAX)).layers.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        weight, inputs = layer.weight.detach().numpy(), activation_grid(seen.input)
        scale = weight_scale(weight, CHANNELS_8)
        steps = (
            None if layer.bias is None else quantize_bias(layer.bias.detach().numpy(), inputs.scale, scale)
        )
        integers = quantize_weights(weight, scale, CHANNELS_8)
        layers[name] = QuantizedLayer(
            INT8_STATIC, integers, scale, steps, inputs, activation_grid(seen.output)
        )
    return QuantizedComponent(layers)


@cache
def equalised() -> Equalised:
    """Made at the first call."""
    _KEPT.append(tempfile.TemporaryDirectory(prefix="equalised-"))
    folder = Path(_KEPT[0].name)
    module = (
        open_checkpoint(make_tiny_clip(folder / "tiny"))
        .component("text_encoder")
        .module.requires_grad_(False)
    )
    feeds = [feed["ids"] for feed in samples("ids", 64, 1)]
    example = torch.from_numpy(feeds[0])
    fold_(module, example)
    plant_outliers_(module, example, list(range(0, 32, 4)), 20)
    decided: tuple[Equalized, ...] = ()
    for kind in ("plain", "equal"):
        if kind == "equal":
            settings = CalibrationSettings(second_moments=True)
            linears = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
            seen = calibrate(module, feeds, settings, kept=linears)
            decided = equalize_(module, example, seen)
        export_onnx(module, {"ids": example}, folder / f"{kind}.onnx")
        export_tflite(module, {"ids": example}, folder / f"{kind}.tflite")
        component = rounded(module, feeds)
        write_quantized_onnx(folder / f"{kind}.onnx", component, folder / f"{kind}8.onnx")
        write_quantized_tflite(folder / f"{kind}.tflite", component, folder / f"{kind}8.tflite")
    return Equalised(module, decided, folder)


def tflite_linears(path: Path) -> dict[str, NDArray[np.float32]]:
    model = read_tflite(path)
    (graph,) = model.subgraphs
    found = {}
    for op in graph.operators:
        if op_name(model, op) == "FULLY_CONNECTED":
            weight = graph.tensors[op.inputs[1]]
            content = bytes(model.buffers[weight.buffer].data)
            found[weight.name.decode()] = np.frombuffer(content, np.float32).reshape(weight.shape)
    return found


def onnx_linears(path: Path) -> dict[str, NDArray[np.float32]]:
    graph = onnx.load(path).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return {
        node.input[1]: stored[node.input[1]].T
        if all(a.name != "transB" or not a.i for a in node.attribute)
        else stored[node.input[1]]
        for node in graph.node
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in stored
    }


def linears_of(path: Path) -> dict[str, NDArray[np.float32]]:
    return onnx_linears(path) if path.suffix == ".onnx" else tflite_linears(path)


@pytest.mark.parametrize("suffix", FORMATS)
def test_linears_keep_the_modules_weights_and_names(suffix: str) -> None:
    model = equalised()
    assert all(one.strength is not None for one in model.decided)
    expected = {
        f"{name}.weight": child.weight.detach().numpy()
        for name, child in model.module.named_modules()
        if isinstance(child, nn.Linear)
    }
    found = linears_of(model.folder / f"equal.{suffix}")
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


@pytest.mark.parametrize("suffix", FORMATS)
def test_float_graphs_give_torchs_answers(suffix: str) -> None:
    model, feeds = equalised(), samples("ids", 16, 2)
    with torch.no_grad():
        expected = np.concatenate([model.module(torch.from_numpy(feed["ids"])).numpy() for feed in feeds])
    assert np.abs(run(model.folder / f"equal.{suffix}", feeds) - expected).max() < 1e-5


@pytest.mark.parametrize("suffix", FORMATS)
def test_int8_is_much_nearer_with_equalisation(suffix: str) -> None:
    model, feeds = equalised(), samples("ids", 64, 5)
    expected = run(model.folder / f"plain.{suffix}", feeds)
    without, equal = (
        1 - np.median(centred_cosines(expected, run(model.folder / f"{kind}8.{suffix}", feeds)))
        for kind in ("plain", "equal")
    )
    assert equal < 0.6 * without
    assert equal < 0.01


def test_onnx_keeps_each_scale_in_its_layer_normalization() -> None:
    model = equalised()
    scales = {
        f"{one.norm}.weight": model.module.get_parameter(f"{one.norm}.weight").numpy()
        for one in model.decided
    }
    graph = onnx.load(model.folder / "equal.onnx").graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    assert {node.input[1] for node in norms} == set(scales)
    assert len(norms) == 6 == len(scales) + 1  # the last layer's first is of one position and of all
    for node in norms:
        np.testing.assert_array_equal(stored[node.input[1]], scales[node.input[1]])


class Normed(nn.Module):
    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm, self.linear = norm, nn.Linear(6, 4)
        with torch.no_grad():
            random = torch.Generator().manual_seed(3)
            self.linear.weight.copy_(torch.randn(4, 6, generator=random))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.linear(self.norm(x))
        return y


class Widened(nn.LayerNorm):
    """Normalises in float32 whatever comes, as some models' LayerNorms do."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide = functional.layer_norm(x.float(), self.normalized_shape, self.weight, self.bias, self.eps)
        return wide.to(x.dtype)


@pytest.mark.parametrize("kind", [nn.LayerNorm, Widened])
@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_scale_and_shift_stay_in_the_norm(kind: type[nn.LayerNorm], shift: float, tmp_path: Path) -> None:
    module = Normed(kind(6)).eval()
    with torch.no_grad():
        module.norm.weight.copy_(torch.linspace(0.1, 10, 6))
        module.norm.bias.fill_(shift)
    x = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(4))
    export_tflite(module, {"x": x}, tmp_path / "g.tflite")
    (found,) = tflite_linears(tmp_path / "g.tflite").values()
    np.testing.assert_array_equal(found, module.linear.weight.detach().numpy())
    expected = module(x).detach().numpy()
    assert np.abs(run(tmp_path / "g.tflite", [{"x": x.numpy()}]) - expected).max() < 1e-5


def test_the_module_computes_as_before_afterwards(tmp_path: Path) -> None:
    module = Normed(nn.LayerNorm(6)).eval()
    with torch.no_grad():
        module.norm.weight.fill_(3)
    original = functional.layer_norm
    export_tflite(module, {"x": torch.ones(1, 6)}, tmp_path / "g.tflite")
    assert "forward" not in vars(module.norm)
    assert functional.layer_norm is original


def test_a_norm_that_does_not_scale_multiplies_by_no_constant(tmp_path: Path) -> None:
    module = Normed(nn.LayerNorm(6)).eval()
    export_tflite(module, {"x": torch.ones(1, 6)}, tmp_path / "plain.tflite")
    model = read_tflite(tmp_path / "plain.tflite")
    kinds = [op_name(model, op) for op in model.subgraphs[0].operators]
    assert kinds == ["MEAN", "SUB", "MUL", "MEAN", "ADD", "RSQRT", "MUL", "FULLY_CONNECTED"]
