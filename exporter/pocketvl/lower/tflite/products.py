"""The products of two activations in a TFLite graph."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pocketvl.errors import LoweringError
from pocketvl.lower.products import Shape, matched
from pocketvl.lower.tflite.graph import op_name
from pocketvl.network.integers import ActivationGrid, QuantizedComponent, QuantizedProduct

PRODUCT = "BATCH_MATMUL"


def products_of(model: Any, component: QuantizedComponent, where: str) -> list[tuple[QuantizedProduct, Any]]:
    """The component's quantized products, and the op that computes each.

    Raises:
        LoweringError: the graph has other products than the component's module.
    """
    if not component.products:
        return []
    graph = model.subgraphs[0]
    found: list[tuple[Shape, Any]] = []
    for op in graph.operators:
        if op_name(model, op) == PRODUCT:
            sides = [[int(side) for side in graph.tensors[index].shape[-2:]] for index in op.inputs]
            options = op.builtinOptions
            (rows, inner), (_, columns) = (
                side[::-1] if turned else side
                for side, turned in zip(sides, (options.adjX, options.adjY), strict=True)
            )
            found.append(((rows, inner, columns), op))
    return matched(component, found, where)


def tensors_of(op: Any, product: QuantizedProduct) -> Iterator[tuple[int, ActivationGrid]]:
    """The tensors that an op reads and gives, and their grids.

    Raises:
        LoweringError: what comes out has none.
    """
    if product.output is None:
        raise LoweringError("LiteRT multiplies two activations of 8 bits into 8 bits: an output needs a grid")
    yield int(op.inputs[0]), product.left
    yield int(op.inputs[1]), product.right
    yield int(op.outputs[0]), product.output
