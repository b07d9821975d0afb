"""What a bench measured of single operators, and the machine's peaks that these are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.json_schema import check_keywords
from pocketvl_runtime.schema import OPTIONAL

_AT_LEAST_0: Mapping[str, Any] = {"schema": {"minimum": 0}}
_AT_LEAST_1: Mapping[str, Any] = {"schema": {"minimum": 1}}
_NOT_EMPTY: Mapping[str, Any] = {"schema": {"minLength": 1}}

DELEGATE = "xnnpack"
"""The unit of an operator that LiteRT's accelerated delegate ran."""


@dataclass(frozen=True)
class OpTime:
    """One operator as the engine ran it.

    Attributes:
        type: as the engine calls it: "MatMul", "Fully Connected (NC, F32) GEMM", "CAST".
        unit: what ran it: "xnnpack", LiteRT's accelerated delegate; "builtin", LiteRT's own kernels; "cpu",
            ONNX Runtime's provider.
        ms: milliseconds in one run, of all its calls, without what the profiler adds: the mean of the quicker
            half of the runs.
        name: of the node, after the engine's own changes of the graph; may be missing.
        calls: how often one run called it: more than once inside of a loop; may be missing: once.
        partition: which of the delegate's parts of the graph it is in, counted from 0; may be missing.
        node: its index in the graph file; may be missing: not told.
        inputs: dtypes and shapes, "float32[1,65,128]", without weights that the engine has packed; may be
            missing.
        outputs: likewise; may be missing.
    """

    type: str = field(metadata=_NOT_EMPTY)
    unit: str = field(metadata=_NOT_EMPTY)
    ms: float = field(metadata=_AT_LEAST_0)
    name: str | None = field(default=None, metadata=OPTIONAL)
    calls: int = field(default=1, metadata={**_AT_LEAST_1, **OPTIONAL})
    partition: int | None = field(default=None, metadata={**_AT_LEAST_0, **OPTIONAL})
    node: int | None = field(default=None, metadata={**_AT_LEAST_0, **OPTIONAL})
    inputs: tuple[str, ...] = field(default=(), metadata=OPTIONAL)
    outputs: tuple[str, ...] = field(default=(), metadata=OPTIONAL)

    def __post_init__(self) -> None:
        check_keywords(self)


@dataclass(frozen=True)
class GraphOps:
    """Where the time of one graph of a variant goes, at one thread count.

    Attributes:
        component: which graph, as the manifest calls the component.
        threads: of an inference.
        runs: how many runs each figure is of.
        plain_ms: tenth percentile of a run without the engine's profiler.
        busy_threads: CPU time of those runs divided by the time they took.
        profiled_ms: likewise under the engine's profiler, as that tells it; null where there is none.
        ops: in the order in which they first ran; empty where the engine does not tell.
        reason: why there are none, in words; null where there are some.
    """

    component: str
    threads: int = field(metadata=_AT_LEAST_1)
    runs: int = field(metadata=_AT_LEAST_1)
    plain_ms: float = field(metadata=_AT_LEAST_0)
    busy_threads: float = field(metadata=_AT_LEAST_0)
    profiled_ms: float | None = field(metadata=_AT_LEAST_0)
    ops: tuple[OpTime, ...]
    reason: str | None

    def __post_init__(self) -> None:
        check_keywords(self)
        if bool(self.ops) == (self.reason is not None):
            raise BundleError("either ops or a reason why there are none must be given")


@dataclass(frozen=True)
class Peak:
    """What this machine reached at one thread count, measured beside the operators.

    Attributes:
        threads: how many.
        gmacs_per_s: by engine and precision ("tflite-int8"), billions of multiply-adds a second of a linear
            of 256 rows, 512 to 512 channels.
        cached_gb_per_s: bytes read and written by copying arrays that fit into the caches, 1e9 a second.
        memory_gb_per_s: likewise of arrays that do not.
    """

    threads: int = field(metadata=_AT_LEAST_1)
    gmacs_per_s: Mapping[str, float]
    cached_gb_per_s: float = field(metadata=_AT_LEAST_0)
    memory_gb_per_s: float = field(metadata=_AT_LEAST_0)

    def __post_init__(self) -> None:
        check_keywords(self)
