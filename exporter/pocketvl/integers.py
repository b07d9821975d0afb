"""The integers that leave torch: of every quantized layer the weights, scales, and the activations' grids.

Quantization makes a `QuantizedTower` out of a module; each lowering writes it into its own format, unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pocketvl.errors import DataError

SCHEMA_VERSION = 1
_TENSORS, _GRIDS = "integers.safetensors", "grids.json"


@dataclass(frozen=True)
class ActivationGrid:
    """An asymmetric 8-bit grid of a whole tensor: q = clamp(round(x / scale) + zero_point, 0, 255).

    Engines that store signed integers take q - 128 and zero_point - 128: the same grid.

    Attributes:
        scale: a float32 value, above 0.
        zero_point: the integer that stands for 0, within 0..255.
    """

    scale: float
    zero_point: int


@dataclass(frozen=True, eq=False)
class QuantizedLayer:
    """A linear, a convolution or a token table.

    Attributes:
        weights: int8, shaped as in torch, within -127..127; channel c stands for `weights[c] * scale[c]`.
        scale: float32 [channels], along the first axis: output channels, or rows of a table.
        bias: int32 [channels] in steps of `input.scale * scale`; None where there is none.
        input: the grid of what goes in; None for a table, which is looked up.
        output: the grid of what comes out; None for a table.
    """

    weights: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | None = None
    input: ActivationGrid | None = None
    output: ActivationGrid | None = None

    def dequantized(self) -> NDArray[np.float32]:
        """The weights as float32."""
        scale = self.scale.reshape([-1] + [1] * (self.weights.ndim - 1))
        return (self.weights.astype(np.float64) * scale).astype(np.float32)

    def bias_scale(self) -> NDArray[np.float32]:
        """float32 [channels]: the step of the bias."""
        if self.input is None:
            raise ValueError("a table has no bias")
        return np.float32(self.input.scale) * self.scale


@dataclass(frozen=True, eq=False)
class QuantizedTower:
    """The quantized layers of one module, by the module's names for them; all others stay in float."""

    layers: Mapping[str, QuantizedLayer]

    def save(self, folder: Path) -> None:
        """Writes `integers.safetensors`, and `grids.json`, which a person can read."""
        tensors: dict[str, NDArray[np.generic]] = {}
        grids: dict[str, object] = {}
        for name, layer in self.layers.items():
            tensors[f"{name}/weights"], tensors[f"{name}/scale"] = layer.weights, layer.scale
            if layer.bias is not None:
                tensors[f"{name}/bias"] = layer.bias
            if layer.input is not None and layer.output is not None:
                grids[name] = {"input": vars(layer.input), "output": vars(layer.output)}
            else:
                grids[name] = {}
        save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, folder / _TENSORS)
        document = {"schema_version": SCHEMA_VERSION, "layers": grids}
        (folder / _GRIDS).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> QuantizedTower:
        """Reads what `save` wrote.

        Raises:
            DataError: the files are missing, damaged or of another version.
        """
        try:
            document = json.loads((folder / _GRIDS).read_text(encoding="utf-8"))
            if document["schema_version"] != SCHEMA_VERSION:
                raise DataError(f"{folder / _GRIDS} is of version {document['schema_version']}")
            tensors = load_file(folder / _TENSORS)
            layers = {
                name: QuantizedLayer(
                    tensors[f"{name}/weights"],
                    tensors[f"{name}/scale"],
                    tensors.get(f"{name}/bias"),
                    **{place: ActivationGrid(**grid) for place, grid in grids.items()},
                )
                for name, grids in document["layers"].items()
            }
        except DataError:
            raise
        except Exception as error:  # safetensors has an error of its own
            raise DataError(f"{folder} does not hold a quantized tower: {error}") from error
        return cls(layers)
