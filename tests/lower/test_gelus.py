"""ONNX Runtime runs each GELU of our graphs as one op."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.onnx.gelus import order_gelus_
from tests.lower.engines import run_onnx

SIZE = 8


class Layer(nn.Module):
    """Linears with GELUs between them; ONNX Runtime fuses none whose result is an output of the graph."""

    def __init__(self, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate
        self.first, self.second, self.third = (nn.Linear(SIZE, SIZE) for _ in range(3))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(
                    torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.ndim))
                )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        hidden = nn.functional.gelu(self.first(values), approximate=self.approximate)
        hidden = nn.functional.gelu(self.second(hidden), approximate=self.approximate)
        found: torch.Tensor = self.third(hidden)
        return found


@pytest.mark.parametrize(
    ("approximate", "curve", "op"), [("none", "Erf", "Gelu"), ("tanh", "Tanh", "FastGelu")]
)
def test_each_gelu_becomes_one_op_and_answers_stay(
    approximate: str, curve: str, op: str, tmp_path: Path
) -> None:
    module, values = (
        Layer(approximate).eval(),
        torch.randn(4, SIZE, generator=torch.Generator().manual_seed(9)),
    )
    path, optimized = tmp_path / "layer.onnx", tmp_path / "optimized.onnx"
    export_onnx(module, {"values": values[:1]}, path)
    found = run_onnx(path, [{"values": row[None].numpy()} for row in values], optimized)
    with torch.no_grad():
        np.testing.assert_allclose(found, module(values).numpy(), atol=1e-5)
    ops = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    assert ops[op] == 2
    assert curve not in ops


def graph_of(middle: str, last: str, half: float = 0.5) -> onnx.GraphProto:
    """x and its error function put together by two products, as said."""
    constants = [
        numpy_helper.from_array(np.asarray(value, np.float32), name)
        for name, value in (("c", 2**0.5), ("one", 1.0), ("half", half))
    ]
    nodes = [
        helper.make_node("Div", ["x", "c"], ["scaled"]),
        helper.make_node("Erf", ["scaled"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["risen"]),
        helper.make_node("Mul", middle.split(), ["middle"]),
        helper.make_node("Mul", last.split(), ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, SIZE]) for name in ("x", "y")]
    return helper.make_graph(nodes, "gelu", ends[:1], ends[1:], constants)


def outputs(graph: onnx.GraphProto, values: np.ndarray) -> np.ndarray:
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    (found,) = onnx.reference.ReferenceEvaluator(model).run(None, {"x": values})
    return np.asarray(found)


@pytest.mark.parametrize("middle", ["half risen", "risen half"])
@pytest.mark.parametrize("last", ["x middle", "middle x"])
def test_every_bit_stays_in_any_order_of_factors(middle: str, last: str) -> None:
    values = np.random.default_rng(0).normal(scale=3, size=(1, SIZE)).astype(np.float32)
    graph = graph_of(middle, last)
    before = outputs(graph, values)
    order_gelus_(graph)
    assert [list(node.input) for node in graph.node[-2:]] == [["x", "half"], ["middle", "risen"]]
    np.testing.assert_array_equal(outputs(graph, values), before)


@pytest.mark.parametrize(
    ("middle", "last", "half"),
    [
        ("half risen", "x middle", 0.25),  # no GELU
        ("x half", "middle risen", 0.5),  # already so
        ("x risen", "middle half", 0.5),  # so that ONNX Runtime knows it, too
    ],
)
def test_what_is_no_such_gelu_stays(middle: str, last: str, half: float) -> None:
    graph = graph_of(middle, last, half)
    before = graph.SerializeToString(deterministic=True)
    order_gelus_(graph)
    assert graph.SerializeToString(deterministic=True) == before
