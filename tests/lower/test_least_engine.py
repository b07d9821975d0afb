"""The oldest engine for a graph follows from what it holds, and is none that its converter excludes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from pocketvl.errors import LoweringError
from pocketvl.lower.backends import backend_of_file
from pocketvl.lower.least_engine import LeastEngine, newest
from pocketvl.lower.tflite.export import write_tflite
from pocketvl.lower.tflite.graph import op_name, read_tflite
from pocketvl_runtime.backends.versions import distribution, release
from tests.lower.lowered import COMPONENTS, lowered
from tests.lower.readers import MIXED, WRITE, in_forms
from tests.lower.test_modes import FREE_BLOCKS, SPECS, written

LITERT = ".".join(map(str, release(distribution("ai_edge_litert")[1])))
TFLITE = {
    "fp32": ("0.3", "BATCH_MATMUL of version 1"),
    "fp16": ("0.14", "DEQUANTIZE of FLOAT16"),
    "int8": ("0.16", "FULLY_CONNECTED of INT8 and INT8 with a scale per channel"),
    "dynamic": ("0.16", "FULLY_CONNECTED of INT8 with a scale per channel"),
    "int4": ("2.1", "FULLY_CONNECTED of INT4 in blocks"),
    "mixed": ("2.1", "FULLY_CONNECTED of INT4 in blocks"),
    "widened": ("0.7", "DEQUANTIZE of INT8 with a scale per channel"),
}
ONNX = {
    "fp32": None,
    "fp16": None,
    "int8": None,
    "dynamic": None,
    "int4": None,
    "mixed": None,
    "int2": ("1.24", "MatMulNBits of 2 bits"),
    "affine-int2-widened": ("1.24", "MatMulNBits of 2 bits"),
    "int4-widened": None,
    "int8-blocks": ("1.22", "MatMulNBits of 8 bits"),
}


def graph(component: str, mode: str, kind: str) -> Path:
    known = mode in (*SPECS, *FREE_BLOCKS)
    return written(component, mode, kind) if known else lowered().path(component, f"{mode}.{kind}")


def least(path: Path) -> LeastEngine | None:
    return backend_of_file(path).least_engine(path)


def converters(path: Path) -> str:
    """What `min_runtime_version` in a file says."""
    model = read_tflite(path)
    (entry,) = (each for each in model.metadata if each.name == b"min_runtime_version")
    return bytes(model.buffers[entry.buffer].data).rstrip(b"\0").decode()


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("mode", TFLITE)
def test_tflite_graphs_ask_for_what_their_ops_need(component: str, mode: str) -> None:
    path = graph(component, mode, "tflite")
    version, reason = TFLITE[mode]
    assert least(path) == LeastEngine(version, f"{path.name}: {reason}")


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("mode", ONNX)
def test_onnx_graphs_ask_for_the_bits_of_their_blocks(component: str, mode: str) -> None:
    path = graph(component, mode, "onnx")
    expected = ONNX[mode]
    assert least(path) == (expected and LeastEngine(expected[0], f"{path.name}: {expected[1]}"))


def test_one_layer_of_2_bits_in_a_mixed_graph_is_enough(tmp_path: Path) -> None:
    module, static = lowered().module("ids"), lowered().integers("ids")
    path = tmp_path / "mixed.onnx"
    for narrow, version in ((FREE_BLOCKS["int2"], "1.24"), ((), None)):
        few = in_forms(module, static, (*MIXED, *narrow))
        WRITE["onnx"](lowered().path("ids", "fp32.onnx"), few, path)
        found = least(path)
        assert (found and found.version) == version


@pytest.mark.parametrize("level", [0, 1, None])
def test_8_bits_beside_a_float_input_came_later_to_onnxruntime(level: int | None, tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 32]) for name in "xy"]
    attributes: dict[str, Any] = {} if level is None else {"accuracy_level": level}
    node = helper.make_node(
        "MatMulNBits",
        ["x", "w", "s"],
        ["y"],
        domain="com.microsoft",
        N=32,
        K=32,
        bits=8,
        block_size=32,
        **attributes,
    )
    onnx.save(helper.make_model(helper.make_graph([node], "g", values[:1], values[1:])), tmp_path / "g.onnx")
    assert least(tmp_path / "g.onnx") == LeastEngine("1.23", "g.onnx: MatMulNBits of 8 bits")


@pytest.mark.parametrize("component", COMPONENTS)
def test_a_converters_own_word_is_met_and_is_not_enough(component: str) -> None:
    """It says of a graph of integers what it said of the float graph that was quantized."""
    said = converters(graph(component, "fp32", "tflite"))
    for mode in TFLITE:
        path = graph(component, mode, "tflite")
        found = least(path)
        assert found is not None
        assert converters(path) == said
        counted = (0, *release(said)[1:2])
        assert release(found.version) >= counted
        if mode == "fp32":
            assert release(found.version) == counted


def edited(tmp_path: Path, mode: str, edit: Callable[[Any], None]) -> Path:
    model = read_tflite(graph("ids", mode, "tflite"))
    edit(model)
    write_tflite(model, tmp_path / "g.tflite")
    return tmp_path / "g.tflite"


def raise_version_(model: Any) -> None:
    op = next(op for op in model.subgraphs[0].operators if op_name(model, op) == "SOFTMAX")
    model.operatorCodes[op.opcodeIndex].version = 4


def rename_op_(model: Any) -> None:
    op = next(op for op in model.subgraphs[0].operators if op_name(model, op) == "SQRT")
    model.operatorCodes[op.opcodeIndex].builtinCode = 66  # SIN
    model.operatorCodes[op.opcodeIndex].deprecatedBuiltinCode = 66


def take_blocks_(model: Any) -> None:
    for tensor in model.subgraphs[0].tensors:
        if tensor.quantization is not None and tensor.quantization.details is not None:
            tensor.quantization.details = None
            tensor.quantization.detailsType = 0
            tensor.quantization.scale = np.array([0.1], np.float32)


@pytest.mark.parametrize(
    ("mode", "edit", "what"),
    [
        ("fp32", raise_version_, "SOFTMAX of version 4"),
        ("fp32", rename_op_, "SIN of version 1"),
        ("int4", take_blocks_, "FULLY_CONNECTED of INT4"),
    ],
)
def test_what_is_not_known_asks_for_the_engine_that_verifies_it(
    mode: str, edit: Callable[[Any], None], what: str, tmp_path: Path
) -> None:
    path = edited(tmp_path, mode, edit)
    reason = f"g.tflite: {what}: of ai-edge-litert before {LITERT} it is not known"
    assert least(path) == LeastEngine(LITERT, reason)


@pytest.mark.parametrize("name", ["g.onnx", "g.tflite"])
def test_broken_files_are_one_clear_line(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"no graph at all")
    with pytest.raises(LoweringError, match=r"is not a (readable ONNX|TFLite) file"):
        least(tmp_path / name)


def test_versions_are_compared_by_their_numbers() -> None:
    old, new = LeastEngine("0.9", "a"), LeastEngine("0.16", "b")
    assert newest([old, None, new, LeastEngine("0.16", "c")]) is new
    assert newest([None]) is newest([]) is None
