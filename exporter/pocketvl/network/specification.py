"""The quantization specification: bits, scheme and granularity of every layer's weights and activations.

A specification says what was decided; `pocketvl.network.integers` holds what came of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pocketvl.errors import DataError, RecipeError

SpecT = TypeVar("SpecT")

SCHEMA_VERSION = 1
SPECIFICATION_FILE = "specification.json"
GROUP_SIZES = (32, 64, 128)
LEAST_BITS, MOST_BITS = 2, 8


@dataclass(frozen=True)
class Range:
    """The values that a tensor is taken to hold: low <= x <= high."""

    low: float
    high: float


class Scheme(StrEnum):
    """Symmetric: 0 stands for 0, as many steps below it as above. Affine: the grid has a zero point."""

    SYMMETRIC = "symmetric"
    AFFINE = "affine"


class Granularity(StrEnum):
    """What shares one scale: a tensor, an output channel, or a group (block) within an output channel."""

    PER_TENSOR = "per_tensor"
    PER_CHANNEL = "per_channel"
    PER_GROUP = "per_group"


class Mode(StrEnum):
    """How a layer is computed.

    Static: integers go in and come out, on grids fixed by calibration. Dynamic: the engine finds the input's
    grid at each run, and floats come out. Weight-only: weights are widened to floats before they are used.
    """

    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHT_ONLY = "weight_only"


@dataclass(frozen=True)
class GridSpec:
    """Bits, scheme and granularity of one tensor.

    Attributes:
        bits: 2 to 8.
        scheme: symmetric grids use -(2^(bits-1) - 1) to 2^(bits-1) - 1, affine ones 0 to 2^bits - 1.
        granularity: what shares one scale.
        group_size: 32, 64 or 128 weights of an output channel, where granularity is per group.
    """

    bits: int
    scheme: Scheme
    granularity: Granularity
    group_size: int | None = None

    def __post_init__(self) -> None:
        if not LEAST_BITS <= self.bits <= MOST_BITS:
            raise RecipeError(f"grids of {LEAST_BITS} to {MOST_BITS} bits are known, not of {self.bits}")
        grouped = self.granularity is Granularity.PER_GROUP
        if grouped and self.group_size not in GROUP_SIZES:
            sizes = ", ".join(str(size) for size in GROUP_SIZES)
            raise RecipeError(f"group_size is {self.group_size}; there are {sizes}")
        if not grouped and self.group_size is not None:
            raise RecipeError(f"group_size is for grids per group, not {self.granularity.value}")

    @property
    def lowest(self) -> int:
        """The least integer of the grid."""
        return 0 if self.scheme is Scheme.AFFINE else -self.highest

    @property
    def highest(self) -> int:
        """The greatest integer of the grid."""
        return (1 << self.bits) - 1 if self.scheme is Scheme.AFFINE else (1 << (self.bits - 1)) - 1


@dataclass(frozen=True)
class LayerSpec:
    """How a linear, a convolution or a token table is quantized.

    Attributes:
        mode: static, dynamic or weight-only.
        weights: their grid.
        input: the grid of what goes in; of static layers only.
        output: the grid of what comes out; of static layers only.
    """

    mode: Mode
    weights: GridSpec
    input: GridSpec | None = None
    output: GridSpec | None = None

    def __post_init__(self) -> None:
        has = (self.input is not None, self.output is not None)
        if self.mode is Mode.STATIC and not all(has):
            raise RecipeError("a static layer needs grids for what goes in and what comes out")
        if self.mode is not Mode.STATIC and any(has):
            raise RecipeError(f"a {self.mode.value} layer has a grid for its weights alone")


@dataclass(frozen=True)
class ProductSpec:
    """How a product of two activations is quantized: attention's scores, or its weighted sum of values.

    Attributes:
        left: grid of the left factor, queries or attention weights.
        right: grid of the right factor, keys or values.
        output: grid of what comes out; None to leave that in float, which LiteRT has no kernel for.
    """

    left: GridSpec
    right: GridSpec
    output: GridSpec | None = None


@dataclass(frozen=True)
class ComponentSpec:
    """How a module is quantized; what it does not name stays in float.

    Attributes:
        layers: by the module's name for them.
        products: of attention, "<attention module>.scores" and "<attention module>.values".
        schema_version: of the JSON.
    """

    layers: Mapping[str, LayerSpec]
    products: Mapping[str, ProductSpec] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def save(self, folder: Path) -> None:
        """Write `specification.json`."""
        text = json.dumps(asdict(self), indent=1) + "\n"
        (folder / SPECIFICATION_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> ComponentSpec:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing, damaged or of another version.
        """
        path = folder / SPECIFICATION_FILE
        try:
            document: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}") from error
        version = document.get("schema_version") if isinstance(document, dict) else None
        if version != SCHEMA_VERSION:
            raise DataError(f"{path} is of version {version}, and {SCHEMA_VERSION} is known here")
        for part, kind in (("layers", LayerSpec), ("products", ProductSpec)):
            entries = document.get(part)
            for name, entry in entries.items() if isinstance(entries, dict) else ():
                _check(kind, entry, path, f"{part}.{name}")
        return _check(cls, document, path)


def _check(kind: type[SpecT], document: object, path: Path, *location: str) -> SpecT:
    """Make a specification, or part of one, of JSON; say where it is wrong."""
    try:
        return TypeAdapter(kind).validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, (*location, *first["loc"])))
        raise DataError(f"{path}: {where}: {first['msg']}") from error
    except RecipeError as error:  # what a grid says of itself
        raise DataError(f"{': '.join((str(path), *location))}: {error}") from error


ACTIVATION_8 = GridSpec(8, Scheme.AFFINE, Granularity.PER_TENSOR)
CHANNELS_8 = GridSpec(8, Scheme.SYMMETRIC, Granularity.PER_CHANNEL)
BLOCKS_4 = GridSpec(4, Scheme.SYMMETRIC, Granularity.PER_GROUP, 32)

BLOCKS_2 = GridSpec(2, Scheme.AFFINE, Granularity.PER_GROUP, 32)

INT8_STATIC = LayerSpec(Mode.STATIC, CHANNELS_8, ACTIVATION_8, ACTIVATION_8)
INT8_DYNAMIC = LayerSpec(Mode.DYNAMIC, CHANNELS_8)
INT4_DYNAMIC = LayerSpec(Mode.DYNAMIC, BLOCKS_4)
INT2_DYNAMIC = LayerSpec(Mode.DYNAMIC, BLOCKS_2)
INT8_TABLE = LayerSpec(Mode.WEIGHT_ONLY, CHANNELS_8)
INT8_PRODUCT = ProductSpec(ACTIVATION_8, ACTIVATION_8, ACTIVATION_8)
