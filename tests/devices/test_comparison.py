"""Two profiles side by side."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketvl.cli import cli
from pocketvl.devices.comparison import compare_profiles, comparison_lines
from pocketvl.errors import RecipeError
from pocketvl_runtime.errors import BundleError
from tests.devices.profiles import BOARD, emulated, profile

A = profile({"onnx-fp32": {1: 40.0, 4: 20.0}, "tflite-int8": {1: 10.0}})


def test_ratios_are_the_second_over_the_first() -> None:
    b = profile({"onnx-fp32": {1: 20.0}, "tflite-int8": {1: 30.0, 2: 9.0}})
    found = compare_profiles(A, b)
    ratios = {(each.variant, each.threads, each.stage): each.median_ratio for each in found.stages}
    assert ratios["onnx-fp32", 1, "total"] == pytest.approx(0.5)
    assert ratios["tflite-int8", 1, "image"] == pytest.approx(3.0)
    assert len(ratios) == 2 * 7
    assert found.only_a == ("onnx-fp32 at 4 threads",)
    assert found.only_b == ("tflite-int8 at 2 threads",)
    assert found.differences == ()
    row = next(each for each in found.stages if each.stage == "total")
    assert row.to_json() == {
        "variant": "onnx-fp32",
        "threads": 1,
        "stage": "total",
        "a": {"p10": 36.0, "median": 40.0},
        "b": {"p10": 18.0, "median": 20.0},
        "ratio": {"p10": 0.5, "median": 0.5},
    }


def test_what_differs_of_the_machines_is_said_before_any_figure() -> None:
    machine = dataclasses.replace(BOARD, isa="neon", governors=("powersave",), mhz_max=1800.0)
    b = profile({"onnx-fp32": {1: 80.0}}, machine=machine, throttled=True, warnings=["it was hot"])
    lines = list(comparison_lines(compare_profiles(A, b), "a.json", "b.json"))
    head = next(number for number, line in enumerate(lines) if line.startswith("ms "))
    assert lines[2:head] == [
        "isa: neon+dotprod | neon",
        "governors: ondemand | powersave",
        "mhz max: not known | 1800.0",
        "B was throttled",
        "B is doubtful: it was hot",
        "only in A: onnx-fp32 at 4 threads, tflite-int8 at 1 threads",
    ]
    assert lines[head + 7].split() == [
        "onnx-fp32",
        "1",
        "total",
        "36.00",
        "72.00",
        "2.00",
        "40.00",
        "80.00",
        "2.00",
    ]


def test_another_bundle_is_the_first_thing_said() -> None:
    b = profile({"onnx-fp32": {1: 80.0}}, manifest="cd" * 32)
    assert compare_profiles(A, b).differences[0].startswith("different bundles: tiny-clip (abababababab) | ")


def test_nothing_of_an_emulated_machine_is_compared() -> None:
    found = compare_profiles(A, emulated(A))
    assert found.stages == ()
    lines = list(comparison_lines(found, "a", "b"))
    assert "B was measured under emulation: its figures are no device's, and none is shown" in lines
    assert lines[-1] == "nothing to compare"
    assert not any("40.00" in line for line in lines)


def test_the_command_prints_a_table_or_one_json(tmp_path: Path) -> None:
    for name, result in (("a", A), ("b", profile({"onnx-fp32": {1: 20.0}}))):
        (tmp_path / f"{name}.json").write_text(result.to_json())
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    run = CliRunner().invoke
    printed = run(cli, ["profile", "--compare", *files], catch_exceptions=False).stdout
    assert printed.splitlines()[0] == f"A: {files[0]}"
    assert "0.50" in printed
    told = json.loads(run(cli, ["profile", "--compare", *files, "--json"], catch_exceptions=False).stdout)
    assert told["b"] == files[1]
    assert {stage["ratio"]["median"] for stage in told["stages"]} == {0.5}
    both = run(cli, ["profile", "bundle", "--compare", *files])
    assert both.exit_code == 2
    assert "no bundle" in both.stderr
    assert "BUNDLE" in run(cli, ["profile"]).stderr
    with pytest.raises(RecipeError, match=r"none\.json cannot be read"):
        run(cli, ["profile", "--compare", files[0], str(tmp_path / "none.json")], catch_exceptions=False)
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(BundleError, match=r"b\.json is no result of a bench"):
        run(cli, ["profile", "--compare", *files], catch_exceptions=False)
