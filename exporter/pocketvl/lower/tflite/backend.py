"""The backend of LiteRT."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pocketvl.lower.base import DEFAULT_OUTPUTS, EngineBackend, GraphIO
from pocketvl.lower.forms import Form
from pocketvl.lower.ids import Dataflow
from pocketvl.lower.least_engine import LeastEngine
from pocketvl_runtime.manifest import Engine

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.network.integers import QuantizedComponent


class TfliteBackend(EngineBackend):
    """Graphs that LiteRT runs."""

    engine: ClassVar[Engine] = Engine.TFLITE
    title: ClassVar[str] = "LiteRT"
    tools: ClassVar[tuple[str, ...]] = (
        "litert-torch",
        "litert-converter",
        "ai-edge-litert",
        "ai-edge-quantizer",
    )
    runtime: ClassVar[str] = "ai-edge-litert"
    forms: ClassVar[frozenset[Form]] = frozenset(Form) - {Form.FREE_BLOCKS}
    block_scale_bytes: ClassVar[int] = 2

    def export(
        self,
        module: nn.Module,
        examples: Mapping[str, torch.Tensor],
        path: Path,
        outputs: Sequence[str] = DEFAULT_OUTPUTS,
    ) -> None:
        from pocketvl.lower.tflite.export import export_tflite

        export_tflite(module, examples, path, outputs)

    def cast_fp16(self, source: Path, target: Path) -> None:
        from pocketvl.lower.tflite.fp16 import cast_fp16_tflite

        cast_fp16_tflite(source, target)

    def _write_quantized(self, source: Path, component: QuantizedComponent, target: Path) -> None:
        from pocketvl.lower.tflite.quantized import write_quantized_tflite

        write_quantized_tflite(source, component, target)

    def graph_io(self, path: Path) -> GraphIO:
        from pocketvl.lower.tflite.graph import graph_io_tflite

        return graph_io_tflite(path)

    def op_counts(self, path: Path) -> dict[str, int]:
        from pocketvl.lower.tflite.graph import op_counts_tflite

        return op_counts_tflite(path)

    def check_ops(self, path: Path) -> None:
        from pocketvl.lower.tflite.graph import check_ops_tflite

        check_ops_tflite(path)

    def dataflow(self, path: Path) -> Dataflow:
        from pocketvl.lower.tflite.graph import dataflow_tflite

        return dataflow_tflite(path)

    def least_engine(self, path: Path) -> LeastEngine | None:
        from pocketvl.lower.tflite.versions import least_engine_tflite

        return least_engine_tflite(path)
