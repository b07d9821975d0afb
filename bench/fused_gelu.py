"""What it gains to follow the advice of `pocketvl profile --explain` about activations in pieces.

    python -m bench.fused_gelu GRAPH.onnx [--rounds 200]

Writes every x * (1 + erf(x / c)) / 2 of a float graph as one Gelu, in a temporary folder, checks that both
graphs give the same, and times both in turns, one run each a round, with one thread: its CPU time, which
other programs that take the processor away do not lengthen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper

from pocketvl_runtime.isa import cpu_name, instruction_set
from pocketvl_runtime.op_profile import described_graph, made_up_inputs

_OPSET = 20
_PIECES = ("Div", "Erf", "Add", "Mul", "Mul")
_TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("graph", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pocketvl-gelu-") as folder:
        fused = Path(folder) / arguments.graph.name
        count = fuse(arguments.graph, fused)
        sessions = [_session(arguments.graph), _session(fused)]
    inputs = dict(made_up_inputs(described_graph(arguments.graph)[0]))
    before, after = (session.run(None, inputs)[0] for session in sessions)
    apart = float(np.abs(before - after).max() / np.abs(before).max())
    if not count or apart > _TOLERANCE:
        raise SystemExit(f"{count} activations were fused, and outputs are {apart:.1e} apart")
    times: list[list[float]] = [[], []]
    for _ in range(arguments.rounds):
        for session, taken in zip(sessions, times, strict=True):
            begin = time.thread_time()
            session.run(None, inputs)
            taken.append(1000 * (time.thread_time() - begin))
    print(f"{cpu_name()}, {instruction_set()}; onnxruntime {onnxruntime.__version__}, 1 thread")
    for name, taken in zip(("in pieces", "as one Gelu"), times, strict=True):
        p10, median = np.percentile(taken, (10, 50))
        print(f"{count} activations {name}: p10 {p10:.3f} ms, median {median:.3f} ms of {len(taken)} rounds")
    ratios = np.asarray(times[1]) / np.asarray(times[0])
    print(f"median of the rounds' ratios: {np.median(ratios):.3f}")


def fuse(source: Path, target: Path) -> int:
    """Writes a graph with every GELU by error function as one op; gives how many there were.

    torch.onnx writes one as Div, Erf, Add, Mul, Mul, each of the one before.
    """
    model = onnx.load(source)
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    readers = {name: node for node in graph.node for name in node.input}
    errors = [node for node in graph.node if node.op_type == "Erf"]
    for erf in errors:
        chain = [makers[erf.input[0]], erf]
        while len(chain) < len(_PIECES):
            chain.append(readers[chain[-1].output[0]])
        if tuple(node.op_type for node in chain) != _PIECES:
            raise SystemExit(f"{erf.name} is in no GELU that torch.onnx writes")
        gelu = helper.make_node("Gelu", chain[0].input[:1], chain[-1].output, name=f"{erf.name}_gelu")
        graph.node.insert(list(graph.node).index(chain[0]), gelu)
        for node in chain:
            graph.node.remove(node)
    for entry in model.opset_import:
        entry.version = max(entry.version, _OPSET) if not entry.domain else entry.version
    onnx.save(model, target)
    return len(errors)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
