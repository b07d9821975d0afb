"""Both engines run a FastViT: grouped convolutions, squeeze-excite, attention over a feature map."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

pytest.importorskip("timm")

from pocketvl.families.layers.fastvit import deploy_, squeeze_layers, stream_layers
from pocketvl.families.layers.plain import l2_normalize
from pocketvl.lower.backends import BACKENDS, backend_of
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.specification import Mode
from pocketvl.observe.calibrate import calibrate
from pocketvl.observe.settings import CalibrationSettings
from pocketvl.quantize.component import component_spec, quantize_component
from pocketvl.quantize.equalize import equalize_, equalized_calibration, scalable
from pocketvl.quantize.simulate import simulated
from pocketvl_runtime.manifest import Engine, Precision
from tests.families.tiny_fastvit import make_tiny_fastvit
from tests.lower.engines import centred_cosines, run

ENGINES = pytest.mark.parametrize("engine", [*BACKENDS], ids=lambda engine: engine.value)
PRECISIONS = pytest.mark.parametrize(
    "precision", [Precision.INT8, Precision.INT8DYN, Precision.INT4], ids=lambda each: each.value
)


class Encoder(nn.Module):
    """float32 [B, 3, 64, 64] -> [B, 32], L2-normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = make_tiny_fastvit()
        deploy_(self.trunk)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return l2_normalize(self.trunk(pictures))


def pictures(count: int, seed: int) -> NDArray[np.float32]:
    coarse = np.random.default_rng(seed).random((count, 3, 8, 8), np.float32)
    return coarse.repeat(8, axis=2).repeat(8, axis=3)


@cache
def made() -> tuple[Encoder, dict[Precision, QuantizedComponent]]:
    """The equalized module and its integers."""
    module, example = Encoder().eval().requires_grad_(False), torch.zeros(1, 3, 64, 64)
    settings = CalibrationSettings(second_moments=True)
    kept = {name for readers in scalable(module, example) for name in readers.linears}
    seen = calibrate(module, [pictures(16, seed) for seed in range(3)], settings, kept=kept)
    seen = equalized_calibration(seen, equalize_(module, example, seen, settings))
    integers = {
        precision: quantize_component(
            module,
            component_spec(
                module,
                precision,
                (),
                "trunk.head.fc",
                unquantized=stream_layers(module),
                dynamic=squeeze_layers(module),
            ),
            seen,
        )
        for precision in (Precision.INT8, Precision.INT8DYN, Precision.INT4)
    }
    return module, integers


@cache
def float_graph(engine: Engine, folder: Path) -> Path:
    path = folder / f"fp32{backend_of(engine).suffix}"
    backend_of(engine).export(made()[0], {"pictures": torch.zeros(1, 3, 64, 64)}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fastvit")


def test_what_carries_the_stream_stays_in_float_and_the_rest_does_not() -> None:
    module, integers = made()
    every = {name for name, child in module.named_modules() if isinstance(child, nn.Linear | nn.Conv2d)}
    streams = set(stream_layers(module))
    assert len(streams) == 7  # of two RepMixer blocks, the position, two downsamplings, the stem, the last
    assert every - streams == set(integers[Precision.INT8].layers)
    grouped = [name for name in every - streams if getattr(module.get_submodule(name), "groups", 1) > 1]
    assert {name.rpartition(".mlp.")[2] for name in grouped} == {"conv.conv"}  # which equalization evens out
    static = integers[Precision.INT8].layers
    assert {static[name].spec.mode for name in squeeze_layers(module)} == {Mode.DYNAMIC}
    modes = {name: layer.spec.mode for name, layer in integers[Precision.INT8DYN].layers.items()}
    assert modes["trunk.stages.0.blocks.0.mlp.fc1"] is Mode.DYNAMIC
    assert modes["trunk.stages.0.blocks.0.mlp.conv.conv"] is Mode.STATIC


@ENGINES
@torch.no_grad()
def test_floats_are_torch_s(engine: Engine, folder: Path) -> None:
    module, graph = made()[0], float_graph(engine, folder)
    fed = pictures(16, 9)
    wanted, feeds = module(torch.from_numpy(fed)).numpy(), [{"pictures": each[None]} for each in fed]
    assert np.abs(run(graph, feeds) - wanted).max() < 1e-5
    half = graph.with_name(graph.name.replace("fp32", "fp16"))
    backend_of(engine).cast_fp16(graph, half)
    assert np.median(centred_cosines(wanted, run(half, feeds))) > 0.999


@ENGINES
@PRECISIONS
@torch.no_grad()
def test_integers_are_what_torch_simulates(precision: Precision, engine: Engine, folder: Path) -> None:
    (module, integers), graph = made(), float_graph(engine, folder)
    path = graph.with_name(graph.name.replace("fp32", precision.value))
    backend_of(engine).write_quantized(graph, integers[precision], path)
    backend_of(engine).check(path)
    fed = pictures(32, 9)
    wanted = module(torch.from_numpy(fed)).numpy()
    with simulated(module, integers[precision]):
        expected = module(torch.from_numpy(fed)).numpy()

    found = run(path, [{"pictures": each[None]} for each in fed])

    assert np.median(centred_cosines(wanted, found)) > 0.97
    if engine is Engine.ONNX or precision is not Precision.INT8DYN:  # LiteRT's dynamic grids are a row's
        assert np.median(centred_cosines(expected, found)) > 0.995
