"""A model goes through the measurement of published sizes, a tiny one in place of a large one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.real_sizes.measuring import RECORD_FILE, measure
from bench.real_sizes.models import MODELS, RealModel
from bench.real_sizes.render import write_page
from pocketvl.errors import DataError
from tests.families.tiny import make_tiny_clip

VARIANTS = ("onnx-fp32", "onnx-int8", "onnx-int4")


def write(folder: Path) -> None:
    make_tiny_clip(folder)


def test_a_model_is_exported_recorded_and_shown(tmp_path: Path) -> None:
    tiny = RealModel("clip-b32", "nowhere/tiny", write)
    said: list[str] = []
    found = measure(tiny, tmp_path / tiny.name, tmp_path / "no-photos", VARIANTS, said.append)
    assert set(found.variants) == set(VARIANTS)
    assert all(each.float_share <= each.fallback_share for each in found.variants.values())
    assert found.seconds > 1
    assert found.peak_bytes > 50e6
    assert found.variants["onnx-fp32"].passed
    assert found.variants["onnx-fp32"].cosines["image_encoder.embedding"] > 0.9999
    assert found.variants["onnx-int8"].size_bytes < found.variants["onnx-fp32"].size_bytes
    left = {path.name for path in (tmp_path / tiny.name).iterdir()}
    assert left == {RECORD_FILE, "report.json", "report.html", "log.txt"}
    assert measure(tiny, tmp_path / tiny.name, tmp_path, VARIANTS, said.append) == found  # not done again
    assert len(said) == 2

    (tmp_path / "families.md").write_text("before\n<!-- real sizes -->\nold\n<!-- /real sizes -->\nafter\n")
    write_page(tmp_path, tmp_path / "page.md", tmp_path / "families.md")
    summary = (tmp_path / "families.md").read_text()
    assert "| clip-b32 | 0 M |" in summary
    assert "old" not in summary
    assert summary.endswith("<!-- /real sizes -->\nafter\n")
    page = " ".join((tmp_path / "page.md").read_text().split())
    assert "| onnx-int8 |" in page
    assert "clip-b32 has no onnx-fp16, onnx-int8dyn, tflite-fp32" in page
    assert f"Not measured: {', '.join(name for name in MODELS if name != tiny.name)}" in page


def test_a_page_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="run measure first"):
        write_page(tmp_path, tmp_path / "page.md", tmp_path / "families.md")
