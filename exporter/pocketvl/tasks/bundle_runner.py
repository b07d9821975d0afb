"""A variant of a bundle through the runtime, one row at a time, as on the device."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pocketvl.tasks.encoding import Array, Encoder
from pocketvl_runtime.backends import open_backend
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.variant_choice import default_threads


class BundleRunner:
    """The graphs of one variant; whatever they give is handed on, NaN and infinity too."""

    batch = 1

    def __init__(self, bundle: Path | Bundle, variant: str) -> None:
        """Loads the graphs.

        Raises:
            BundleError: the bundle is missing or damaged, or has no such variant.
            BackendError: the engine is not installed, is too old, or refuses a graph.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.name, self.encoder = variant, Encoder.of_bundle(opened)
        self._backends = {
            graph.component: open_backend(
                graph, opened.read(graph.file), default_threads(), opened.read_weights(graph)
            )
            for graph in opened.graphs(variant)
        }

    def run(self, component: str, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of a component by port."""
        return self._backends[component].run(inputs)
