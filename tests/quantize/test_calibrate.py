"""Calibration sees every sample, keeps only ranges, and says what was wrong with the samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper

from pocketvl.errors import DataError
from pocketvl.quantize.calibrate import RangeObserver, observe_onnx, observe_tflite
from pocketvl.quantize.static_onnx import quantize_static_onnx
from pocketvl.quantize.static_tflite import quantize_static_tflite
from tests.lower.lowered import lowered, samples


def doubles() -> onnx.ModelProto:
    """y = 2 x, by way of an inner tensor `inner` = x."""
    nodes = [helper.make_node("Identity", ["x"], ["inner"]), helper.make_node("Add", ["inner", "x"], ["y"])]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def feeds(*rows: list[float]) -> Iterator[dict[str, NDArray[Any]]]:
    return ({"x": np.array(row, np.float32)} for row in rows)


def test_ranges_span_all_samples_of_a_stream() -> None:
    seen: list[tuple[int, int, str]] = []
    found = observe_onnx(doubles(), ["inner", "y"], feeds([1, 2], [-3, 0]), lambda *call: seen.append(call))
    assert (found["inner"].low, found["inner"].high) == (-3, 2)
    assert (found["y"].low, found["y"].high) == (-6, 4)
    assert [done for done, _, _ in seen] == [1, 2]


def test_the_model_is_left_as_it_was() -> None:
    model = doubles()
    before = model.SerializeToString()
    observe_onnx(model, ["inner"], feeds([1, 2]))
    assert model.SerializeToString() == before


def test_no_sample_is_an_error() -> None:
    with pytest.raises(DataError, match="at least one sample"):
        observe_onnx(doubles(), ["inner"], feeds())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    with pytest.raises(DataError, match="tensor inner holds NaN or infinity"):
        observe_onnx(doubles(), ["inner"], feeds([1, 2], [value, 1]))


def test_a_tensor_that_was_never_seen_is_named() -> None:
    observer = RangeObserver(["seen", "unseen"])
    observer.observe("seen", np.ones(1))
    observer.observe("unseen", np.ones(0))
    with pytest.raises(DataError, match="unseen"):
        observer.ranges()


def test_litert_shows_inner_tensors_as_torch_computes_them() -> None:
    from pocketvl.lower.ops import read_tflite

    model = lowered()
    path = model.path("ids", "fp32.tflite")
    names = [tensor.name.decode() for tensor in read_tflite(path).subgraphs[0].tensors]
    layers = [
        f"encoder.layers.{i}.{name}" for i in (0, 1) for name in ("self_attn.q_proj", "mlp.fc1", "mlp.fc2")
    ]
    data = samples("ids", 5, 4)
    found = observe_tflite(path, {name: names.index(name) for name in layers}, data)
    seen = RangeObserver(layers)
    hooks = [
        model.source.text_encoder.get_submodule(name).register_forward_hook(
            lambda _module, _inputs, output, name=name: seen.observe(name, output.numpy())
        )
        for name in layers
    ]
    try:
        with torch.no_grad():
            for feed in data:
                model.torch_embedding("ids", feed["ids"])
    finally:
        for hook in hooks:
            hook.remove()
    for name, expected in seen.ranges().items():
        assert found[name].low == pytest.approx(expected.low, abs=1e-4)
        assert found[name].high == pytest.approx(expected.high, abs=1e-4)


def test_both_quantizers_want_samples(tmp_path: Path) -> None:
    model = lowered()
    with pytest.raises(DataError, match="at least one sample"):
        quantize_static_onnx(model.path("ids", "fp32.onnx"), tmp_path / "g.onnx", [])
    with pytest.raises(DataError, match="at least one sample"):
        quantize_static_tflite(model.path("ids", "fp32.tflite"), tmp_path / "g.tflite", iter([]))
    assert list(tmp_path.iterdir()) == []
