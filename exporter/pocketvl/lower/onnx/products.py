"""The products of two activations in an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import onnx

from pocketvl.lower.onnx.files import read_onnx
from pocketvl.lower.products import Shape, matched
from pocketvl.network.integers import QuantizedComponent, QuantizedProduct


def products_of(source: Path, component: QuantizedComponent) -> dict[str, QuantizedProduct]:
    """The component's quantized products, by what the node of a graph file gives that computes them.

    Raises:
        LoweringError: the graph has other products than the component's module.
    """
    if not component.products:
        return {}
    graph = onnx.shape_inference.infer_shapes(read_onnx(source)).graph
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    constants = {tensor.name for tensor in graph.initializer}
    found: list[tuple[Shape, str]] = []
    for node in graph.node:
        if node.op_type == "MatMul" and not constants.intersection(node.input):
            left, right = (shapes[name] for name in node.input)
            found.append(((left[-2], left[-1], right[-1]), node.output[0]))
    return {output: product for product, output in matched(component, found, source.name)}
