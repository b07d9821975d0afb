"""Ports: inputs and outputs of components, with dtype, shape and meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pocketvl_runtime.manifest import DType, PortKind, Shape

__all__ = ["MEDIA_KINDS", "ComponentPorts", "DType", "Port", "PortKind", "Shape", "token_input"]

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


def token_input(inputs: Sequence[Port]) -> int | None:
    """Which of a component's inputs is token ids; None where none is."""
    return next((index for index, port in enumerate(inputs) if port.kind is PortKind.TOKEN_IDS), None)
