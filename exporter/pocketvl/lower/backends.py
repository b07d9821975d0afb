"""The backend of every engine. A new engine is a member of `Engine`, a backend, and a line here."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from pocketvl.errors import LoweringError
from pocketvl.lower.base import EngineBackend
from pocketvl.lower.onnx.backend import OnnxBackend
from pocketvl.lower.tflite.backend import TfliteBackend
from pocketvl_runtime.manifest import Engine

BACKENDS: Mapping[Engine, EngineBackend] = MappingProxyType(
    {backend.engine: backend for backend in (OnnxBackend(), TfliteBackend())}
)

TOOLS = tuple(tool for backend in BACKENDS.values() for tool in backend.tools)
"""Distributions that write graphs of any engine."""


def backend_of(engine: Engine) -> EngineBackend:
    """The backend of an engine.

    Raises:
        LoweringError: it has none.
    """
    if engine not in BACKENDS:
        raise LoweringError(f"nothing lowers to {engine!r}: there is no backend for it in pocketvl.lower")
    return BACKENDS[engine]


def backend_of_file(path: Path) -> EngineBackend:
    """The backend of a graph file, by its suffix.

    Raises:
        LoweringError: it has another suffix than graphs have.
    """
    for backend in BACKENDS.values():
        if path.suffix == backend.suffix:
            return backend
    known = " or ".join(backend.suffix for backend in BACKENDS.values())
    raise LoweringError(f"{path} is not a graph file: its name must end in {known}")
