"""The forms in which engines run quantized layers, and the form of a specification."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from pocketvl.errors import LoweringError
from pocketvl.network.specification import Granularity, GridSpec, LayerSpec, Mode, Scheme

if TYPE_CHECKING:
    from pocketvl.network.integers import QuantizedComponent, QuantizedLayer

_ENGINE_BITS = 8
_BLOCK_BITS = (2, 4, 8)
_LOWERED = "static int8, dynamic int8, 2, 4 or 8 bits in blocks, int8 weights alone, and float are lowered"


class Form(StrEnum):
    """How a layer is represented in a graph.

    Static: integers in, integers out. Dynamic: weights of 8 bits, inputs put on a grid at each run. Blocks:
    the same with weights of 4 bits and a scale a block. Free blocks: blocks of another kind, of 2 or 8 bits,
    with zero points, or widened to floats before they are multiplied. Widened: weights of 8 bits that become
    floats before they are multiplied, or rows of a table that do when they are looked up.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"
    BLOCKS = "blocks"
    FREE_BLOCKS = "free blocks"
    WIDENED = "widened"


def form_of(name: str, spec: LayerSpec) -> Form:
    """The form that a specification asks for.

    Raises:
        LoweringError: no engine runs such a layer.
    """
    symmetric = spec.weights.scheme is Scheme.SYMMETRIC
    bits, grouped = spec.weights.bits, spec.weights.granularity is Granularity.PER_GROUP
    if symmetric and bits == 8 and not grouped:
        if spec.mode is Mode.DYNAMIC:
            return Form.DYNAMIC
        if spec.mode is Mode.WEIGHT_ONLY:
            return Form.WIDENED
        if _runs(spec.input) and _runs(spec.output):
            return Form.STATIC
    elif grouped and bits in _BLOCK_BITS and spec.mode is not Mode.STATIC:
        plain = symmetric and bits == 4 and spec.mode is Mode.DYNAMIC
        return Form.BLOCKS if plain else Form.FREE_BLOCKS
    raise LoweringError(f"{name} is {described(spec)}, which no engine runs: {_LOWERED}")


def check_component(component: QuantizedComponent) -> None:
    """Raise LoweringError, naming one, where a component holds what no engine runs."""
    for name, product in component.products.items():
        if not all(map(_runs, filter(None, (product.spec.left, product.spec.right, product.spec.output)))):
            raise LoweringError(
                f"{name} is a product of two activations, and engines run those of 8 bits alone"
            )
    for name, layer in component.layers.items():
        if form_of(name, layer.spec) in (Form.BLOCKS, Form.FREE_BLOCKS) and not _is_half(layer):
            raise LoweringError(
                f"{name}: engines hold a block's scale in 16 bits, which would round it; "
                "round the scales with `group_scale` before the weights are quantized"
            )


def refuse(name: str, layer: QuantizedLayer, kind: str) -> LoweringError:
    """The error for a layer whose form its kind of op does not have."""
    return LoweringError(f"{name} is {described(layer.spec)}, which no engine runs in {kind}: {_LOWERED}")


def _runs(grid: GridSpec | None) -> bool:
    """Whether engines know an activation's grid."""
    return grid is not None and grid.bits == _ENGINE_BITS and grid.granularity is Granularity.PER_TENSOR


def _is_half(layer: QuantizedLayer) -> bool:
    """Whether its scales are numbers of fp16 and of bfloat16, which is a float32 without its lower half."""
    lower_half = np.ascontiguousarray(layer.scale).view(np.uint32) & 0xFFFF
    return not np.any(lower_half) and np.array_equal(layer.scale.astype(np.float16), layer.scale)


def described(spec: LayerSpec) -> str:
    """How a layer is quantized, for people: "static, weights of 8 bits per channel, input of 8 bits ..."."""
    grids = {"weights": spec.weights, "input": spec.input, "output": spec.output}
    parts = [spec.mode.value.replace("_", "-")]
    for role, grid in grids.items():
        if grid is not None:
            affine = " with a zero point" if role == "weights" and grid.scheme is Scheme.AFFINE else ""
            size = "" if grid.group_size is None else f" of {grid.group_size}"
            granularity = grid.granularity.value.replace("_", " ")
            parts.append(f"{role} of {grid.bits} bits {granularity}{size}{affine}")
    return ", ".join(parts)
