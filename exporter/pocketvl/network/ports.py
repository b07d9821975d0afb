"""Ports: inputs and outputs of components, with dtype, shape and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from pocketvl_runtime.manifest import DType, PortKind, Shape

__all__ = ["MEDIA_KINDS", "ComponentPorts", "DType", "Port", "PortKind", "Shape"]

MEDIA_KINDS = frozenset({PortKind.PIXELS, PortKind.AUDIO_FEATURES})
"""What the processors of pictures and sounds give."""


@dataclass(frozen=True)
class Port:
    """One input or output of a component.

    Attributes:
        name: of the graph's tensor.
        dtype: of its elements.
        shape: with a batch of 1.
        kind: what it carries.
        source: of an input, the processor ("image", "audio", "text") or the output "component.port" that
            fills it.
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
