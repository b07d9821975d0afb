"""Components: the contract of each graph, and what an engine is handed of one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath

from pocketvl_runtime.errors import BundleError, quoted, shortened
from pocketvl_runtime.manifest.names import (
    MAX_NAME_CHARS,
    Engine,
    Precision,
    check_name,
    check_relative_path,
)
from pocketvl_runtime.schema import OPTIONAL

Shape = tuple[int | str, ...]
"""Sizes; a name stands for one that differs from run to run."""

_MAX_SIZE = 2**31 - 1


class DType(StrEnum):
    """numpy's names."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    INT64 = "int64"
    INT32 = "int32"
    INT8 = "int8"
    UINT8 = "uint8"
    BOOL = "bool"

    @property
    def is_float(self) -> bool:
        """Whether it holds fractions."""
        return self in (DType.FLOAT32, DType.FLOAT16)


class PortKind(StrEnum):
    """What a port carries."""

    PIXELS = "pixels"
    AUDIO_FEATURES = "audio_features"
    TOKEN_IDS = "token_ids"
    ATTENTION_MASK = "attention_mask"
    POSITION = "position"
    HIDDEN = "hidden"
    EMBEDDING = "embedding"
    CLASS_LOGITS = "class_logits"
    TOKEN_LOGITS = "token_logits"
    KV_CACHE = "kv_cache"


@dataclass(frozen=True)
class InputPort:
    """An input.

    Attributes:
        source: what fills it (key `from`): a processor, or the output "component.port"; None where the task
            says what stands there, as positions do.
    """

    name: str
    dtype: DType
    shape: Shape
    kind: PortKind
    source: str | None = field(default=None, metadata={**OPTIONAL, "key": "from"})

    def __post_init__(self) -> None:
        _check_port(self.name, self.shape)


@dataclass(frozen=True)
class OutputPort:
    """An output.

    Attributes:
        space: of an embedding: equal where vectors may be compared.
    """

    name: str
    dtype: DType
    shape: Shape
    kind: PortKind
    space: str | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        _check_port(self.name, self.shape)
        if (self.space is not None) != (self.kind is PortKind.EMBEDDING):
            raise BundleError("space goes with kind 'embedding', and with no other")
        if self.space is not None and len(self.space) > MAX_NAME_CHARS:
            raise BundleError(
                f"space has {len(self.space)} characters, and at most {MAX_NAME_CHARS} may stand"
            )


@dataclass(frozen=True)
class ComponentGraph:
    """The contract of a component's graph, whatever engine and precision it comes in."""

    inputs: tuple[InputPort, ...]
    outputs: tuple[OutputPort, ...]

    def __post_init__(self) -> None:
        if not self.inputs or not self.outputs:
            raise BundleError("a graph has at least one input and one output")
        for ports in (self.inputs, self.outputs):
            names = [port.name for port in ports]
            if len(set(names)) < len(names):
                raise BundleError(f"two ports have one name: {quoted(sorted(names))}")

    def output(self, name: str) -> OutputPort | None:
        """The output of a name, if there is one."""
        return next((port for port in self.outputs if port.name == name), None)


@dataclass(frozen=True)
class PortOverride:
    """How a port of one variant differs from the component's contract."""

    dtype: DType | None = field(default=None, metadata=OPTIONAL)
    shape: Shape | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        _check_shape(self.shape or ())


@dataclass(frozen=True)
class TensorSpec:
    """Name, numpy dtype name and shape of a graph's input or output; -1 is a size that is not fixed."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class GraphSpec:
    """One graph as an engine is handed it: a file, the signature in it, and its tensors.

    Attributes:
        signature: which of a TFLite file's; None: the only one it has.
        min_engine: the oldest version of the engine that computes it rightly; None: any.
        weights: the file with the values that an ONNX graph keeps outside its own; None: it has all.
    """

    component: str
    engine: Engine
    precision: Precision
    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signature: str | None = None
    min_engine: str | None = None
    weights: str | None = None

    def __post_init__(self) -> None:
        check_relative_path(self.file)

    @property
    def paths(self) -> tuple[str, ...]:
        """Its files."""
        return (self.file,) if self.weights is None else (self.file, self.weights)

    @property
    def graph_id(self) -> str:
        """The file name without its folder."""
        return PurePosixPath(self.file).name


def tensors_of(
    ports: Iterable[InputPort | OutputPort], overrides: Mapping[str, PortOverride]
) -> tuple[TensorSpec, ...]:
    """The tensors that a variant's graph has for a component's ports."""
    specs = []
    for port in ports:
        other = overrides.get(port.name, PortOverride())
        shape = tuple(-1 if isinstance(size, str) else size for size in other.shape or port.shape)
        specs.append(TensorSpec(port.name, (other.dtype or port.dtype).value, shape))
    return tuple(specs)


def _check_port(name: str, shape: Shape) -> None:
    if not 1 <= len(name) <= MAX_NAME_CHARS:
        raise BundleError(f"a port's name must have 1 to {MAX_NAME_CHARS} characters, not {len(name)}")
    _check_shape(shape)


def _check_shape(shape: Shape) -> None:
    for size in shape:
        if isinstance(size, str):
            check_name("size", size)
        elif not 1 <= size <= _MAX_SIZE:
            raise BundleError(f"shape {shortened(str(list(shape)), 100)} must hold sizes of at least 1")
