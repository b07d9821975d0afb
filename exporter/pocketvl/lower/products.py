"""Find the products of two activations of a component among those of a graph, which does not name them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pocketvl.errors import LoweringError
from pocketvl.network.integers import QuantizedComponent, QuantizedProduct

_Op = TypeVar("_Op")
Shape = tuple[int, int, int]
"""(M, K, N) of a product [..., M, K] x [..., K, N]."""


def matched(
    component: QuantizedComponent, found: Sequence[tuple[Shape, _Op]], where: str
) -> list[tuple[QuantizedProduct, _Op]]:
    """The ops of a graph that compute the component's quantized products.

    Layers run one after the other, so that the n-th product of a shape is the n-th op of that shape.

    Args:
        component: knows the shapes of all products of its module.
        found: every product of two activations in the graph, in its order.
        where: what the graph is called.

    Raises:
        LoweringError: the graph has other products than the module.
    """
    if not component.products:
        return []
    left: dict[Shape, list[_Op]] = {}
    for shape, op in found:
        left.setdefault(shape, []).append(op)
    pairs = []
    for name, shape in component.product_shapes.items():
        if not left.get(shape):
            raise LoweringError(f"{where} holds no product {_shown(shape)} of two activations for {name}")
        op = left[shape].pop(0)
        if name in component.products:
            pairs.append((component.products[name], op))
    lost = sorted(set(component.products) - set(component.product_shapes))
    if lost:
        raise LoweringError(f"{lost[0]} is quantized, and is none of the products of its module")
    for shape, ops in left.items():
        if ops:
            raise LoweringError(f"{where} holds a product {_shown(shape)} that no attention computes")
    return pairs


def _shown(shape: Shape) -> str:
    rows, inner, columns = shape
    return f"[{rows}, {inner}] x [{inner}, {columns}]"
