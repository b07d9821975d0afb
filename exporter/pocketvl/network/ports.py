"""Ports: what goes into a component and comes out of it, with its type, shape and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

Shape = tuple[int | str, ...]
"""Sizes; a name stands for one that differs from run to run."""


class DType(StrEnum):
    """numpy's names."""

    FLOAT32 = "float32"
    INT32 = "int32"
    UINT8 = "uint8"


class PortKind(StrEnum):
    """What a port carries, with the values of the bundle format."""

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
class Port:
    """One input or output of a component.

    Attributes:
        name: of the graph's tensor.
        dtype: of its elements.
        shape: with a batch of 1.
        kind: what it carries.
        source: of an input, the processor ("image", "text") or the output "component.port" that fills it.
    """

    name: str
    dtype: DType
    shape: Shape
    kind: PortKind
    source: str | None = None


@dataclass(frozen=True)
class ComponentPorts:
    """The inputs of a component, in the order of its forward's arguments, and its outputs."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
