"""Variants: sets of graph files that answer together, and the files themselves."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.manifest.graphs import PortOverride
from pocketvl_runtime.manifest.names import Engine, Precision, Status, check_relative_path
from pocketvl_runtime.schema import OPTIONAL

_SHA256 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]+(\.[0-9]+)*")


class Mode(StrEnum):
    """When ranges of quantized activations are set: never, at export, at each run, or as layers differ."""

    FLOAT = "float"
    STATIC = "static"
    DYNAMIC = "dynamic"
    MIXED = "mixed"


# Bits of weights and of activations, None where layers differ; and when ranges are set.
_NUMBERS: dict[Precision, tuple[int | None, int | None, Mode]] = {
    Precision.FP32: (32, 32, Mode.FLOAT),
    Precision.FP16: (16, 32, Mode.FLOAT),  # engines widen the weights when they load them
    Precision.INT8: (8, 8, Mode.STATIC),
    Precision.INT8DYN: (8, 8, Mode.DYNAMIC),
    Precision.INT4: (4, 8, Mode.DYNAMIC),
    Precision.INT2: (2, 8, Mode.DYNAMIC),
    Precision.MIXED: (None, None, Mode.MIXED),
}


@dataclass(frozen=True)
class Comparable:
    """A space whose vectors may be compared with a variant's, and how much that loses.

    Attributes:
        space: embedding-space id.
        centred_cosine_median: per component, median mean-centred cosine of this variant's vectors to that
            space's.
    """

    space: str
    centred_cosine_median: Mapping[str, float]


@dataclass(frozen=True)
class VariantFile:
    """Where a variant keeps a component.

    Attributes:
        file: the graph, relative to the bundle.
        weights: the file with what an ONNX graph keeps outside its own, as over 2 GiB it must; None: it has
            all.
        signature: which of a TFLite file's; None: the only one it has. ONNX has none.
        ports: those that differ from the component's contract, by name.
    """

    file: str
    signature: str | None = field(default=None, metadata=OPTIONAL)
    ports: Mapping[str, PortOverride] = field(default_factory=dict, metadata=OPTIONAL)
    weights: str | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        for path in self.paths:
            check_relative_path(path)

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files."""
        return (self.file,) if self.weights is None else (self.file, self.weights)


@dataclass(frozen=True)
class VariantSpec:
    """A set of graphs that answer together.

    Attributes:
        weights_bits, activations_bits: None where layers differ.
        files: by component.
        min_engine: the oldest version of the engine that computes it rightly, as docs/BUNDLE.md counts them;
            None: any.
        comparable: spaces other than its own that its vectors may be compared with.
    """

    engine: Engine
    precision: Precision
    weights_bits: int | None
    activations_bits: int | None
    mode: Mode
    status: Status
    files: Mapping[str, VariantFile]
    min_engine: str | None = None
    comparable: tuple[Comparable, ...] = ()

    @property
    def paths(self) -> frozenset[str]:
        """The files of all its graphs."""
        return frozenset(path for stored in self.files.values() for path in stored.paths)

    def __post_init__(self) -> None:
        if self.min_engine is not None and not _VERSION.fullmatch(self.min_engine):
            raise BundleError(f"min_engine {quoted(self.min_engine)} is no version, as 1.20 is one")

    @classmethod
    def of(
        cls,
        engine: Engine,
        precision: Precision,
        status: Status,
        files: Mapping[str, VariantFile],
        min_engine: str | None = None,
        comparable: tuple[Comparable, ...] = (),
    ) -> VariantSpec:
        """A variant whose bits and mode are those of its precision."""
        weights, activations, mode = _NUMBERS[precision]
        return cls(engine, precision, weights, activations, mode, status, files, min_engine, comparable)


@dataclass(frozen=True)
class FileEntry:
    """Checksum (lower-case hex) and size in bytes of a file in the bundle."""

    sha256: str
    bytes: int

    def __post_init__(self) -> None:
        if not _SHA256.fullmatch(self.sha256) or self.bytes < 0:
            raise BundleError("sha256 must be 64 lower-case hex digits and bytes not negative")
