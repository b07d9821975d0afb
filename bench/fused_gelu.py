"""What it gains that ONNX Runtime runs each GELU as one op (pocketvl/lower/onnx/gelus.py).

    python -m bench.fused_gelu CHECKPOINT [--rounds 200]

Writes every component in fp32 twice, with its GELUs in the order of torch.onnx and in ours, checks that both
graphs give the same, and times them in turns, one run each a round, with one thread: its CPU time, which
other programs that take the processor away do not lengthen.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import onnxruntime

from pocketvl.families import open_checkpoint
from pocketvl.families.base import example_inputs
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.quantize.fold import fold_
from pocketvl_runtime.isa import cpu_name, instruction_set
from pocketvl_runtime.op_profile import described_graph, made_up_inputs

_ORDER = "pocketvl.lower.onnx.export.order_gelus_"
_TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=200)
    arguments = parser.parse_args()
    print(f"{cpu_name()}, {instruction_set()}; onnxruntime {onnxruntime.__version__}, 1 thread")
    checkpoint = open_checkpoint(arguments.checkpoint)
    checkpoint.model.requires_grad_(False)
    for component in checkpoint.components.values():
        examples = example_inputs(component)
        fold_(component.module, examples)
        named = dict(zip((port.name for port in component.inputs), examples, strict=True))
        outputs = [port.name for port in component.outputs]
        with tempfile.TemporaryDirectory(prefix="pocketvl-gelu-") as folder:
            paths = [Path(folder) / f"{name}.onnx" for name in ("pieces", "whole")]
            with patch(_ORDER, lambda graph: None):
                export_onnx(component.module, named, paths[0], outputs)
            export_onnx(component.module, named, paths[1], outputs)
            _time(component.name, paths, arguments.rounds)


def _time(name: str, paths: list[Path], rounds: int) -> None:
    sessions = [_session(path) for path in paths]
    inputs = dict(made_up_inputs(described_graph(paths[0])[0]))
    before, after = (session.run(None, inputs)[0] for session in sessions)
    apart = float(np.abs(before - after).max() / np.abs(before).max())
    if apart > _TOLERANCE:
        raise SystemExit(f"{name}: outputs are {apart:.1e} apart")
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for session, taken in zip(sessions, times, strict=True):
            begin = time.thread_time()
            session.run(None, inputs)
            taken.append(1000 * (time.thread_time() - begin))
    for told, taken in zip(("in pieces", "as one op"), times, strict=True):
        p10, median = np.percentile(taken, (10, 50))
        print(f"{name}, {told}: p10 {p10:.3f} ms, median {median:.3f} ms of {len(taken)} rounds")
    print(f"{name}: median of the rounds' ratios {np.median(np.divide(times[1], times[0])):.3f}")


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


if __name__ == "__main__":
    main()
