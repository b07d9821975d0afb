"""The plan for programs without processors, of bundles of every kind of task."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl.devices.prepared_inputs import PLAN_FILE, write_prepared_inputs
from pocketvl_runtime.bundle import Bundle

TOYS = Path(__file__).parents[1] / "bundles"


@pytest.mark.parametrize(
    ("bundle", "graphs", "inputs"),
    [
        ("format-2.0", ["image", "text"], ["pixels", "ids"]),
        ("labels-2.0", ["fusion"], ["pixels", "ids"]),
        ("embed-2.0", ["image"], ["pixels"]),
    ],
)
def test_a_plan_names_the_graphs_of_one_answer_and_their_inputs(
    bundle: str, graphs: list[str], inputs: list[str], tmp_path: Path
) -> None:
    write_prepared_inputs(Bundle.open(TOYS / bundle), ["tflite-fp32"], tmp_path)
    lines = [line.split("\t") for line in (tmp_path / PLAN_FILE).read_text().splitlines()]
    assert [line[2] for line in lines if line[0] == "graph"] == graphs
    assert [line[1] for line in lines if line[0] == "peak"] == ["tflite-fp32", "tflite-int8"]
    given = [line for line in lines if line[0] == "input"]
    assert [line[1] for line in given] == [*inputs, "x", "x"]
    assert all((tmp_path / line[2]).stat().st_size > 0 for line in given)
