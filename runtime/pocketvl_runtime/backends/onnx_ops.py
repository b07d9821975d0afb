"""Times of single operators in ONNX Runtime, from the profile that a session writes."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvl_runtime.backends import Array
from pocketvl_runtime.backends.onnx import OnnxBackend
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.manifest import GraphSpec

_SUFFIX = "_kernel_time"
_RUN = "model_run"
_CALLERS = ("If", "Loop", "Scan", "SequenceMap")
"""Ops that run graphs of their own."""
_DTYPES = {"float": "float32", "double": "float64"}
"""ONNX Runtime's names of dtypes that are not numpy's."""


@dataclass(frozen=True)
class OnnxEvent:
    """One call of one node in one run.

    Attributes:
        type: of the op, after the engine's own changes.
        name: of the node.
        provider: which ran it.
        own_us: microseconds without those of nodes that it called: of a loop, its body.
        inputs: dtypes and shapes, "float32[1,65,128]"; weights that the engine has packed are not among them.
        outputs: likewise.
    """

    type: str
    name: str
    provider: str
    own_us: float
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def profile_onnx(
    graph: GraphSpec, content: bytes, threads: int, inputs: Mapping[str, Array], runs: int
) -> tuple[list[float], list[list[OnnxEvent]]]:
    """Runs a graph under ONNX Runtime's profiler.

    Args:
        graph: as the manifest describes it.
        content: the graph's file.
        threads: of an inference.
        inputs: by name.
        runs: how many are told; two more come before them.

    Returns:
        Microseconds of every run, and its nodes in the order in which they began.

    Raises:
        BackendError: ONNX Runtime refuses the graph, or its profile cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="pocketvl-ops-") as folder:
        backend = OnnxBackend(graph, content, threads, str(Path(folder) / "ops"))
        for _ in range(2 + runs):
            backend.run(inputs)
        written = backend.end_profile()
        try:
            events = json.loads(written.read_text(encoding="utf-8", errors="replace"))
            found = list(_runs(events))[-runs:]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BackendError(
                f"{graph.graph_id}: ONNX Runtime's profile cannot be read ({error})"
            ) from error
    return [whole for whole, _ in found], [nodes for _, nodes in found]


def _runs(events: Iterable[dict[str, Any]]) -> Iterator[tuple[float, list[OnnxEvent]]]:
    """The runs of a profile; a run's event is written after those of its nodes."""
    nodes: list[dict[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            nodes.append(event)
        elif event.get("name") == _RUN:
            yield float(event["dur"]), list(_nodes(nodes))
            nodes = []


def _nodes(events: list[dict[str, Any]]) -> Iterator[OnnxEvent]:
    """The nodes of a run, each with its own time: what lies within another's time was called by that."""
    ordered = sorted(events, key=lambda each: (each["ts"], -each["dur"]))
    own = [float(each["dur"]) for each in ordered]
    open_at: list[int] = []  # of callers that have begun, the outermost first
    for index, event in enumerate(ordered):
        while open_at and _end(ordered[open_at[-1]]) < _end(event):
            open_at.pop()
        if open_at and event["ts"] < _end(ordered[open_at[-1]]):
            own[open_at[-1]] -= event["dur"]
        if event["args"]["op_name"] in _CALLERS:
            open_at.append(index)
    for event, own_us in zip(ordered, own, strict=True):
        told = event["args"]
        yield OnnxEvent(
            str(told["op_name"]),
            event["name"].removesuffix(_SUFFIX),
            str(told.get("provider", "")),
            max(own_us, 0.0),
            tuple(_tensors(told.get("input_type_shape", ()))),
            tuple(_tensors(told.get("output_type_shape", ()))),
        )


def _end(event: Mapping[str, Any]) -> float:
    return float(event["ts"]) + float(event["dur"])


def _tensors(told: Iterable[Mapping[str, Iterable[int]]]) -> Iterator[str]:
    for each in told:
        for dtype, shape in each.items():
            yield f"{_DTYPES.get(dtype, dtype)}[{','.join(map(str, shape))}]"
