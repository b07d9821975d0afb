"""Remove ops of a float TFLite graph that move numbers about and compute nothing.

litert-torch lowers products of two activations to three axes and back, transposes what could be read
transposed, and takes the patches of a convolution through PyTorch's order of axes. XNNPACK copies a tensor
for each of these ops.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pocketvl.lower.tflite.graph import op_name

_Shape = tuple[int, ...]
_OPTIONAL = -1
"""Stands for a tensor that an op is not given, as a bias."""

_BROADCAST = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")
_BY_ELEMENT = ("LOGISTIC", "GELU", "TANH", "RSQRT", "SQRT", "SOFTMAX")
"""Ops of one input whose output has its shape; of SOFTMAX only the last axis counts."""


def simplify_(model: Any) -> None:
    """Remove needless RESHAPEs and TRANSPOSEs; every number that the graph gives stays as it is.

    Tensors that no op reads or writes any more go, too: an interpreter gives them no memory, so that tools
    which look at every tensor, as quantizers do that calibrate, fail on them.

    Args:
        model: flatbuffers' object tree of one TFLite file in float, changed in place.
    """
    for index, graph in enumerate(model.subgraphs):
        _Graph(model, graph).simplify_()
        signatures = [each for each in model.signatureDefs or [] if each.subgraphIndex == index]
        _drop_unused_tensors_(graph, signatures)


class _Graph:
    """A subgraph with the writers and readers of its tensors."""

    def __init__(self, model: Any, graph: Any) -> None:
        self._model, self._graph = model, graph
        self._outputs = {int(index) for index in graph.outputs}

    def simplify_(self) -> None:
        """Apply every rule, each to all ops that it fits."""
        self._keep_axes_of_means_()
        self._join_patches_()
        self._drop_reshapes_()
        self._read_transposed_()

    def _kind(self, op: Any) -> str:
        return op_name(self._model, op)

    def _shape(self, index: int) -> _Shape:
        shape = self._graph.tensors[index].shape
        return () if shape is None else tuple(int(side) for side in shape)

    def _set_shape_(self, index: int, shape: Sequence[int]) -> None:
        self._graph.tensors[index].shape = np.asarray(shape, np.int32)

    def _readers(self, index: int) -> list[Any]:
        return [op for op in self._graph.operators if index in [int(i) for i in op.inputs]]

    def _only_reader(self, index: int, kind: str) -> Any | None:
        """The op that alone reads a tensor, if it is of this kind and the tensor no output."""
        readers = self._readers(index)
        if len(readers) != 1 or index in self._outputs or self._kind(readers[0]) != kind:
            return None
        return readers[0]

    def _writer(self, index: int) -> Any | None:
        return next((op for op in self._graph.operators if index in [int(i) for i in op.outputs]), None)

    def _integers(self, index: int) -> _Shape | None:
        """The values of a constant int32 tensor."""
        data = self._model.buffers[self._graph.tensors[index].buffer].data
        if data is None:
            return None
        return tuple(int(value) for value in np.frombuffer(np.asarray(data, np.uint8).tobytes(), np.int32))

    def _new_integers(self, like: int, values: Sequence[int]) -> int:
        """A new constant int32 tensor, called after another one."""
        from ai_edge_litert import schema_py_generated as schema

        buffer, tensor = schema.BufferT(), schema.TensorT()
        buffer.data = np.frombuffer(np.asarray(values, np.int32).tobytes(), np.uint8)
        self._model.buffers.append(buffer)
        old = self._graph.tensors[like]
        tensor.type, tensor.buffer = old.type, len(self._model.buffers) - 1
        tensor.shape = np.asarray([len(values)], np.int32)
        tensor.name = old.name + f";{len(self._graph.tensors)}".encode()
        tensor.quantization = schema.QuantizationParametersT()
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _replace_(self, old: int, new: int) -> None:
        for op in self._graph.operators:
            if old in op.inputs:
                op.inputs = np.asarray([new if int(i) == old else int(i) for i in op.inputs], np.int32)

    def _remove_(self, op: Any) -> None:
        self._graph.operators = [other for other in self._graph.operators if other is not op]

    def _of_kind(self, kind: str) -> Iterator[Any]:
        return (op for op in list(self._graph.operators) if self._kind(op) == kind)

    def _keep_axes_of_means_(self) -> None:
        """MEAN without its axes, numbers on the way, RESHAPE with its axes -> MEAN with its axes."""
        for mean in self._of_kind("MEAN"):
            axes = self._integers(int(mean.inputs[1]))
            if mean.builtinOptions.keepDims or axes is None:
                continue
            shape = self._shape(int(mean.inputs[0]))
            kept = tuple(
                1 if i in {axis % len(shape) for axis in axes} else side for i, side in enumerate(shape)
            )
            chain, tensor = [], int(mean.outputs[0])
            while True:
                chain.append(tensor)
                readers = self._readers(tensor)
                if (
                    len(readers) != 1
                    or tensor in self._outputs
                    or not self._is_of_numbers(readers[0], tensor)
                ):
                    break
                tensor = int(readers[0].outputs[0])
            reshape = self._only_reader(tensor, "RESHAPE")
            if reshape is None or self._shape(int(reshape.outputs[0])) != kept:
                continue
            mean.builtinOptions.keepDims = True
            for index in chain:
                self._set_shape_(index, kept)

    def _is_of_numbers(self, op: Any, tensor: int) -> bool:
        """Whether an op computes with a tensor's elements and single numbers alone."""
        if self._kind(op) in _BY_ELEMENT:
            return self._kind(op) != "SOFTMAX"
        others = [int(i) for i in op.inputs if int(i) != tensor]
        return self._kind(op) in _BROADCAST and all(self._shape(i) == () for i in others)

    def _join_patches_(self) -> None:
        """[1, H, W, C] -> [1, C, H, W] -> [1, C, H * W] -> [1, H * W, C]: one RESHAPE."""
        for first in self._of_kind("TRANSPOSE"):
            reshape = self._only_reader(int(first.outputs[0]), "RESHAPE")
            last = None if reshape is None else self._only_reader(int(reshape.outputs[0]), "TRANSPOSE")
            if reshape is None or last is None:
                continue
            turns = [self._integers(int(op.inputs[1])) for op in (first, last)]
            before, after = self._shape(int(first.inputs[0])), self._shape(int(last.outputs[0]))
            if turns != [(0, 3, 1, 2), (0, 2, 1)] or after != (before[0], before[1] * before[2], before[3]):
                continue
            reshape.inputs = np.asarray(
                [first.inputs[0], self._new_integers(int(reshape.inputs[1]), after)], np.int32
            )
            reshape.outputs = np.asarray([last.outputs[0]], np.int32)
            self._remove_(first)
            self._remove_(last)

    def _drop_reshapes_(self) -> None:
        """Drop RESHAPEs that add or remove leading axes of one, where all later ops do without."""
        for op in self._of_kind("RESHAPE"):
            source, target = int(op.inputs[0]), int(op.outputs[0])
            same = _without_leading_ones(self._shape(source)) == _without_leading_ones(self._shape(target))
            if not same or target in self._outputs or self._is_constant(source):
                continue
            changed = self._shapes_after(target, self._shape(source))
            if changed is None:
                continue
            for index, shape in changed.items():
                self._set_shape_(index, shape)
            self._replace_(target, source)
            self._remove_(op)

    def _is_constant(self, index: int) -> bool:
        return self._model.buffers[self._graph.tensors[index].buffer].data is not None

    def _shapes_after(self, tensor: int, shape: _Shape) -> dict[int, _Shape] | None:
        """What shapes the tensors have if one has another; None where an op could not take it."""
        if shape == self._shape(tensor):
            return {}
        changed = {tensor: shape}
        for op in self._graph.operators:
            if not any(int(i) in changed for i in op.inputs):
                continue
            shapes = [changed.get(int(i), self._shape(int(i))) for i in op.inputs if int(i) >= 0]
            output = int(op.outputs[0])
            found = self._output_shape(op, shapes)
            if found is None or (found != self._shape(output) and output in self._outputs):
                return None
            if found != self._shape(output):
                changed[output] = found
        return changed

    def _output_shape(self, op: Any, shapes: Sequence[_Shape]) -> _Shape | None:
        """The shape of what an op gives of inputs of other shapes; None for an op that counts axes."""
        kind, before = self._kind(op), self._shape(int(op.outputs[0]))
        if kind in _BY_ELEMENT:
            return shapes[0]
        if kind in _BROADCAST:
            return tuple(int(side) for side in np.broadcast_shapes(*shapes))
        if kind == "RESHAPE":
            return before
        if kind == "FULLY_CONNECTED":
            if len(shapes[1]) != 2:  # a product of one head: what stands for weights is an activation
                return None
            return (*shapes[0][:-1], before[-1]) if op.builtinOptions.keepNumDims else before
        if kind == "BATCH_MATMUL":
            batch = np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2])
            return (*(int(side) for side in batch), *before[-2:])
        return None

    def _read_transposed_(self) -> None:
        """A product reads its second factor transposed, where that saves moving single numbers."""
        for product in self._of_kind("BATCH_MATMUL"):
            factor = int(product.inputs[1])
            transpose = self._writer(factor)
            if transpose is None or self._kind(transpose) != "TRANSPOSE" or len(self._readers(factor)) > 1:
                continue
            order = self._integers(int(transpose.inputs[1]))
            if order is None or order[-2] != len(order) - 1:
                continue
            turned = (*order[:-2], order[-1], order[-2])
            product.builtinOptions.adjY = not product.builtinOptions.adjY
            shape = self._shape(factor)
            self._set_shape_(factor, (*shape[:-2], shape[-1], shape[-2]))
            if turned == tuple(range(len(turned))):
                self._replace_(factor, int(transpose.inputs[0]))
                self._remove_(transpose)
            else:
                turns = self._new_integers(int(transpose.inputs[1]), turned)
                transpose.inputs = np.asarray([transpose.inputs[0], turns], np.int32)


def _drop_unused_tensors_(graph: Any, signatures: Sequence[Any]) -> None:
    used = {int(i) for i in (*graph.inputs, *graph.outputs)}
    for op in graph.operators:
        used.update(int(i) for i in (*op.inputs, *op.outputs))
    kept = sorted(used - {_OPTIONAL})
    places = {_OPTIONAL: _OPTIONAL, **{old: new for new, old in enumerate(kept)}}

    def moved(indices: Sequence[int]) -> Any:
        return np.asarray([places[int(i)] for i in indices], np.int32)

    graph.tensors = [graph.tensors[index] for index in kept]
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for op in graph.operators:
        op.inputs, op.outputs = moved(op.inputs), moved(op.outputs)
    for signature in signatures:
        for port in (*signature.inputs, *signature.outputs):
            port.tensorIndex = places[int(port.tensorIndex)]


def _without_leading_ones(shape: _Shape) -> _Shape:
    start = next((index for index, side in enumerate(shape) if side != 1), len(shape))
    return shape[start:]
