"""An ONNX graph is read without its large weights, and nothing else of it changes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pocketvl.errors import LoweringError
from pocketvl.lower.onnx.files import read_onnx
from tests.lower.lowered import COMPONENTS, lowered

LARGE = 1024
"""Bytes of the smallest weights that are left out."""


@pytest.mark.parametrize("form", ["fp32", "int8"])
@pytest.mark.parametrize("component", COMPONENTS)
def test_only_the_values_of_large_weights_are_missing(component: str, form: str) -> None:
    path = lowered().path(component, f"{form}.onnx")
    found, whole = read_onnx(path), onnx.load(path)
    left_out = 0
    for tensor in whole.graph.initializer:
        if len(tensor.raw_data) >= LARGE:
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            left_out += 1
    assert left_out > 0
    assert found == whole
    assert read_onnx(path, weights=True) == onnx.load(path)


def test_values_that_are_no_bytes_stay(tmp_path: Path) -> None:
    table = helper.make_tensor("table", TensorProto.FLOAT, [LARGE], [1.5] * LARGE)
    sides = helper.make_tensor("sides", TensorProto.INT64, [2], [-3, 1 << 40])
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "table"], ["y"], doc_string="a" * 300)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [LARGE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [LARGE])],
        [table, sides],
    )
    model = helper.make_model(graph)
    onnx.save(model, tmp_path / "g.onnx")
    assert read_onnx(tmp_path / "g.onnx") == model


def test_what_is_cut_off_or_no_model_is_refused(tmp_path: Path) -> None:
    whole = lowered().path(COMPONENTS[0], "fp32.onnx").read_bytes()
    path = tmp_path / "g.onnx"
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(LoweringError, match=r"g\.onnx is not a readable ONNX file"):
            read_onnx(path)
    for content in (b"\x3f", b"\x3a\xff\xff\xff\xff", b"GIF89a" + bytes(90)):
        path.write_bytes(content)
        with pytest.raises(LoweringError, match="not a readable ONNX file"):
            read_onnx(path)
