"""What an operator has to do: multiply-adds and bytes, from the dtypes and shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Self

_TENSOR = re.compile(r"(\w+)\[([-\d,]*)\]")
_BITS = {"int4": 4, "uint4": 4, "int2": 2, "bool": 8, "float16": 16, "bfloat16": 16}
_NUMBER = re.compile(r"\d+$")

INT8, INT4, FP16, FP32 = "int8", "int4", "fp16", "fp32"
"""Precisions of multiplications: of both sides, or of weights where these have fewer bits."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of a graph, without its values.

    Attributes:
        dtype: numpy's name, or "int4".
        shape: sizes; one that is not known counts as 1.
        constant: whether its values lie in the graph file.
        key: what tells it from the graph's other tensors; "" where nothing does.
    """

    dtype: str
    shape: tuple[int, ...]
    constant: bool = False
    key: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """A tensor as a bench writes it, "float32[1,65,128]"."""
        match = _TENSOR.fullmatch(text)
        if match is None:
            return cls(text, ())
        return cls(match[1], tuple(int(size) for size in match[2].split(",") if size))

    @property
    def elements(self) -> int:
        return prod(max(size, 1) for size in self.shape)

    @property
    def size_bytes(self) -> float:
        return self.elements * bits_of(self.dtype) / 8

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith(("float", "bfloat"))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Work:
    """What one call of an operator has to do.

    Attributes:
        macs: multiply-adds of a linear, convolution or product; None: it is none, or not known.
        weight_bytes: of constants that it reads.
        moved_bytes: of all that it reads and writes, constants included.
        precision: in which it multiplies; None where it multiplies nothing.
        is_linear: whether it multiplies with weights, rather than two activations.
        channels: of a product, (rows, input channels, output channels); None: not known.
        inputs: what it reads.
        outputs: what it writes.
    """

    macs: int | None = None
    weight_bytes: float = 0.0
    moved_bytes: float = 0.0
    precision: str | None = None
    is_linear: bool = False
    channels: tuple[int, int, int] | None = None
    inputs: tuple[Tensor, ...] = ()
    outputs: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class Node:
    """An operator of a graph file.

    Attributes:
        type: as the file calls it.
        name: of the node; "" where it has none.
        work: what it has to do.
    """

    type: str
    name: str
    work: Work


@dataclass(frozen=True)
class GraphFile:
    """The operators of a graph file.

    Attributes:
        engine_is_tflite: whether it is a TFLite file.
        nodes: in the order of the file, of the main graph.
        size_bytes: of the file.
        weights: by dtype, how many bytes of constants of more than a hundred elements there are.
    """

    engine_is_tflite: bool
    nodes: tuple[Node, ...]
    size_bytes: int
    weights: Mapping[str, float]

    @property
    def stores_integers(self) -> bool:
        """Whether more than half of the weights are integers of 8 bits or fewer."""
        integers = sum(size for dtype, size in self.weights.items() if _is_small_integer(dtype))
        floats = sum(size for dtype, size in self.weights.items() if dtype.startswith("float"))
        return integers * 2 > floats  # a float has two to four times the bytes


def bits_of(dtype: str) -> int:
    """Bits of an element; 32 where the dtype is not known."""
    if dtype in _BITS:
        return _BITS[dtype]
    number = _NUMBER.search(dtype)
    return int(number[0]) if number else 32


def precision_of(inputs: Sequence[Tensor]) -> str:
    """In which precision an operator multiplies its first two inputs, by their dtypes."""
    dtypes = [each.dtype for each in inputs[:2]]
    if any(bits_of(dtype) <= 4 for dtype in dtypes):
        return INT4
    if any(_is_small_integer(dtype) for dtype in dtypes):
        return INT8
    return FP16 if any(dtype == "float16" for dtype in dtypes) else FP32


def plain_work(inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> Work:
    """The work of an operator that multiplies no matrices."""
    weights = sum(each.size_bytes for each in inputs if each.constant)
    moved = sum(each.size_bytes for each in (*inputs, *outputs))
    return Work(None, weights, moved, inputs=tuple(inputs), outputs=tuple(outputs))


def _is_small_integer(dtype: str) -> bool:
    return dtype.startswith(("int", "uint")) and bits_of(dtype) <= 8
