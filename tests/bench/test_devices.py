"""docs/DEVICES.md is made of the profiles in docs/devices/, which are real ones."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jsonschema
import pytest

from bench.devices import FOLDER, PAGE, read_devices, render_devices
from pocketvl.errors import DataError
from pocketvl_runtime.bench_result import bench_schema
from pocketvl_runtime.errors import BundleError
from tests.devices.profiles import BOARD, emulated, profile


def test_every_profile_follows_the_schema_and_the_page_is_up_to_date() -> None:
    schema = json.loads(bench_schema())
    results = read_devices(FOLDER)
    for name in results:
        jsonschema.validate(json.loads((FOLDER / name).read_text(encoding="utf-8")), schema)
    assert PAGE.read_text(encoding="utf-8") == render_devices(results), "run `make devices`"


def test_only_profiles_and_the_readme_lie_there() -> None:
    assert {path.suffix for path in FOLDER.iterdir() if path.name != "README.md"} == {".json"}


def test_the_page_has_the_quickest_thread_count_of_every_variant_and_repeats_doubts() -> None:
    result = profile(
        {"tflite-int8": {1: 9.0, 4: 4.25}, "onnx-fp32": {1: 30.5}}, warnings=["hot"], throttled=True
    )
    page = render_devices({"pi5.json": result})
    assert "| tflite-int8 | 4 | 3.83 | 4.25 | 5.10 | 800 | 70 | an-engine 1.0 |" in page
    assert "| onnx-fp32 | 1 |" in page
    assert "Doubtful: hot; throttled." in page
    assert "[pi5.json](devices/pi5.json)" in page


def test_texts_of_others_stay_texts() -> None:
    machine = dataclasses.replace(BOARD, device="<b>x</b> | [y](z)\n# head")
    page = render_devices({"a.json": profile({"onnx-fp32": {1: 1.0}}, machine=machine)})
    assert "### \\<b\\>x\\</b\\> \\| \\[y\\](z) \\# head\n" in page


def test_emulated_and_broken_profiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no profile"):
        read_devices(tmp_path)
    (tmp_path / "a.json").write_text(emulated(profile({"onnx-fp32": {1: 1.0}})).to_json())
    with pytest.raises(DataError, match=r"a\.json was measured under emulation"):
        read_devices(tmp_path)
    (tmp_path / "a.json").write_text("[]")
    with pytest.raises(BundleError, match=r"a\.json is no result of a bench"):
        read_devices(tmp_path)
