"""Lowering components and their integers to graph files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.errors import SourceError
from pocketvl.families import parameter_counts, read_contract
from pocketvl.families.base import example_inputs
from pocketvl.families.folders.files import description_files
from pocketvl.families.folders.weights import most_parameters
from pocketvl.lower.backends import TOOLS, backend_of
from pocketvl.pipelines.stages.calibrating import EqualizeComponent
from pocketvl.pipelines.stages.components import (
    TORCH,
    WEIGHTS_FILE,
    PrepareComponent,
    open_component,
    segments_of,
)
from pocketvl.pipelines.stages.quantizing import ChooseLayers, QuantizeComponent, TrainedComponent
from pocketvl.stage import Inputs, Stage
from pocketvl_runtime.manifest import Engine, Precision

_LARGE = 64 << 20  # bytes of weights from which lowering takes longer than another process to start


MOST_BYTES = (1 << 31) - (1 << 20)
"""Of a component's weights in fp32, which every graph is first written with: what a flatbuffer holds, 2 GiB,
without room for what is not weights."""


def check_graph_sizes(folder: Path, engines: Collection[Engine], most_bytes: int | None = None) -> None:
    """Raise SourceError where a component is too large for a graph file; takes seconds, before any work.

    Args:
        folder: the checkpoint.
        engines: that graphs are asked for; ONNX has no limit, since large weights go into a file beside it.
        most_bytes: of a component's weights in fp32; None for `MOST_BYTES`.
    """
    if Engine.TFLITE not in engines:
        return
    most_bytes = MOST_BYTES if most_bytes is None else most_bytes
    if most_parameters(folder) * 4 <= most_bytes:
        return  # as almost always, and told without torch
    for name, parameters in parameter_counts(read_contract(folder)).items():
        count = sum(parameters.values())
        if count * 4 > most_bytes:
            raise SourceError(
                f"{folder}: the {name} has {count:,} parameters, {count * 4 / 2**30:.2f} GiB in fp32, and a "
                f"TFLite file holds {most_bytes / 2**30:.2f} GiB; export ONNX alone (--variants "
                "onnx-fp32,onnx-int8), make it smaller first (pocketvl compress, with drop-layers, prune or "
                "low-rank), or take a smaller model of its kind"
            )


@dataclass(frozen=True)
class GraphStage(Stage):
    """A stage whose result is one graph file, of ops that every engine runs, in which ids stay integers."""

    @property
    def component(self) -> str:
        """The component's name."""
        raise NotImplementedError

    @property
    def engine(self) -> Engine:
        """The engine that runs it."""
        raise NotImplementedError

    @property
    def precision(self) -> Precision:
        """The precision of its weights."""
        raise NotImplementedError

    @property
    def file(self) -> str:
        """The name of the graph in the result."""
        return f"{self.component}.{self.precision.value}.{self.engine.value}"

    def ensures(self, source: Inputs, result: Path) -> None:
        backend_of(self.engine).check(result / self.file)


@dataclass(frozen=True)
class LowerGraph(GraphStage):
    """One component as an fp32 graph of one engine.

    Attributes:
        in_blocks: whether attention computes its products block by block, so that each can be quantized.
    """

    version: ClassVar[int] = 10
    tools: ClassVar[tuple[str, ...]] = (*TORCH, *TOOLS)

    prepared: PrepareComponent | EqualizeComponent | TrainedComponent
    target: Engine
    in_blocks: bool = False

    @property
    def component(self) -> str:
        return self.prepared.component

    @property
    def engine(self) -> Engine:
        return self.target

    @property
    def precision(self) -> Precision:
        return Precision.FP32

    @property
    def title(self) -> str:
        return f"lower {self.component} to {self.engine.value}"

    def reads(self) -> Mapping[str, Path]:
        return description_files(self.prepared.source)

    def may_be_long(self) -> bool:
        return most_parameters(self.prepared.source) * 4 > 2 * _LARGE  # of all components

    def warm_up(self) -> None:
        from pocketvl.families import uninitialised_component

        uninitialised_component(read_contract(self.prepared.source), self.component)

    def is_long(self, source: Inputs) -> bool:
        return (source["prepared"] / WEIGHTS_FILE).stat().st_size > _LARGE

    def run(self, source: Inputs, out: Path) -> None:
        component = open_component(self.prepared.source, self.component, source["prepared"])
        segments = segments_of(component)
        if self.in_blocks and segments is not None:
            from pocketvl.families.layers.block_attention import block_attentions_

            block_attentions_(component.module, segments)
        names = [port.name for port in component.inputs]
        examples = dict(zip(names, example_inputs(component), strict=True))
        outputs = [port.name for port in component.outputs]
        backend_of(self.engine).export(component.module, examples, out / self.file, outputs)


@dataclass(frozen=True)
class _Rewritten(GraphStage):
    """A graph made out of a float one."""

    goes_along: ClassVar[bool] = True

    graph: LowerGraph

    @property
    def component(self) -> str:
        return self.graph.component

    @property
    def engine(self) -> Engine:
        return self.graph.engine


@dataclass(frozen=True)
class CastFp16(_Rewritten):
    """A graph with its weights in fp16."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("onnx", "ai-edge-quantizer", "ai-edge-litert")

    @property
    def precision(self) -> Precision:
        return Precision.FP16

    @property
    def title(self) -> str:
        return f"cast {self.component} to fp16 for {self.engine.value}"

    def run(self, source: Inputs, out: Path) -> None:
        backend_of(self.engine).cast_fp16(source["graph"] / self.graph.file, out / self.file)


@dataclass(frozen=True)
class LowerQuantized(_Rewritten):
    """A quantized graph: the float graph with a component's integers in it."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("onnx", "ai-edge-quantizer", "ai-edge-litert", "numpy")

    integers: QuantizeComponent | ChooseLayers | TrainedComponent
    variant: Precision  # part of the file's name, so that it has to be part of the key

    @property
    def precision(self) -> Precision:
        return self.variant

    @property
    def title(self) -> str:
        return f"write {self.component} in {self.precision.value} for {self.engine.value}"

    def run(self, source: Inputs, out: Path) -> None:
        from pocketvl.network.integers import QuantizedComponent

        component = QuantizedComponent.load(source["integers"])
        graph = source["graph"] / self.graph.file
        backend_of(self.engine).write_quantized(graph, component, out / self.file)
