"""Large files are read as arrays, since bytes take minutes to write again, and are in memory once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from pocketvl.lower.tflite import quantized
from pocketvl.lower.tflite.export import export_tflite, write_tflite
from pocketvl.lower.tflite.graph import parse_tflite, read_tflite
from pocketvl.network.integers import QuantizedComponent
from pocketvl.network.specification import INT8_DYNAMIC
from tests.lower import readers
from tests.lower.lowered import lowered
from tests.memory import peak_bytes


def are_arrays(model: Any) -> bool:
    """Only these are written at once."""
    return all(type(buffer.data) is np.ndarray for buffer in model.buffers if buffer.data is not None)


def test_a_buffer_behind_the_flatbuffer_is_an_array() -> None:
    model = read_tflite(lowered().path("ids", "fp32.tflite"))
    sizes = [0 if buffer.data is None else len(buffer.data) for buffer in model.buffers]
    largest = int(np.argmax(sizes))
    kept = bytes(model.buffers[largest].data)
    model.buffers[largest].data = None
    model.buffers[largest].offset = model.buffers[largest].size = 1  # so that there is room for them
    content = bytearray(flatbuffer_utils.convert_object_to_bytearray(model))
    content += bytes(-len(content) % 16)
    packed = schema.Model.GetRootAs(content).Buffers(largest)
    flatbuffer_utils.update_packed_buffer(packed, offset=len(content), size=len(kept))
    found = parse_tflite(content + kept)
    assert are_arrays(found)
    assert bytes(found.buffers[largest].data) == kept


def test_layers_left_in_float_are_arrays_beside_quantized_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quantizer puts weights behind the flatbuffer where they are more than 256 KiB."""
    module = nn.Sequential(nn.Linear(256, 300), nn.Tanh(), nn.Linear(300, 256)).eval()
    export_tflite(module, {"x": torch.ones(1, 256)}, tmp_path / "float.tflite")
    one = QuantizedComponent({"0": readers.quantized(module, "0", INT8_DYNAMIC)})
    written = list[Any]()

    def write(model: Any, path: Path) -> None:
        written.append(are_arrays(model))
        write_tflite(model, path)

    monkeypatch.setattr(quantized, "write_tflite", write)
    quantized.write_quantized_tflite(tmp_path / "float.tflite", one, tmp_path / "int8.tflite")
    assert written == [True]
    sizes = [
        len(buffer.data)
        for buffer in read_tflite(tmp_path / "int8.tflite").buffers
        if buffer.data is not None
    ]
    assert 4 * 300 * 256 in sizes  # one layer is in float


def test_a_file_is_written_without_copies_of_all_of_it(tmp_path: Path) -> None:
    model = read_tflite(lowered().path("ids", "fp32.tflite"))
    for _ in range(16):
        model.buffers.append(schema.BufferT())
        model.buffers[-1].data = np.zeros(1 << 20, np.uint8)
    peak = peak_bytes(lambda: write_tflite(model, tmp_path / "g.tflite"))
    size = (tmp_path / "g.tflite").stat().st_size
    assert size > 16 << 20
    assert peak < size + (1 << 24)  # copies of one buffer, and room for what is beside them
    expected = flatbuffer_utils.convert_object_to_bytearray(model)
    assert (tmp_path / "g.tflite").read_bytes() == expected


def test_a_file_is_read_once(tmp_path: Path) -> None:
    path = lowered().path("ids", "fp32.tflite")
    content = path.read_bytes() + bytes(1 << 24)
    (tmp_path / "g.tflite").write_bytes(content)
    assert peak_bytes(lambda: read_tflite(tmp_path / "g.tflite")) < 1.5 * len(content)
