"""ExecuTorch with its XNNPACK delegate, quantized by its own XNNPACKQuantizer (PT2E)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.serving import Job, Run, run_worker


class ExecuTorch:
    """`how`: "fp32", "dynamic" or "static"."""

    packages: tuple[str, ...] = ("executorch", "torch", "torchao")

    def quantize(self, job: Job) -> None:
        """Quantize an exported program and write it as a .pte file."""
        import torch
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
            XnnpackDynamicallyQuantizedPartitioner,
            XnnpackPartitioner,
        )
        from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
            XNNPACKQuantizer,
            get_symmetric_quantization_config,
        )
        from executorch.exir import to_edge_transform_and_lower
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        program = torch.export.load(job.source)
        rows = job.rows()
        example = (torch.from_numpy(rows[:1].copy()),)
        if job.how != "fp32":
            dynamic = job.how == "dynamic"
            settings = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=dynamic)
            prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(settings))
            for index in range(1 if dynamic else len(rows)):
                prepared(torch.from_numpy(rows[index : index + 1].copy()))
            program = torch.export.export(convert_pt2e(prepared), example)
        # as its own export of language models does; by the second alone, dynamic linears of an image tower
        # fail as they run
        partitioners = [XnnpackDynamicallyQuantizedPartitioner()] if job.how == "dynamic" else []
        lowered = to_edge_transform_and_lower(program, partitioner=[*partitioners, XnnpackPartitioner()])
        Path(job.out).write_bytes(lowered.to_executorch().buffer)

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Load the program, and its thread pool of that size."""
        import torch
        from executorch.extension.pybindings import portable_lib

        torch.set_num_threads(1)
        portable_lib._unsafe_reset_threadpool(threads)
        module = portable_lib._load_for_executorch(str(path))

        def run(row: NDArray[Any]) -> NDArray[np.float32]:
            found: NDArray[np.float32] = module.run_method("forward", (torch.from_numpy(row),))[0].numpy()
            return found

        return run


if __name__ == "__main__":
    run_worker(ExecuTorch())
