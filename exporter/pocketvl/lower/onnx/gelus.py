"""GELUs in the order of operations that ONNX Runtime knows, so that it runs each as one op."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import numpy_helper

_CURVES = ("Erf", "Tanh")
_REST = ["Add", "Mul", "Mul"]


def order_gelus_(graph: onnx.GraphProto) -> None:
    """Write x * (0.5 * (1 + curve)), as torch.onnx does, as (0.5 * x) * (1 + curve).

    The curve is an error function, or the tanh that approximates it. ONNX Runtime fuses the second form into
    one op when it loads a graph, and leaves the first as it is (its GeluFusion and FastGeluFusion). Every
    number stays: a product with 0.5 is exact.

    Args:
        graph: changed in place.
    """
    halves = {tensor.name for tensor in graph.initializer if _is_half(tensor)}
    places = {name: place for place, node in enumerate(graph.node) for name in node.output}
    for halved, product in list(_ends(graph)):
        (x,) = (name for name in product.input if name != halved.output[0])
        for half, risen in (halved.input, reversed(halved.input)):
            if half in halves and places.get(x, -1) < places[halved.output[0]]:
                halved.input[:], product.input[:] = [x, half], [halved.output[0], risen]
                break


def _ends(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, onnx.NodeProto]]:
    """The two products that follow a curve and a sum, where nothing else reads what is between."""
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    for node in graph.node:
        chain = [node] if node.op_type in _CURVES else []
        while chain and len(chain) <= len(_REST) and len(readers.get(chain[-1].output[0], ())) == 1:
            chain += readers[chain[-1].output[0]]
        if [each.op_type for each in chain[1:]] == _REST:
            yield chain[-2], chain[-1]


def _is_half(tensor: onnx.TensorProto) -> bool:
    if any(size > 1 for size in tensor.dims) or tensor.data_type != onnx.TensorProto.FLOAT:
        return False
    return bool(numpy_helper.to_array(tensor).ravel()[0] == 0.5)
