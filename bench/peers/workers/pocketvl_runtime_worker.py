"""pocketvl's own runtime: one component of a bundle, opened and run as `pocketvl-run` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.peers.workers.serving import Job, Run, run_worker
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.bundle import Bundle


class PocketVl:
    """`how`: VARIANT:COMPONENT of the bundle that is named as the graph."""

    packages: tuple[str, ...] = ()

    def quantize(self, job: Job) -> None:
        """Never called: `pocketvl export` makes all variants at once."""
        raise NotImplementedError("pocketvl's variants come from an export")

    def open_graph(self, path: Path, threads: int, how: str) -> Run:
        """Open a component of a variant with no settings but the threads."""
        bundle = Bundle.open(path)
        variant, component = how.split(":")
        graph = bundle.manifest.graph(variant, component)
        backend = open_backend(graph, bundle.read(graph.file), threads)
        source, target = graph.inputs[0].name, graph.outputs[0].name

        def run(row: NDArray[Any]) -> NDArray[np.float32]:
            return np.asarray(backend.run({source: row})[target], np.float32)

        return run


if __name__ == "__main__":
    run_worker(PocketVl())
