"""The graphs of a variant in their engine, fed by what processors made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np

from pocketvl_runtime.backends import Array, Backend, open_backend
from pocketvl_runtime.backends.recorder import Recorder
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.manifest import MAX_GRAPH_BYTES, MAX_WEIGHTS_BYTES, PortKind
from pocketvl_runtime.obstacles import components_before, runnable_components

Made: TypeAlias = Mapping[PortKind, Array]
"""What a processor made of one input, or a component gave, by kind."""

_NORM_TOLERANCE = 1e-2


class LoadedGraphs:
    """The components of the tasks that this runtime can run."""

    def __init__(self, bundle: Bundle, variant: str, threads: int, max_graph_bytes: int | None) -> None:
        """Loads them; see `load` for the arguments and what is raised."""
        self._bundle, self._variant = bundle, variant
        self._contracts = bundle.manifest.graphs
        files = bundle.variant(variant).files
        self._backends: dict[str, Backend] = {
            name: self._open(name, threads, max_graph_bytes)
            for name in runnable_components(bundle.manifest)
            if name in files
        }
        self._takes = {  # looked up once: of a graph of a tenth of a millisecond, this is a part that counts
            name: [(given.name, given.source or "", given.kind) for given in self._contracts[name].inputs]
            for name in self._backends
        }

        self._reads = {name: components_before(bundle.manifest, name) for name in self._backends}

    def _open(self, component: str, threads: int, most: int | None) -> Backend:
        graph = self._bundle.manifest.graph(self._variant, component)
        size = sum(self._bundle.manifest.files[path].bytes for path in graph.paths)  # others `read` refuses
        most = (MAX_GRAPH_BYTES if graph.weights is None else MAX_WEIGHTS_BYTES) if most is None else most
        if size > most:
            raise BundleError(
                f"{self._bundle.root / graph.file} has {size} bytes, and at most {most} are read; "
                "use a smaller variant"
            )
        content, weights = self._bundle.read(graph.file), self._bundle.read_weights(graph)
        return open_backend(graph, content, threads, weights)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the backends did on their own account, each said once."""
        return tuple(dict.fromkeys(note for backend in self._backends.values() for note in backend.notes))

    @property
    def engine(self) -> str:
        """The engine in use and its version."""
        return ", ".join(dict.fromkeys(backend.name for backend in self._backends.values()))

    @property
    def components(self) -> frozenset[str]:
        """The components that are loaded."""
        return frozenset(self._backends)

    @contextmanager
    def recorded(self) -> Iterator[dict[str, Recorder]]:
        """Within it, the inputs that every component's graph was last given are kept."""
        kept = self._backends
        recorders = {name: Recorder(backend) for name, backend in kept.items()}
        self._backends = {**recorders}
        try:
            yield recorders
        finally:
            self._backends = kept

    def run(self, component: str, made: Mapping[str, Made], check: bool) -> dict[str, Array]:
        """What a component gives, by output; components that it reads from are run first.

        Args:
            component: which.
            made: what the processors made, by processor and kind; and what other components gave, by
                "component.port" and kind, where they have been run already.
            check: whether embeddings and logits that cannot be right are refused.

        Raises:
            BundleError: the variant has no such component.
            InputError: something that it takes was not made.
            BackendError: the engine failed, or gave an embedding or logits that cannot be right.
        """
        if component not in self._backends:
            raise BundleError(f"variant {self._variant} has no {component}")
        feed = {}
        for before in self._reads[component]:
            if not any(each.startswith(f"{before}.") for each in made):
                made = {**made, **self.given(before, self.run(before, made, check))}
        for name, source, kind in self._takes[component]:
            value = made[source].get(kind) if source in made else None
            if value is None:
                raise InputError(f"{component} needs {kind.value} of {source} as {name!r}")
            feed[name] = value
        outputs = self._backends[component].run(feed)
        if check:
            for port in self._contracts[component].outputs:
                self._check(outputs[port.name], port.kind, component)
        return outputs

    def given(self, component: str, outputs: Mapping[str, Array]) -> dict[str, Made]:
        """A component's outputs as what others take, by "component.port"."""
        ports = self._contracts[component].outputs
        return {f"{component}.{port.name}": {port.kind: outputs[port.name]} for port in ports}

    def _check(self, output: Array, kind: PortKind, component: str) -> None:
        """An answer that cannot be right must not pass as one."""
        if kind not in (PortKind.EMBEDDING, PortKind.CLASS_LOGITS):
            return  # hidden states that are wrong make logits wrong
        if not np.isfinite(output).all():
            raise BackendError(f"{self._variant}: {component} gave NaN or infinity; use another variant")
        norm = float(np.linalg.norm(output.astype(np.float32)))
        if kind is PortKind.EMBEDDING and not abs(norm - 1) <= _NORM_TOLERANCE:
            raise BackendError(
                f"{self._variant}: {component} gave a vector of length {norm:.3g} where 1 is right; "
                "use another variant"
            )
