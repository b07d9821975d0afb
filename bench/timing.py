"""What benchmarks share: graphs opened as the device opens them, and timed in turns."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.amx import has_amx
from pocketvl.lower.backends import backend_of_file
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.isa import cpu_name, instruction_set
from pocketvl_runtime.manifest import GraphSpec, Precision

Graph = Callable[[Mapping[str, NDArray[Any]]], NDArray[np.float32]]
_WARMUP = 3


def machine() -> str:
    """Where times were taken, in words."""
    count, isa = usable_processors(), instruction_set()
    if "+amx" in isa and not has_amx():
        isa = f"{isa.removesuffix('+amx')} (its AMX refused)"
    return f"{cpu_name()}, {isa}, {count} processor{'s' * (count > 1)}"


def open_graph(path: Path, role: str, threads: int) -> Graph:
    """Open a graph as the device does."""
    backend = backend_of_file(path)
    tensors = backend.graph_io(path)
    spec = GraphSpec(role, backend.engine, Precision.INT8, path.name, tensors.inputs, tensors.outputs)
    opened = open_backend(spec, path.read_bytes(), threads)
    output = tensors.outputs[0].name
    return lambda feed: np.asarray(opened.run(feed)[output], np.float32)


def interleaved(
    graphs: Mapping[str, Graph], feed: Mapping[str, NDArray[Any]], runs: int, *, warm: int = 0
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds [runs] of every graph, all of them in each turn, in an order that changes.

    With `warm`, each runs that often before it is timed: among many graphs, weights would not be in a cache.
    """
    times: dict[str, list[float]] = {name: [] for name in graphs}
    shuffle = random.Random(0)
    for turn in range(runs + _WARMUP):
        for name in shuffle.sample(list(graphs), len(graphs)):
            for _ in range(warm):
                graphs[name](feed)
            begin = time.perf_counter()
            graphs[name](feed)
            if turn >= _WARMUP:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return {name: np.array(found) for name, found in times.items()}
