"""OpenVINO, and NNCF's post-training quantization as its documentation shows it for transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.serving import Job, Run, run_worker


class OpenVino:
    """`how`: "as-it-comes" or "f32", the inference precision of what is not int8."""

    packages: tuple[str, ...] = ("openvino", "nncf")

    def quantize(self, job: Job) -> None:
        """Quantize an ONNX graph by NNCF, its defaults and model_type TRANSFORMER."""
        import nncf
        import openvino

        model = openvino.Core().read_model(job.source)
        rows = job.rows()
        dataset = nncf.Dataset([row[None] for row in rows])
        quantized = nncf.quantize(
            model, dataset, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows)
        )
        openvino.save_model(quantized, job.out, compress_to_fp16=False)

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Compile for the CPU, one stream."""
        import openvino

        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }
        if how == "f32":
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        request = openvino.Core().compile_model(str(path), "CPU", settings).create_infer_request()

        def run(row: NDArray[Any]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = next(iter(request.infer([row]).values()))
            return found

        return run


if __name__ == "__main__":
    run_worker(OpenVino())
