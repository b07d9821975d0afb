"""ONNX Runtime's thread settings on graphs of ours (docs/FASTER_GRAPHS.md).

One session each, all of a graph in turns in one process, each after a run that is not counted: medians of
paired ratios to the settings that the runtime has. Wants an idle machine.

    python -m bench.ort_threads GRAPH.onnx [GRAPH.onnx ...] [--threads 2] [--runs 60]
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from bench.timing import Graph, interleaved, machine

AS_IT_IS = "as it is"
_SPINNING_STOPS = {"session.force_spinning_stop": "1"}
SETTINGS: Mapping[str, Mapping[str, str]] = {
    AS_IT_IS: _SPINNING_STOPS,
    "spinning goes on": {},
    "no spinning": {"session.intra_op.allow_spinning": "0"},
    "dynamic blocks of 2": _SPINNING_STOPS | {"session.dynamic_block_base": "2"},
    "dynamic blocks of 4": _SPINNING_STOPS | {"session.dynamic_block_base": "4"},
    "dynamic blocks of 8": _SPINNING_STOPS | {"session.dynamic_block_base": "8"},
}
"""By name, entries of a session's configuration."""
_PLACED = "second thread placed"
_DTYPES = {"tensor(int32)": np.int32, "tensor(uint8)": np.uint8, "tensor(float)": np.float32}


def open_session(
    path: Path, threads: int, entries: Mapping[str, str]
) -> tuple[Graph, dict[str, NDArray[Any]]]:
    """A graph with these settings, and something that it reads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    for name, value in entries.items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    feed = {
        tensor.name: random.integers(1, 200, tensor.shape).astype(_DTYPES[tensor.type])
        for tensor in session.get_inputs()
    }
    return lambda given: np.asarray(session.run(None, given)[0]), feed


@click.command()
@click.argument(
    "paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@click.option("--threads", default=2, show_default=True)
@click.option("--runs", default=60, show_default=True)
def main(paths: tuple[Path, ...], threads: int, runs: int) -> None:
    """Measure and print."""
    print(machine())
    settings = {**SETTINGS}
    if threads > 1:  # processors are counted from 1; the calling thread has no place of its own
        places = ";".join(str(index) for index in range(2, threads + 1))
        settings[_PLACED] = _SPINNING_STOPS | {"session.intra_op_thread_affinities": places}
    for path in paths:
        opened = {name: open_session(path, threads, entries) for name, entries in settings.items()}
        graphs = {name: graph for name, (graph, _) in opened.items()}
        times = interleaved(graphs, opened[AS_IT_IS][1], runs, warm=1)
        for name, own in times.items():
            ratio = float(np.median(own / times[AS_IT_IS]))
            print(
                f"{path}: {threads} threads, {name:<22} p10 {np.percentile(own, 10):7.2f} ms, {ratio:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
