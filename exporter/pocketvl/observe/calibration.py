"""Calibration statistics of a module, in memory and on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from pocketvl.network.saved import read_versioned, reading
from pocketvl.network.specification import Range

SCHEMA_VERSION = 3
_TENSORS = "seen.safetensors"
_RANGES = "ranges.json"
_ARRAYS = ("input_mean", "second_moment", "low", "high", "kept")


@dataclass(frozen=True, eq=False)
class LayerCalibration:
    """Calibration statistics of a linear or a convolution.

    Linears that read the very same tensor share the arrays.

    Attributes:
        input: the range of what goes in, as the observer chose it.
        output: the range of what comes out.
        input_mean: float64 [inputs]: the mean over samples and positions of what one output is made of.
            Inputs are in the order of the weights as [outputs, inputs], so that convolutions are unfolded,
            padding included; a convolution of g groups has g * inputs of them, one group after the other.
        second_moment: float32 [inputs, inputs]: the mean of x x^T, where it was asked for; None for grouped
            convolutions.
        low: float64 [inputs]: the least value of each input of a linear; None for convolutions.
        high: float64 [inputs]: the greatest.
        count: how many vectors of inputs were seen.
        kept: float32 [vectors, inputs], some of them, where that was asked for.
    """

    input: Range
    output: Range
    input_mean: NDArray[np.float64]
    second_moment: NDArray[np.float32] | None = None
    low: NDArray[np.float64] | None = None
    high: NDArray[np.float64] | None = None
    count: int = 0
    kept: NDArray[np.float32] | None = None


@dataclass(frozen=True, eq=False)
class Calibration:
    """Calibration statistics of a module.

    Attributes:
        layers: by their names in the module.
        products: the ranges of the left factor, the right one and the result of a product of two activations.
        warnings: what is doubtful about the samples, a line each.
    """

    layers: Mapping[str, LayerCalibration]
    products: Mapping[str, tuple[Range, Range, Range]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write `ranges.json`, which a person can read, and `seen.safetensors`, each array once."""
        tensors: dict[str, NDArray[np.floating]] = {}
        names: dict[int, str] = {}
        layers: dict[str, dict[str, object]] = {}
        for name, layer in self.layers.items():
            ranges = {"input": vars(layer.input), "output": vars(layer.output)}
            own: dict[str, object] = {**ranges, "count": layer.count}
            for part in _ARRAYS:
                array = getattr(layer, part)
                if array is not None:
                    key = names.setdefault(id(array), f"{name}/{part}")
                    tensors[key] = np.ascontiguousarray(array)
                    own[part] = key
            layers[name] = own
        save_file(tensors, folder / _TENSORS)
        document = {
            "schema_version": SCHEMA_VERSION,
            "layers": layers,
            "products": {name: [vars(each) for each in ranges] for name, ranges in self.products.items()},
            "warnings": self.warnings,
        }
        (folder / _RANGES).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Calibration:
        """Read what `save` wrote; layers that shared arrays share them again.

        Raises:
            DataError: the files are missing, damaged or of another version.
        """
        with reading(folder, "a calibration"):
            document = read_versioned(folder / _RANGES, SCHEMA_VERSION)
            tensors = load_file(folder / _TENSORS)
            layers = {
                name: LayerCalibration(
                    Range(**own["input"]),
                    Range(**own["output"]),
                    **{part: tensors[own[part]] for part in _ARRAYS if part in own},
                    count=own["count"],
                )
                for name, own in document["layers"].items()
            }
            products = {
                name: (Range(**left), Range(**right), Range(**result))
                for name, (left, right, result) in document["products"].items()
            }
        return cls(layers, products, tuple(document["warnings"]))


def read_warnings(folder: Path) -> tuple[str, ...]:
    """The warnings about the samples that `Calibration.save` wrote, without the arrays."""
    return tuple(json.loads((folder / _RANGES).read_text(encoding="utf-8"))["warnings"])
