"""Names, enums and limits that every part of a manifest shares."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import PurePosixPath

from pocketvl_runtime.errors import BundleError, quoted

FORMAT = "pocketvl-bundle"
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"

MAX_PIXELS = 89_000_000
"""No picture may have more, neither one that is handed in nor one that preprocessing makes."""

MAX_JSON_BYTES = 16_000_000
"""A larger manifest or golden pack is not read."""

MAX_TOKENIZER_BYTES = 40_000_000
"""A larger tokenizer is not read; those of 256,000 tokens have 35 MB."""

MAX_GRAPH_BYTES = 2**31 - 1
MAX_WEIGHTS_BYTES = 2**33
"""A larger graph is not read: neither protobuf nor a FlatBuffer, which graphs are, can be."""

MAX_TOKEN_ID = 2**31 - 1
"""Ids travel as int32."""

MAX_NAME_CHARS = 255

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Engine(StrEnum):
    """What runs a graph."""

    ONNX = "onnx"
    TFLITE = "tflite"


class Precision(StrEnum):
    """What a graph's weights and activations are held in; int8 is static, int8dyn, int4 and int2 dynamic.

    Mixed: layers of several widths, as a search chose them.
    """

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT8DYN = "int8dyn"
    INT4 = "int4"
    INT2 = "int2"
    MIXED = "mixed"

    @property
    def multiplies_integers(self) -> bool:
        """Whether an engine may multiply 8-bit integers in such a graph."""
        return self not in (Precision.FP32, Precision.FP16)


class Status(StrEnum):
    """Whether a variant passed the gate."""

    ACCEPTED = "accepted"
    EXPERIMENTAL = "experimental"


class Modality(StrEnum):
    """What a model takes in."""

    IMAGE = "image"
    TEXT = "text"
    AUDIO = "audio"


def variant_name(engine: Engine, precision: Precision) -> str:
    """The name of a variant: `<engine>-<precision>`."""
    return f"{engine.value}-{precision.value}"


def port_name(component: str, port: str) -> str:
    """How a port is referred to: `<component>.<port>`."""
    return f"{component}.{port}"


def component_of(port: str) -> str:
    """The component that an output, "component.port", is of."""
    return port.partition(".")[0]


def check_relative_path(path: str) -> str:
    """Returns `path` if it is a relative POSIX path that stays inside the bundle.

    Raises:
        BundleError: it is empty, absolute, holds a backslash, a drive, ".." or other odd parts.
    """
    pure = PurePosixPath(path)
    odd = not pure.parts or "\\" in path or ":" in path or "\0" in path or pure.is_absolute()
    if odd or str(pure) != path or any(part in (".", "..") for part in pure.parts):
        raise BundleError(f"path {quoted(path)} does not stay inside the bundle; do not use this bundle")
    return path


def check_name(what: str, name: str) -> None:
    """Raises BundleError where a component, processor, task or symbol is not called as code calls things."""
    if len(name) > MAX_NAME_CHARS or not _NAME.fullmatch(name):
        raise BundleError(f"{what} {quoted(name)} must be letters, digits and _, and not begin with a digit")
