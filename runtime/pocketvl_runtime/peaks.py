"""What this machine can do at best: multiply-adds of its engines on one large linear, and bytes copied."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import numpy as np

from pocketvl_runtime.backends import can_run, open_backend
from pocketvl_runtime.manifest import Engine, GraphSpec, Precision, TensorSpec
from pocketvl_runtime.op_result import Peak

ROWS, CHANNELS = 256, 512
"""Of the linear in peak_graphs/: so many rows, and so many channels in and out."""
MULTIPLY_ADDS = ROWS * CHANNELS * CHANNELS
GRAPHS = "peak_graphs"
_DTYPES = {
    (Engine.ONNX, Precision.FP32): "float32",
    (Engine.ONNX, Precision.INT8): "uint8",
    (Engine.TFLITE, Precision.FP32): "float32",
    (Engine.TFLITE, Precision.INT8): "int8",
}
_CACHED_BYTES, _MEMORY_BYTES = 128 << 10, 64 << 20
_SECONDS = 0.1
_CPUS = Path("/sys/devices/system/cpu")


def measure_peak(engines: Iterable[Engine], threads: int) -> Peak:
    """Measures for about a tenth of a second each what engines multiply, and what memory copies.

    Args:
        engines: those that are installed are measured.
        threads: how many.
    """
    gmacs = {}
    for engine in dict.fromkeys(engines):
        for precision in (Precision.FP32, Precision.INT8):
            graph = linear_graph(engine, precision)
            if can_run(graph):
                gmacs[peak_name(graph)] = _gmacs_per_s(graph, threads)
    return Peak(threads, gmacs, _gb_per_s(_CACHED_BYTES, threads), _gb_per_s(_MEMORY_BYTES, threads))


def linear_graph(engine: Engine, precision: Precision) -> GraphSpec:
    """The graph that is run for an engine's peak, float32 or 8-bit integers throughout."""
    dtype = _DTYPES[engine, precision]
    return GraphSpec(
        "linear",
        engine,
        precision,
        f"{GRAPHS}/linear.{precision.value}.{engine.value}",
        (TensorSpec("x", dtype, (ROWS, CHANNELS)),),
        (TensorSpec("y", dtype, (ROWS, CHANNELS)),),
    )


def peak_name(graph: GraphSpec) -> str:
    """What a graph's peak is called in a bench's result, "tflite-int8"."""
    return f"{graph.engine.value}-{graph.precision.value}"


def packed_graph(graph: GraphSpec) -> bytes:
    """The file of a graph that the runtime brings."""
    packed = files("pocketvl_runtime").joinpath(GRAPHS, f"{graph.graph_id}.gz").read_bytes()
    return gzip.decompress(packed)


def largest_cache_bytes() -> int | None:
    """Size of the largest cache that a processor has or shares; None: the system does not tell."""
    sizes = []
    for path in _CPUS.glob("cpu[0-9]*/cache/index*/size"):  # of all: those of a phone or board differ
        try:
            text = path.read_text().strip()
            sizes.append(int(text.rstrip("KM")) * {"K": 1 << 10, "M": 1 << 20}.get(text[-1:], 1))
        except (OSError, ValueError):
            continue
    return max(sizes, default=None)


def _gmacs_per_s(graph: GraphSpec, threads: int) -> float:
    backend = open_backend(graph, packed_graph(graph), threads)
    (given,) = graph.inputs
    inputs = {given.name: np.ones(given.shape, given.dtype)}
    return MULTIPLY_ADDS / _quickest(lambda: backend.run(inputs)) / 1e9


def _gb_per_s(size: int, threads: int) -> float:
    """Bytes read and written by copying arrays of `size` bytes, one for each thread."""
    pairs = [(np.ones(size, np.uint8), np.zeros(size, np.uint8)) for _ in range(threads)]
    repeats = max(1, (8 << 20) // size)  # so that a thread has enough to do before it meets the others

    def copy(index: int) -> None:
        source, target = pairs[index]
        for _ in range(repeats):
            np.copyto(target, source)

    with ThreadPoolExecutor(threads) as pool:
        seconds = _quickest(lambda: list(pool.map(copy, range(threads))))
    return 2 * size * repeats * threads / seconds / 1e9


def _quickest(work: Callable[[], object]) -> float:
    """Seconds of the quickest of as many calls as fit; at least three."""
    quickest, end, calls = float("inf"), time.perf_counter() + _SECONDS, 0
    while calls < 3 or time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        quickest = min(quickest, time.perf_counter() - begin)
        calls += 1
    return max(quickest, 1e-9)
