"""What leaves torch gives torch's answers in every engine, in files that tell of nothing but the model."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert import schema_py_generated
from torch import nn

from pocketvl.errors import LoweringError
from pocketvl.lower.backends import backend_of, backend_of_file
from pocketvl.lower.onnx.export import export_onnx
from pocketvl.lower.tflite.export import export_tflite
from pocketvl.lower.tflite.fp16 import cast_fp16_tflite
from pocketvl.lower.tflite.graph import read_tflite
from pocketvl_runtime.manifest import Engine, TensorSpec
from tests.families.tiny import EMBEDDING_DIM, IMAGE_SIZE, TEXT_LENGTH
from tests.lower.engines import run, run_litert, run_tensorflow_reference
from tests.lower.lowered import COMPONENTS, SUFFIXES, lowered, samples
from tests.lower.readers import unused_in

REPOSITORY = Path(__file__).parents[2]
TFLITE = [suffix for suffix in SUFFIXES if suffix.endswith("tflite")]
INPUTS = {
    "pixels": TensorSpec("pixels", "uint8", (1, IMAGE_SIZE, IMAGE_SIZE, 3)),
    "ids": TensorSpec("ids", "int32", (1, TEXT_LENGTH)),
}


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("fp32.onnx", 2e-6), ("fp32.tflite", 2e-6), ("fp16.tflite", 2e-3)]
)
def test_float_graphs_give_torchs_embeddings(component: str, suffix: str, tolerance: float) -> None:
    model, feeds = lowered(), samples(component, 16, 2)
    expected = np.concatenate([model.torch_embedding(component, feed[component]) for feed in feeds])
    assert np.abs(run(model.path(component, suffix), feeds) - expected).max() < tolerance


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize(
    ("suffix", "tolerance"), [("fp32.tflite", 2e-6), ("fp16.tflite", 2e-6), ("int8.tflite", 2e-2)]
)
def test_tensorflows_reference_kernels_agree_with_litert(
    component: str, suffix: str, tolerance: float
) -> None:
    # int8: a rounding tie that falls the other way moves one activation by one step
    path, feeds = lowered().path(component, suffix), samples(component, 8, 2)
    mine, second = run_litert(path, feeds), run_tensorflow_reference(path, feeds)
    assert np.abs(mine - second).max() < tolerance
    assert (mine * second).sum(1).min() > 0.9995


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_inputs_and_outputs_carry_the_contracts_names(component: str, suffix: str) -> None:
    path = lowered().path(component, suffix)
    found = backend_of_file(path).graph_io(path)
    assert found.inputs == (INPUTS[component],)
    assert found.outputs == (TensorSpec("embedding", "float32", (1, EMBEDDING_DIM)),)


def test_every_file_is_the_same_from_another_process(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    folder = tmp_path / "another place"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.lower.lowered", str(folder)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    model = lowered()
    differing = [
        f"{component}.{suffix}"
        for component in COMPONENTS
        for suffix in SUFFIXES
        if (folder / f"{component}.{suffix}").read_bytes() != model.path(component, suffix).read_bytes()
    ]
    assert differing == []


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_tell_of_no_path_source_or_moment(component: str, suffix: str) -> None:
    content = lowered().path(component, suffix).read_bytes()
    traces = [
        *re.findall(rb"/(?:home|root|tmp|usr|opt|work|Users)/[\w./-]+", content),
        *re.findall(rb"[\w/.-]*\.py\b|File \"|0x[0-9a-f]{8,}|20\d\d-\d\d-\d\d", content),
        *re.findall(rb"site-packages|transformers\.models|pkg\.torch|__main__", content),
    ]
    assert traces == []


def test_weights_are_called_as_in_torch() -> None:
    model = lowered()
    for component, module in model.modules.items():
        expected = {name for name, parameter in module.named_parameters() if parameter.ndim > 1}
        expected -= {name for name in expected if "position_embedding" in name}  # added: no layer's weight
        graph = onnx.load(model.path(component, "fp32.onnx")).graph
        assert expected <= {tensor.name for tensor in graph.initializer}
        tensors = read_tflite(model.path(component, "fp32.tflite")).subgraphs[0].tensors
        names = [tensor.name.decode() for tensor in tensors]
        assert expected <= set(names)
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("suffix", TFLITE)
def test_tflite_graphs_hold_their_weights_themselves(suffix: str) -> None:
    """TFLite 2.16's C API does not find what is appended to the file."""
    content = lowered().path(COMPONENTS[-1], suffix).read_bytes()
    model = schema_py_generated.ModelT.InitFromPackedBuf(content, 0)
    assert not [buffer for buffer in model.buffers if buffer.offset or buffer.size]
    assert any(buffer.data is not None and len(buffer.data) > 1000 for buffer in model.buffers)


