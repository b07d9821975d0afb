"""What operators have to do is counted from their shapes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from pocketvl.explain.onnx_work import read_onnx_work


@pytest.mark.parametrize(
    ("equation", "shapes", "result", "macs"),
    [
        ("bqhd,bkhd->bhqk", [(1, 196, 8, 64), (1, 196, 8, 64)], (1, 8, 196, 196), 8 * 196 * 196 * 64),
        ("bhqk, bkhd -> bqhd", [(1, 8, 196, 196), (1, 196, 8, 64)], (1, 196, 8, 64), 8 * 196 * 196 * 64),
        ("...ij,jk->...ik", [(2, 3, 4), (4, 5)], (2, 3, 5), None),
    ],
)
def test_an_einsum_multiplies_over_every_index(
    equation: str, shapes: list[tuple[int, ...]], result: tuple[int, ...], macs: int | None, tmp_path: Path
) -> None:
    given = [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s) for i, s in enumerate(shapes)]
    node = helper.make_node("Einsum", [each.name for each in given], ["y"], equation=equation)
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, result)]
    model = helper.make_model(helper.make_graph([node], "g", given, made))
    onnx.save(model, tmp_path / "g.onnx")
    (found,) = read_onnx_work(tmp_path / "g.onnx").nodes
    assert found.work.macs == macs
    assert found.work.moved_bytes > 0
