"""ONNX Runtime's own quantization tools, as its documentation and examples use them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.serving import Job, Run, run_worker

_FLOAT = 1  # onnx.TensorProto.FLOAT


class OnnxRuntime:
    """`how`: "dynamic", "static" or "optimized-dynamic", by the transformer optimizer first."""

    packages: tuple[str, ...] = ("onnxruntime",)

    def quantize(self, job: Job) -> None:
        """Preprocess (shapes, constant folding) and quantize an ONNX graph."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_dynamic, quantize_static
        from onnxruntime.quantization.shape_inference import quant_pre_process

        with tempfile.TemporaryDirectory() as scratch:
            ready = str(Path(scratch) / "ready.onnx")
            if job.how == "optimized-dynamic":
                _optimize(job.source, ready)
            else:
                quant_pre_process(job.source, ready, skip_symbolic_shape=True)
            if job.how == "static":
                quantize_static(
                    ready,
                    job.out,
                    _reader(job.rows(), _input_name(ready)),
                    quant_format=QuantFormat.QDQ,
                    per_channel=True,
                    activation_type=QuantType.QUInt8,
                    weight_type=QuantType.QInt8,
                )
            else:
                quantize_dynamic(
                    ready,
                    job.out,
                    per_channel=True,
                    weight_type=QuantType.QInt8,
                    # of what follows the optimizer's own ops, whose types shape inference does not know
                    extra_options={"DefaultTensorType": _FLOAT} if job.how == "optimized-dynamic" else None,
                )

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Open a session whose threads do not spin between two requests."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.add_session_config_entry("session.force_spinning_stop", "1")
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name

        def run(row: NDArray[Any]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = session.run(None, {name: row})[0]
            return found

        return run


def _optimize(source: str, out: str) -> None:
    """Fuse attention, LayerNorm and GELU where the optimizer finds them; it finds heads and width itself."""
    from onnxruntime.transformers.optimizer import optimize_model

    optimize_model(source, model_type="clip", num_heads=0, hidden_size=0).save_model_to_file(out)


def _input_name(path: str) -> str:
    import onnx

    return str(onnx.load(path, load_external_data=False).graph.input[0].name)


def _reader(rows: NDArray[Any], name: str) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._rows: Iterator[NDArray[Any]] = iter(rows)

        def get_next(self) -> dict[str, NDArray[Any]] | None:
            row = next(self._rows, None)
            return None if row is None else {name: row[None]}

    return Reader()


if __name__ == "__main__":
    run_worker(OnnxRuntime())
