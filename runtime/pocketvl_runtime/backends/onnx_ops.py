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


class OnnxProfiler:
    """A graph in ONNX Runtime with its profiler on; a context manager.

    Raises:
        BackendError: ONNX Runtime refuses the graph.
    """

    def __init__(self, graph: GraphSpec, content: bytes, threads: int, weights: bytes | None = None) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="pocketvl-ops-")
        self._graph = graph
        self._backend = OnnxBackend(graph, content, threads, weights, str(Path(self._folder.name) / "ops"))
        self._counted: list[bool] = []

    def __enter__(self) -> OnnxProfiler:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def run(self, inputs: Mapping[str, Array], runs: int, warmup_runs: int) -> None:
        """Runs the graph; the first runs are not counted."""
        for index in range(warmup_runs + runs):
            self._backend.run(inputs)
            self._counted.append(index >= warmup_runs)

    def end(self) -> tuple[list[float], list[list[OnnxEvent]]]:
        """Ends the profile, and reads it.

        Returns:
            Microseconds of every counted run, and its nodes in the order in which they began.

        Raises:
            BackendError: the profile cannot be read.
        """
        written = self._backend.end_profile()
        try:
            found = list(_runs(json.loads(written.read_text(encoding="utf-8", errors="replace"))))
        except (OSError, ValueError, KeyError, TypeError) as error:
            why = f"ONNX Runtime's profile cannot be read ({error})"
            raise BackendError(f"{self._graph.graph_id}: {why}") from error
        counted = [run for run, counts in zip(found, self._counted, strict=False) if counts]
        return [whole for whole, _ in counted], [nodes for _, nodes in counted]


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
