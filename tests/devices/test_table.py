"""A profile as people see it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from pocketvl.devices.table import profile_lines
from pocketvl_runtime.bench_result import BenchResult

BENCH = Path(__file__).parents[2] / "docs" / "BENCH.md"


def lines(**machine: Any) -> list[str]:
    """The table of the documented example."""
    (text,) = re.findall(r"^```json\n(.*?)^```", BENCH.read_text(), re.DOTALL | re.MULTILINE)
    value = json.loads(text)
    value["machine"].update(machine)
    value["conditions"]["warnings"] = ["other programs kept 1.0 of 4 processors busy"]
    return list(profile_lines(BenchResult.from_json(json.dumps(value), "it")))


def test_a_table_has_a_row_for_every_variant_and_thread_count() -> None:
    found = lines()
    assert found[0] == (
        "tabletop-clip on Example Board 1, Cortex-A76, neon+dotprod, 4 of 4 processors, ondemand, "
        "up to 2400 MHz, Linux 6.8.0"
    )
    header, one, four = (re.split(r"  +", line) for line in found[2:5])
    row = dict(zip(header, one, strict=True))
    assert row == {
        "variant": "tflite-int8",
        "threads": "1",
        "p10": "6.75",
        "median": "7.00",
        "p90": "7.75",
        "p99": "9.50",
        "decode": "1.25",
        "preprocess": "0.50",
        "tokens": "0.25",
        "image": "4.25",
        "text": "0.75",
        "post": "0.12",
        "busy": "0.98",
        "first": "15.5",
        "cold": "812",
        "peak": "62",
        "steady": "52",
    }
    more = dict(zip(header, four, strict=True))
    assert (more["median"], more["p99"], more["image"], more["busy"]) == ("3.50", "-", "-", "-")
    assert len({len(line) for line in found[2:5]}) == 1


def test_loads_energy_and_doubts_follow() -> None:
    assert lines()[6:] == [
        "tflite-int8, 4 threads, 120 s without a pause: 3.50 ms at first, 4.25 at last (+21%)",
        "energy: 4.5 J, 4.50 W on average",
        "doubtful: other programs kept 1.0 of 4 processors busy",
    ]


def test_of_an_emulated_machine_no_latency_is_shown() -> None:
    found = lines(emulated=True)
    assert "EMULATED" in found[0]
    assert found[1] == "ran: tflite-int8, onnx-int8"
    assert not re.search(r"\bms\b|milliseconds|\b7\.00\b", "\n".join(found[:-2]))
