"""Run graphs on arrays with one version of an engine, where only numpy and that engine are installed.

    PYTHON -m tests.android.run_graphs onnx|tflite|LIBRARY FOLDER...

LIBRARY is libtflite_desktop.so, which brings the AAR's engine. Each FOLDER has graph (the file) and
inputs.npz (name -> [cases, ...]); outputs.npz is written beside them, with the engine's version as `version`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.android.aar_interpreter import AarInterpreter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

Arrays = Mapping[str, NDArray[Any]]


def run_onnx(graph: Path, cases: Sequence[Arrays]) -> tuple[str, list[Arrays]]:
    """Each case through ONNX Runtime, with one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph.read_bytes(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found: list[Arrays] = [dict(zip(names, session.run(None, case), strict=True)) for case in cases]
    return onnxruntime.__version__, found


def run_tflite(graph: Path, cases: Sequence[Arrays]) -> tuple[str, list[Arrays]]:
    """Each case through TensorFlow's interpreter of TFLite graphs, with one thread."""
    import tensorflow
    from tensorflow.lite.python.interpreter import Interpreter

    interpreter = Interpreter(model_content=graph.read_bytes(), num_threads=1)
    runner = interpreter.get_signature_runner()
    found: list[Arrays] = [{name: value.copy() for name, value in runner(**case).items()} for case in cases]
    return tensorflow.__version__, found


def run_aar(library: str, graph: Path, cases: Sequence[Arrays]) -> tuple[str, list[Arrays]]:
    """Each case through the AAR's library."""
    interpreter = AarInterpreter(Path(library), graph)
    return interpreter.version, [interpreter.run(case) for case in cases]


def main(engine: str, folders: Sequence[str]) -> None:
    """Writes what the engine gives, for each folder."""
    for folder in map(Path, folders):
        inputs = dict(np.load(folder / "inputs.npz"))
        count = len(next(iter(inputs.values())))
        cases: list[Arrays] = [
            {name: values[case] for name, values in inputs.items()} for case in range(count)
        ]
        runs = {"onnx": run_onnx, "tflite": run_tflite}
        version, found = runs.get(engine, partial(run_aar, engine))(folder / "graph", cases)
        outputs: dict[str, Any] = {name: np.stack([case[name] for case in found]) for name in found[0]}
        np.savez(folder / "outputs.npz", version=version, **outputs)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
