"""A tiny ViLT with fewer bits: searched, and trained on its grids, through the commands that users type."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.evaluate.report_json import read_report
from pocketvl.tabletop.folder import write_tabletop
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.manifest import Manifest
from tests.e2e.conftest import pocketvl
from tests.families.vilt_folder import make_vilt_folder

QAT = """
[qat]
precision = "int4"

[qat.training]
phases = [{ steps = 3 }]
batch_size = 8
"""


@pytest.mark.full
def test_a_vilt_is_searched_and_trained_by_its_answers(tmp_path: Path) -> None:
    source, data, cache = make_vilt_folder(tmp_path / "vilt"), tmp_path / "data", tmp_path / "cache"
    data.mkdir()
    write_tabletop(data, 21, 60, size=40)
    common = ["--calibration", data, "--data", data, "--gate", "ask=100", "--keep-failing"]
    more = ["--budget", "size=1MB", "--trials", 3, "--widths", "4,8"]
    done = pocketvl("search", source, "-o", tmp_path / "searched", *common, *more, cache=cache)
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "searched" / "report.json")
    assert report.search is not None
    assert len(report.search.trials) == 3
    assert all(name.startswith("fusion/") for name in report.search.bits)
    assert Metric.ASK in report.variants["tflite-mixed"].metrics

    (tmp_path / "qat.toml").write_text(QAT)
    more = ["--recipe", tmp_path / "qat.toml", "--train", data, "--variants", "onnx-int4,tflite-int4"]
    done = pocketvl("export", source, "-o", tmp_path / "trained", *common, *more, cache=cache)
    assert done.returncode == 0, done.stderr
    assert set(Manifest.read(tmp_path / "trained" / "manifest.json").variants) == {"onnx-int4", "tflite-int4"}

    (tmp_path / "wrong.toml").write_text(
        QAT.replace("phases = [{ ", "phases = [{ components = ['image_encoder'], ")
    )
    more = ["--recipe", tmp_path / "wrong.toml", "--train", data, "--variants", "onnx-int4"]
    done = pocketvl("export", source, "-o", tmp_path / "wrong", *common, *more, cache=cache)
    assert done.returncode == 1
    assert "image_encoder" in done.stderr.splitlines()[-1]
