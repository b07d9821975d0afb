"""The comparison of graphs sees what changes a graph, and no names."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.compare_graphs import differences, main


def graph(path: Path, prefix: str = "", *, op: str = "Relu", weight: float = 1.0, alpha: float = 0.5) -> Path:
    """pixels -> (pixels - weights), op, LeakyRelu -> embedding; inner names begin with `prefix`."""
    weights = numpy_helper.from_array(np.full((1, 4), weight, np.float32), f"{prefix}weights")
    nodes = [
        helper.make_node("Sub", ["pixels", f"{prefix}weights"], [f"{prefix}a"], name=f"{prefix}first"),
        helper.make_node(op, [f"{prefix}a"], [f"{prefix}b"]),
        helper.make_node("LeakyRelu", [f"{prefix}b"], ["embedding"], alpha=alpha),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("pixels", "embedding")]
    model = helper.make_model(
        helper.make_graph(nodes, "g", ends[:1], ends[1:], [weights]),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)
    return path


def test_names_do_not_count(tmp_path: Path) -> None:
    assert differences(graph(tmp_path / "a.onnx"), graph(tmp_path / "b.onnx", "other_")) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"op": "Abs"}, "operator ::Abs: +1"),
        ({"weight": 2.0}, "initializer"),
        ({"alpha": 0.25}, "attributes or topology differ at ::LeakyRelu"),
    ],
)
def test_everything_else_counts(tmp_path: Path, changed: dict[str, float], said: str) -> None:
    found = differences(graph(tmp_path / "a.onnx"), graph(tmp_path / "b.onnx", **changed))  # type: ignore[arg-type]
    assert any(said in line for line in found)


def test_the_command_fails_where_graphs_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph(tmp_path / "old" / "x.onnx")
    graph(tmp_path / "new" / "x.onnx", "other_")
    assert main(tmp_path / "old", tmp_path / "new") == 0
    graph(tmp_path / "new" / "x.onnx", op="Neg")
    assert main(tmp_path / "old", tmp_path / "new") == 1
    assert "x.onnx: identical but for names" in capsys.readouterr().out