@pytest.mark.parametrize("suffix", ["fp32.tflite", "fp16.tflite", "int8.tflite"])
@pytest.mark.parametrize("component", ["pixels", "ids"])
def test_everything_in_a_tflite_graph_is_used(component: str, suffix: str) -> None:
    assert unused_in(lowered().path(component, suffix)) == ([], [])


def test_fp16_halves_the_weights() -> None:
    model = lowered()
    for component in COMPONENTS:
        full, half = (model.path(component, f"{kind}.tflite") for kind in ("fp32", "fp16"))
        weights = sum(
            parameter.numel()
            for name, parameter in model.module(component).named_parameters()
            if parameter.ndim > 1 and "position" not in name
        )
        saved = full.stat().st_size - half.stat().st_size
        assert saved == pytest.approx(2 * weights, rel=0.1)


@pytest.mark.parametrize("component", COMPONENTS)
def test_op_counts_are_the_graphs(component: str) -> None:
    model = lowered()
    paths = [model.path(component, f"fp32.{kind}") for kind in ("onnx", "tflite")]
    onnx_counts, tflite_counts = (backend_of_file(path).op_counts(path) for path in paths)
    linears = 13  # 2 layers of q, k, v, out, fc1, fc2, and the projection
    assert onnx_counts["Gemm"] == tflite_counts["FULLY_CONNECTED"] == linears
    assert tflite_counts["BATCH_MATMUL"] == onnx_counts["MatMul"] == 4  # activation x activation
    assert onnx_counts.get("Conv", 0) == tflite_counts.get("CONV_2D", 0) == (component == "pixels")
    assert tflite_counts.get("EMBEDDING_LOOKUP", 0) == (component == "ids")
    assert sum(onnx_counts.values()) == len(onnx.load(model.path(component, "fp32.onnx")).graph.node)


class Sorts(nn.Module):
    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = torch.linalg.svdvals(ids.to(torch.float32))
        return values


def test_a_module_that_cannot_be_lowered_is_one_clear_line(tmp_path: Path) -> None:
    example = torch.zeros(4, 4, dtype=torch.int32)
    for export, suffix in ((export_onnx, "onnx"), (export_tflite, "tflite")):
        with pytest.raises(LoweringError, match=f"graph.{suffix}") as caught:
            export(Sorts().eval(), {"ids": example}, tmp_path / f"graph.{suffix}")
        assert "\n" not in str(caught.value)


def test_a_module_in_training_mode_is_refused(tmp_path: Path) -> None:
    for export in (export_onnx, export_tflite):
        with pytest.raises(LoweringError, match="eval"):
            export(nn.Linear(2, 2), {"pixels": torch.zeros(1, 2)}, tmp_path / "graph")


def test_foreign_onnx_ops_are_named(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("QuickGelu", ["x"], ["y"], domain="com.microsoft")
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out])), tmp_path / "g.onnx"
    )
    assert backend_of(Engine.ONNX).op_counts(tmp_path / "g.onnx") == {"com.microsoft::QuickGelu": 1}
    with pytest.raises(LoweringError, match=r"com\.microsoft::QuickGelu"):
        backend_of(Engine.ONNX).check(tmp_path / "g.onnx")


def test_custom_and_flex_tflite_ops_are_named(tmp_path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    model = read_tflite(lowered().path("ids", "fp32.tflite"))
    code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
    code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexErf"
    (tmp_path / "g.tflite").write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    assert "CUSTOM:FlexErf" in backend_of(Engine.TFLITE).op_counts(tmp_path / "g.tflite")
    with pytest.raises(LoweringError, match="CUSTOM:FlexErf"):
        backend_of(Engine.TFLITE).check(tmp_path / "g.tflite")


@pytest.mark.parametrize("name", ["broken.onnx", "broken.tflite"])
def test_broken_files_are_one_clear_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 40)
    backend = backend_of_file(Path(name))
    for read in (backend.op_counts, backend.graph_io, backend.dataflow):
        with pytest.raises(LoweringError, match=name):
            read(tmp_path / name)


def test_dynamic_shapes_are_refused(tmp_path: Path) -> None:
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 2])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["batch", 2])
    onnx.save(
        onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out])), tmp_path / "g.onnx"
    )
    with pytest.raises(LoweringError, match="dynamic"):
        backend_of(Engine.ONNX).graph_io(tmp_path / "g.onnx")


def test_nothing_to_cast_is_refused(tmp_path: Path) -> None:
    class Doubles(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels * 2

    export_tflite(Doubles().eval(), {"pixels": torch.zeros(1, 2)}, tmp_path / "g.tflite")
    with pytest.raises(LoweringError, match="no weights"):
        cast_fp16_tflite(tmp_path / "g.tflite", tmp_path / "h.tflite")
