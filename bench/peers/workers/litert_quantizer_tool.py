"""litert-quantizer (until 0.10 ai-edge-quantizer) by its own recipes, and LiteRT."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.serving import Job, Run, run_worker

SIGNATURE = "serving_default"


class LiteRtQuantizer:
    """`how`: "dynamic", "static" or "static-linears", static int8 of linears and convolutions alone."""

    packages: tuple[str, ...] = ("litert-quantizer", "ai-edge-litert")

    def quantize(self, job: Job) -> None:
        """Quantize a TFLite graph."""
        from litert_quantizer import qtyping, quantizer, recipe

        tool = quantizer.Quantizer(job.source)
        if job.how == "static-linears":
            for kind in ("FULLY_CONNECTED", "CONV_2D"):
                tool.add_static_config(
                    ".*", qtyping.TFLOperationName(kind), activation_num_bits=8, weight_num_bits=8
                )
        else:
            static = job.how == "static"
            tool.load_quantization_recipe(recipe.static_wi8_ai8() if static else recipe.dynamic_wi8_afp32())
        seen = None
        if job.how != "dynamic":
            name = _input_name(job.source)
            seen = tool.calibrate({SIGNATURE: [{name: row[None]} for row in job.rows()]}, num_threads=2)
        Path(job.out).write_bytes(bytes(tool.quantize(seen).quantized_model))

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Open LiteRT's interpreter, which delegates to XNNPACK by itself."""
        from ai_edge_litert.interpreter import Interpreter

        engine = Interpreter(str(path), num_threads=threads)
        engine.allocate_tensors()
        source, target = engine.get_input_details()[0]["index"], engine.get_output_details()[0]["index"]

        def run(row: NDArray[Any]) -> NDArray[np.float32]:
            engine.set_tensor(source, row)
            engine.invoke()
            found: NDArray[np.float32] = engine.get_tensor(target)
            return found

        return run


def _input_name(path: str) -> str:
    from ai_edge_litert.interpreter import Interpreter

    signatures = Interpreter(path).get_signature_list()
    return str(signatures[SIGNATURE]["inputs"][0])


if __name__ == "__main__":
    run_worker(LiteRtQuantizer())
