"""The interface of an engine's lowering, which `backends.py` lists by engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.errors import LoweringError
from pocketvl.lower.forms import Form, described, form_of
from pocketvl.lower.ids import Dataflow, check_ids
from pocketvl.lower.least_engine import LeastEngine
from pocketvl_runtime.manifest import Engine, TensorSpec

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.network.integers import QuantizedComponent

DEFAULT_OUTPUTS = ("embedding",)
_WEIGHTS_SUFFIX = ".weights"


@dataclass(frozen=True)
class GraphIO:
    """A graph's inputs and outputs, in order, under the names that callers use.

    Attributes:
        inputs: what it takes.
        outputs: what it gives.
        signature: the TFLite signature that has these names; None in ONNX, which has none.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    signature: str | None = None


class EngineBackend(ABC):
    """Export, quantization and inspection of one engine's graph files.

    Importing a backend imports no converter; its methods do.

    Attributes:
        engine: which one; its value is the suffix of the graph files.
        title: its name in tables for people.
        tools: distributions that write its graphs; a result made with another version is another result.
        runtime: distribution that runs its graphs.
        forms: of quantized layers that it runs.
        block_scale_bytes: what the scale of a block of weights takes in its graphs.
    """

    engine: ClassVar[Engine]
    title: ClassVar[str]
    tools: ClassVar[tuple[str, ...]]
    runtime: ClassVar[str]
    forms: ClassVar[frozenset[Form]]
    block_scale_bytes: ClassVar[int]

    @property
    def suffix(self) -> str:
        """The suffix of graph files, ".onnx"."""
        return f".{self.engine.value}"

    @abstractmethod
    def export(
        self,
        module: nn.Module,
        examples: Mapping[str, torch.Tensor],
        path: Path,
        outputs: Sequence[str] = DEFAULT_OUTPUTS,
    ) -> None:
        """Write a module as a float graph of static shapes; the same module gives the same bytes.

        Args:
            module: in eval mode.
            examples: by the graph's name of each input, in the order of the module's arguments, a tensor of
                its shape and dtype; ids must be int32.
            path: where the graph is written.
            outputs: names of the module's outputs.

        Raises:
            LoweringError: the module cannot be converted, or needs ops that not every engine runs.
        """

    @abstractmethod
    def cast_fp16(self, source: Path, target: Path) -> None:
        """Store the weights of a graph that `export` wrote as fp16.

        Raises:
            LoweringError: the graph has nothing to cast, or a weight lies beyond fp16's range.
        """

    def write_quantized(self, source: Path, component: QuantizedComponent, target: Path) -> None:
        """Write a quantized component into the float graph that `export` wrote of its module.

        Layers that are not among them stay in float.

        Raises:
            LoweringError: the graph does not hold the layers, or the engine does not run one of them.
        """
        for name, layer in component.layers.items():
            form = form_of(name, layer.spec)
            if form not in self.forms:
                known = ", ".join(sorted(self.forms))
                raise LoweringError(
                    f"{name} is {described(layer.spec)}, which {self.title} does not run: it runs {known}"
                )
        self._write_quantized(source, component, target)

    @abstractmethod
    def _write_quantized(self, source: Path, component: QuantizedComponent, target: Path) -> None:
        """As `write_quantized`, of forms that the engine runs."""

    @abstractmethod
    def graph_io(self, path: Path) -> GraphIO:
        """Read a graph's inputs and outputs.

        Raises:
            LoweringError: the file cannot be read, or has dynamic shapes.
        """

    @abstractmethod
    def op_counts(self, path: Path) -> dict[str, int]:
        """Count a graph's ops by type, sorted; an op that not every engine runs shows that in its name.

        Raises:
            LoweringError: the file cannot be read.
        """

    @abstractmethod
    def check_ops(self, path: Path) -> None:
        """Raise LoweringError, naming them, where a graph holds ops that not every engine runs."""

    @abstractmethod
    def dataflow(self, path: Path) -> Dataflow:
        """A graph's ops and the types of its tensors.

        Raises:
            LoweringError: the file cannot be read.
        """

    @abstractmethod
    def least_engine(self, path: Path) -> LeastEngine | None:
        """The oldest version of the engine that computes a graph rightly; None: any that is supported.

        Raises:
            LoweringError: the file cannot be read.
        """

    def check(self, path: Path) -> None:
        """Raise LoweringError where an engine may not run a graph, or token ids become floats in it."""
        self.check_ops(path)
        check_ids(path.name, self.dataflow(path))


def weights_path(graph: Path) -> Path:
    """The file beside a graph with the weights that are too large for its own, where it has one."""
    return graph.with_name(graph.name + _WEIGHTS_SUFFIX)


def graph_files(graph: Path) -> tuple[Path, ...]:
    """A graph's file, and that of its weights where there is one."""
    beside = weights_path(graph)
    return (graph, beside) if beside.exists() else (graph,)


def refuse_ops(path: Path, foreign: Sequence[str]) -> None:
    """Raise LoweringError where there are ops that not every engine runs."""
    if foreign:
        raise LoweringError(
            f"{path.name} holds ops that the device's engine does not run: {', '.join(foreign)}; "
            "write that part of the module in plain tensor ops"
        )
