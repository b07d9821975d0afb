"""Every engine has a whole backend, and none stands in for another."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower import backends
from pocketvl.lower.backends import BACKENDS, backend_of, backend_of_file
from pocketvl.lower.forms import Form
from pocketvl.lower.onnx.backend import OnnxBackend
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.specification import INT8_DYNAMIC
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision
from tests.lower.engines import run
from tests.lower.lowered import lowered, samples
from tests.lower.readers import quantized


def test_every_engine_has_its_own_backend_and_its_tools_are_installed() -> None:
    assert list(BACKENDS) == list(Engine)
    for engine, backend in BACKENDS.items():
        assert backend.engine is engine
        assert backend.forms
        for tool in (*backend.tools, backend.runtime):
            assert importlib.metadata.version(tool)
    assert len({backend.suffix for backend in BACKENDS.values()}) == len(BACKENDS)


@pytest.mark.parametrize("engine", Engine)
def test_a_file_is_its_engines(engine: Engine) -> None:
    path = lowered().path("ids", f"fp32.{engine.value}")
    assert backend_of_file(path) is backend_of(engine)
    assert backend_of_file(path).graph_io(path).signature == (
        "serving_default" if engine is Engine.TFLITE else None
    )


def test_an_engine_without_a_backend_falls_into_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "BACKENDS", {Engine.ONNX: BACKENDS[Engine.ONNX]})
    with pytest.raises(LoweringError, match="nothing lowers to .*tflite.*pocketvl.lower"):
        backend_of(Engine.TFLITE)
    with pytest.raises(LoweringError, match=r"graph\.tflite is not a graph file: .*\.onnx"):
        backend_of_file(Path("graph.tflite"))


def test_forms_that_an_engine_does_not_run_are_refused(tmp_path: Path) -> None:
    class WithoutDynamic(OnnxBackend):
        forms = frozenset({Form.STATIC, Form.WIDENED})

    module = lowered().module("pixels")
    name = next(name for name, child in module.named_modules() if isinstance(child, nn.Linear))
    component = QuantizedComponent({name: quantized(module, name, INT8_DYNAMIC)})
    source, target = lowered().path("pixels", "fp32.onnx"), tmp_path / "q.onnx"
    with pytest.raises(
        LoweringError, match="8 bits per channel, which ONNX Runtime does not run: it runs static"
    ):
        WithoutDynamic().write_quantized(source, component, target)
    OnnxBackend().write_quantized(source, component, target)
    assert run(target, samples("pixels", 1, 0)).shape[0] == 1


class TakesTwoGivesTwo(nn.Module):
    """A table's rows beside a linear, as a model that fuses reads pixels and ids."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.linear = nn.Embedding(8, 4), nn.Linear(3, 4)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        both = self.table(ids).sum(1) + self.linear(pixels)
        return both, both.amax(-1, keepdim=True)


@pytest.mark.parametrize("engine", Engine)
def test_graphs_take_and_give_several_tensors_by_name(engine: Engine, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = TakesTwoGivesTwo().eval()
    examples = {"pixels": torch.randn(1, 3), "ids": torch.tensor([[1, 5]], dtype=torch.int32)}
    path = tmp_path / f"graph.{engine.value}"
    backend_of(engine).export(module, examples, path, ("fused", "best"))
    backend_of(engine).check(path)
    tensors = backend_of(engine).graph_io(path)
    assert {spec.name: spec.shape for spec in tensors.inputs} == {"pixels": (1, 3), "ids": (1, 2)}
    assert {spec.name: spec.shape for spec in tensors.outputs} == {"fused": (1, 4), "best": (1, 1)}
    spec = GraphSpec("image_encoder", engine, Precision.FP32, "graphs/x", tensors.inputs, tensors.outputs)
    opened = open_backend(spec, path.read_bytes(), 1)
    found = opened.run({name: example.numpy() for name, example in examples.items()})
    with torch.inference_mode():
        for name, expected in zip(("fused", "best"), module(*examples.values()), strict=True):
            np.testing.assert_allclose(found[name], expected.numpy(), atol=1e-6)
