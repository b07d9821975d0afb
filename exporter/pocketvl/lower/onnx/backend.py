"""The backend of ONNX Runtime."""

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


class OnnxBackend(EngineBackend):
    """Graphs that ONNX Runtime runs."""

    engine: ClassVar[Engine] = Engine.ONNX
    title: ClassVar[str] = "ONNX Runtime"
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnx-ir", "onnxsim")
    runtime: ClassVar[str] = "onnxruntime"
    forms: ClassVar[frozenset[Form]] = frozenset(Form)
    block_scale_bytes: ClassVar[int] = 4

    def export(
        self,
        module: nn.Module,
        examples: Mapping[str, torch.Tensor],
        path: Path,
        outputs: Sequence[str] = DEFAULT_OUTPUTS,
    ) -> None:
        from pocketvl.lower.onnx.export import export_onnx

        export_onnx(module, examples, path, outputs)

    def cast_fp16(self, source: Path, target: Path) -> None:
        from pocketvl.lower.onnx.fp16 import cast_fp16_onnx

        cast_fp16_onnx(source, target)

    def _write_quantized(self, source: Path, component: QuantizedComponent, target: Path) -> None:
        from pocketvl.lower.onnx.quantized import write_quantized_onnx

        write_quantized_onnx(source, component, target)

    def graph_io(self, path: Path) -> GraphIO:
        from pocketvl.lower.onnx.graph import graph_io_onnx

        return graph_io_onnx(path)

    def op_counts(self, path: Path) -> dict[str, int]:
        from pocketvl.lower.onnx.graph import op_counts_onnx

        return op_counts_onnx(path)

    def check_ops(self, path: Path) -> None:
        from pocketvl.lower.onnx.graph import check_ops_onnx

        check_ops_onnx(path)

    def dataflow(self, path: Path) -> Dataflow:
        from pocketvl.lower.onnx.graph import dataflow_onnx

        return dataflow_onnx(path)

    def least_engine(self, path: Path) -> LeastEngine | None:
        from pocketvl.lower.onnx.graph import least_engine_onnx

        return least_engine_onnx(path)
