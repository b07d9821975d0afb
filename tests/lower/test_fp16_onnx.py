"""An ONNX graph's weights in half the bytes, computed with as before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.fp16 import cast_fp16_onnx
from pocketvl.lower.onnx.graph import graph_io_onnx, op_counts_onnx
from tests.lower.engines import run_onnx
from tests.lower.lowered import COMPONENTS, lowered, samples


@pytest.mark.parametrize("component", COMPONENTS)
def test_weights_are_halved_and_computed_with_in_float(component: str, tmp_path: Path) -> None:
    source, half, again = (
        lowered().path(component, "fp32.onnx"),
        tmp_path / "h.onnx",
        tmp_path / "again.onnx",
    )
    cast_fp16_onnx(source, half)
    cast_fp16_onnx(source, again)
    assert half.read_bytes() == again.read_bytes()
    assert graph_io_onnx(half) == graph_io_onnx(source)
    stored = {tensor.name: tensor for tensor in onnx.load(half).graph.initializer}
    matrices = [tensor for tensor in onnx.load(source).graph.initializer if len(tensor.dims) > 1]
    for tensor in matrices:
        expected = numpy_helper.to_array(tensor).astype(np.float16)
        np.testing.assert_array_equal(numpy_helper.to_array(stored[f"{tensor.name}_fp16"]), expected)
    numbers = sum(int(np.prod(tensor.dims)) for tensor in matrices)
    assert source.stat().st_size - half.stat().st_size == pytest.approx(2 * numbers, rel=0.1)
    feeds = samples(component, 8, 2)
    found = run_onnx(half, feeds, optimized=tmp_path / "o.onnx")
    floats = run_onnx(source, feeds)
    assert 0 < np.abs(found - floats).max() < 2e-3
    assert op_counts_onnx(tmp_path / "o.onnx").get("Cast", 0) == op_counts_onnx(source)["Cast"]


def test_what_does_not_fit_is_refused_and_infinities_are_kept(tmp_path: Path) -> None:
    model = onnx.load(lowered().path("ids", "fp32.onnx"))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name == "text_projection.weight")
    values = numpy_helper.to_array(weight).copy()
    for value, fits in ((-np.inf, True), (65504.0, True), (-70000.0, False)):
        values[0, 0] = value
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
        onnx.save(model, tmp_path / "f.onnx")
        if fits:
            cast_fp16_onnx(tmp_path / "f.onnx", tmp_path / "h.onnx")
            continue
        with pytest.raises(LoweringError, match=r"f\.onnx: text_projection\.weight holds 7e\+04"):
            cast_fp16_onnx(tmp_path / "f.onnx", tmp_path / "h.onnx")


def test_a_graph_without_weights_is_refused(tmp_path: Path) -> None:
    export_onnx(nn.ReLU().eval(), {"x": torch.zeros(1, 4)}, tmp_path / "f.onnx")
    with pytest.raises(LoweringError, match="no weights"):
        cast_fp16_onnx(tmp_path / "f.onnx", tmp_path / "h.onnx")
