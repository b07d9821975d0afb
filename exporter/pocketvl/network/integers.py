"""Quantized layers as they leave torch: integer weights, scales, and activation grids.

Quantization makes a `QuantizedComponent` of a module; each lowering writes it into its own format, unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pocketvl.network.saved import read_versioned, reading
from pocketvl.network.specification import ComponentSpec, LayerSpec, ProductSpec

Number = TypeVar("Number", bound=np.number)

SCHEMA_VERSION = 3
_TENSORS, _GRIDS = "integers.safetensors", "grids.json"


@dataclass(frozen=True)
class ActivationGrid:
    """An asymmetric grid of a whole tensor: q = clamp(round(x / scale) + zero_point, 0, 2^bits - 1).

    Engines that store signed integers take q - 128 and zero_point - 128: the same grid.

    Attributes:
        scale: a float32 value, above 0.
        zero_point: the integer that stands for 0, within 0..2^bits - 1.
        bits: 2 to 8; engines run 8.
    """

    scale: float
    zero_point: int
    bits: int = 8

    @property
    def highest(self) -> int:
        """The greatest integer; the least is 0."""
        return (1 << self.bits) - 1


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A linear, a convolution or a token table.

    Attributes:
        spec: how it is quantized.
        weights: in steps from 0, shaped as in torch, within the specification's grid less its zero point;
            int8, or int16 where 8 bits have one.
        scale: float32 [channels] along the first axis, output channels or rows of a table, all equal where
            the tensor has one; or, per group, [channels, groups] along the second. A weight stands for itself
            times its scale.
        bias: int32 [channels] in steps of `input.scale * scale` where the layer is static, else float32;
            None where there is none.
        input: the grid of what goes in; None where the layer is not static.
        output: the grid of what comes out; None where the layer is not static.
        zero_point: uint8, shaped as the scale: the integer of an affine grid that stands for 0, so that
            engines store `weights + zero_point`; None where weights are symmetric.
    """

    spec: LayerSpec
    weights: NDArray[np.signedinteger]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | NDArray[np.float32] | None = None
    input: ActivationGrid | None = None
    output: ActivationGrid | None = None
    zero_point: NDArray[np.uint8] | None = None

    def dequantized(self) -> NDArray[np.float32]:
        """The weights as float32, shaped as in torch."""
        found: NDArray[np.float32] = self.weights * spread(self.scale, self.weights.shape)
        return found

    def bias_scale(self) -> NDArray[np.float32]:
        """float32 [channels]: the scale of a static layer's bias."""
        if self.input is None:
            raise ValueError("only a static layer's bias has a step")
        return np.float32(self.input.scale) * self.scale

    def float_bias(self) -> NDArray[np.float32] | None:
        """float32 [channels]: the dequantized bias."""
        if self.bias is None or self.bias.dtype == np.float32:
            return None if self.bias is None else self.bias.astype(np.float32)
        return (self.bias * self.bias_scale().astype(np.float64)).astype(np.float32)


@dataclass(frozen=True)
class QuantizedProduct:
    """A product of two activations.

    Attributes:
        spec: how it is quantized.
        left: grid of the left factor.
        right: grid of the right factor.
        output: grid of what comes out; None where that stays in float.
    """

    spec: ProductSpec
    left: ActivationGrid
    right: ActivationGrid
    output: ActivationGrid | None = None

    @property
    def grids(self) -> dict[str, ActivationGrid]:
        """Those there are, by what they are of."""
        found = {"left": self.left, "right": self.right}
        return found if self.output is None else found | {"output": self.output}


def spread(scale: NDArray[Number], shape: tuple[int, ...]) -> NDArray[Number]:
    """Scales of channels, or of groups within channels, in a shape that multiplies weights of `shape`.

    Args:
        scale: [channels], or [channels, groups] for weights [channels, inputs]; zero points alike.
        shape: of the weights.
    """
    if scale.ndim == 2:
        return scale.repeat(shape[1] // scale.shape[1], axis=1)  # [channels, inputs]
    return scale.reshape([-1] + [1] * (len(shape) - 1))


@dataclass(frozen=True, eq=False)
class QuantizedComponent:
    """The quantized layers of one module, by the module's names for them; all others stay in float.

    Attributes:
        layers: linears, convolutions and token tables.
        products: of attention, "<attention module>.scores" and "<attention module>.values", or their blocks.
        product_shapes: (M, K, N) of every product [..., M, K] x [..., K, N] of the module, or of every block,
            in the order in which they run; those that stay in float are among them, since a graph does not
            name its products. Empty where none is quantized.
    """

    layers: Mapping[str, QuantizedLayer]
    products: Mapping[str, QuantizedProduct] = field(default_factory=dict)
    product_shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @property
    def spec(self) -> ComponentSpec:
        """How the module is quantized."""
        return ComponentSpec(
            {name: layer.spec for name, layer in self.layers.items()},
            {name: product.spec for name, product in self.products.items()},
        )

    def save(self, folder: Path) -> None:
        """Write `integers.safetensors`, and `grids.json`, which a person can read."""
        tensors: dict[str, NDArray[np.generic]] = {}
        for name, layer in self.layers.items():
            tensors[f"{name}/weights"], tensors[f"{name}/scale"] = layer.weights, layer.scale
            if layer.bias is not None:
                tensors[f"{name}/bias"] = layer.bias
            if layer.zero_point is not None:
                tensors[f"{name}/zero_point"] = layer.zero_point
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / _TENSORS)
        document = {
            "schema_version": SCHEMA_VERSION,
            "layers": {
                name: {
                    side: vars(grid)
                    for side, grid in (("input", layer.input), ("output", layer.output))
                    if grid is not None
                }
                for name, layer in self.layers.items()
            },
            "products": {
                name: {side: vars(grid) for side, grid in product.grids.items()}
                for name, product in self.products.items()
            },
            "product_shapes": dict(self.product_shapes),
        }
        (folder / _GRIDS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        self.spec.save(folder)

    @classmethod
    def load(cls, folder: Path) -> QuantizedComponent:
        """Read what `save` wrote.

        Raises:
            DataError: the files are missing, damaged or of another version.
        """
        spec = ComponentSpec.load(folder)
        with reading(folder, "a quantized component"):
            document = read_versioned(folder / _GRIDS, SCHEMA_VERSION)
            tensors = load_file(folder / _TENSORS)
            layers = {
                name: QuantizedLayer(
                    spec.layers[name],
                    tensors[f"{name}/weights"],
                    tensors[f"{name}/scale"],
                    tensors.get(f"{name}/bias"),
                    **{side: ActivationGrid(**grid) for side, grid in grids.items()},
                    zero_point=tensors.get(f"{name}/zero_point"),
                )
                for name, grids in document["layers"].items()
            }
            products = {
                name: QuantizedProduct(
                    spec.products[name], **{side: ActivationGrid(**grid) for side, grid in grids.items()}
                )
                for name, grids in document["products"].items()
            }
            shapes = {name: tuple(shape) for name, shape in document["product_shapes"].items()}
        return cls(layers, products, shapes)
