"""What every worker process does: quantizes one graph, or serves one over stdin and stdout.

    python -m bench.peers.workers.NAME quantize JOB RESULT
    python -m bench.peers.workers.NAME serve GRAPH INPUTS THREADS HOW

Workers run in virtual environments of their own: nothing is imported here that a peer does not bring itself.
A request is a line of JSON, and so is its answer; what engines print goes to stderr.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Run = Callable[[NDArray[Any]], NDArray[np.float32]]
"""One input row [1, ...] -> its embedding [1, D]."""


@dataclass(frozen=True)
class Job:
    """What is to be quantized.

    Attributes:
        source: the float graph.
        calibration: a .npy file of input rows.
        out: where the graph is written.
        how: one of the worker's ways.
    """

    source: str
    calibration: str
    out: str
    how: str

    def rows(self) -> NDArray[Any]:
        """The calibration inputs [N, ...]."""
        rows: NDArray[Any] = np.load(self.calibration)
        return rows


class Tool(Protocol):
    """What a worker brings."""

    packages: tuple[str, ...]
    """Whose versions are recorded."""

    def quantize(self, job: Job) -> None:
        """Write the job's graph."""

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Open a graph for inference with so many threads."""


def run_worker(tool: Tool) -> None:
    """Do what the command line says."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if sys.argv[1] == "quantize":
        _quantize(tool, Path(sys.argv[2]), Path(sys.argv[3]))
        return
    graph, inputs, threads, how = sys.argv[2:6]
    rows: NDArray[Any] = np.load(inputs)

    def answer(content: dict[str, Any]) -> None:
        print(json.dumps(content), file=answers, flush=True)

    try:
        run = tool.open_graph(Path(graph), int(threads), how)
        run(rows[:1])
        answer({"ready": True})
        for line in sys.stdin:
            answer(_answer(run, rows, json.loads(line)))
    except Exception as error:  # engines raise whatever they like, and the other end has to know
        answer({"error": last_line(error)})
        raise


def _quantize(tool: Tool, job_file: Path, result: Path) -> None:
    job = Job(**json.loads(job_file.read_text(encoding="utf-8")))
    begin = time.perf_counter()
    tool.quantize(job)
    seconds = time.perf_counter() - begin
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in tool.packages)
    result.write_text(json.dumps({"seconds": seconds, "versions": versions}), encoding="utf-8")


def _answer(run: Run, rows: NDArray[Any], request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "outputs":
        found = [np.asarray(run(rows[index : index + 1]), np.float32) for index in range(len(rows))]
        np.save(request["out"], np.concatenate(found).reshape(len(rows), -1))
        return {"done": True}
    feed = rows[:1]
    for _ in range(request["warm"]):
        run(feed)
    times = []
    for _ in range(request["runs"]):
        begin = time.perf_counter()
        run(feed)
        times.append(1e3 * (time.perf_counter() - begin))
    return {"ms": times}


def last_line(error: BaseException) -> str:
    """What an error says, in one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"[:300]


def job_json(job: Job) -> str:
    """A job as a worker reads it."""
    return json.dumps(asdict(job))
