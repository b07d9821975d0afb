"""The JSON of a bench: types, JSON Schema and docs/BENCH.md say the same."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pocketvl_runtime.bench_result import BenchResult, bench_schema
from pocketvl_runtime.errors import BundleError

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = DOCS / "bench.schema.json"
Edit = Callable[[dict[str, Any]], Any]


def documented() -> dict[str, Any]:
    """The example in docs/BENCH.md."""
    (text,) = re.findall(r"^```json\n(.*?)^```", (DOCS / "BENCH.md").read_text(), re.DOTALL | re.MULTILINE)
    value: dict[str, Any] = json.loads(text)
    return value


def read(value: object) -> BenchResult:
    return BenchResult.from_json(json.dumps(value), "b.json")


def is_valid(value: object) -> bool:
    return bool(jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).is_valid(value))


def test_the_schema_file_is_that_of_the_types() -> None:
    assert SCHEMA.read_text() == bench_schema(), "write it with: make schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_the_documented_example_is_a_result() -> None:
    value = documented()
    assert is_valid(value)
    assert json.loads(read(value).to_json()) == value


def test_the_documentation_explains_every_key() -> None:
    text = (DOCS / "BENCH.md").read_text()
    definitions = json.loads(SCHEMA.read_text())["$defs"].values()
    keys = {key for each in definitions for key in each.get("properties", {})}
    assert sorted(key for key in keys if f"`{key}`" not in text) == []


def test_reading_what_was_written_gives_the_same_result() -> None:
    result = read(documented())
    assert BenchResult.from_json(result.to_json(), "it") == result


def timing(value: dict[str, Any]) -> Any:
    return value["variants"]["tflite-int8"]["timings"][0]


def total(value: dict[str, Any]) -> Any:
    return timing(value)["stages"]["total"]


EDITS: list[tuple[Edit, str]] = [
    (lambda v: v.pop("machine"), "b.json: machine is missing"),
    (lambda v: v.update(more=1), "more is not a key of this schema"),
    (lambda v: v["machine"].update(processors=0), "machine: processors must be at least 1, not 0"),
    (lambda v: v["machine"].update(memory_bytes=0), "machine: memory_bytes must be at least 1"),
    (lambda v: v["machine"].update(governors="powersave"), "machine.governors must be a list"),
    (lambda v: v["tool"].update(name=""), "tool: name must hold at least 1, not 0"),
    (lambda v: v["bundle"].update(manifest_file_sha256="A" * 64), "manifest_file_sha256 is 'AAAA"),
    (lambda v: v["settings"].update(runs=0), "settings: runs must be at least 1"),
    (lambda v: v["settings"].update(warmup_runs=-1), "settings: warmup_runs must be at least 0"),
    (lambda v: v["settings"].update(inputs="mine"), "settings.inputs is 'mine'; known are"),
    (lambda v: v["variants"]["tflite-int8"].update(timings=[]), "timings must hold at least 1, not 0"),
    (lambda v: v["variants"]["tflite-int8"].update(peak_memory_bytes=0), "peak_memory_bytes must be at"),
    (lambda v: timing(v).update(threads=0), "threads must be at least 1"),
    (lambda v: timing(v).update(load_ms=-1), "load_ms must be at least 0"),
    (lambda v: timing(v)["stages"].pop("total"), "timings[0]: stages has no 'total'"),
    (lambda v: total(v).update(n=0), "total: n must be at least 1"),
    (lambda v: total(v).update(p10=-0.5), "total: p10 must be at least 0"),
    (lambda v: total(v).update(median="1"), "median must be a number"),
    (lambda v: v["machine"].update(mhz_max=-1), "machine: mhz_max must be at least 0"),
    (lambda v: v["machine"].update(emulated="yes"), "machine.emulated must be true or false"),
    (lambda v: timing(v).update(busy_threads=-0.1), "busy_threads must be at least 0"),
    (lambda v: timing(v).update(cold_start_ms="1"), "cold_start_ms must be a number"),
    (lambda v: v["variants"]["tflite-int8"].update(steady_memory_bytes=0), "steady_memory_bytes must be at"),
    (lambda v: v["conditions"].pop("throttled"), "b.json: conditions.throttled is missing"),
    (lambda v: v["conditions"]["samples"][1].update(other_load=-1), "samples[1]: other_load must be at"),
    (lambda v: v["sustained"][0].update(windows=[]), "sustained[0]: windows must hold at least 1, not 0"),
    (lambda v: v["sustained"][0]["windows"][0].update(n=0), "windows[0]: n must be at least 1"),
    (lambda v: v.update(version="1.00"), "b.json: version is '1.00', and must be like '1.2'"),
    (lambda v: v.update(version=1.0), "version is 1.0, and must be like"),
    (lambda v: v.update(version="2.0"), "version is 2.0, and this runtime reads 1.x; pip install --upgrade"),
    (lambda v: v.update(version="0.9"), "reads 1.x; measure again with `pocketvl-run bench`"),
    (lambda v: v.update(format="pocketvl-bundle"), "b.json is no result of a bench: its format is not"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_what_the_schema_refuses_is_refused_by_its_key(edit: Edit, message: str) -> None:
    value = documented()
    edit(value)
    with pytest.raises(BundleError, match=re.escape(message)):
        read(value)
    assert not is_valid(value)


BEYOND_SCHEMAS: list[tuple[Edit, str]] = [
    (
        lambda v: total(v).update(p90=total(v)["max"] + 1),
        "total: of p10, median, p90 and max, none may be below",
    ),
    (lambda v: total(v).update(p99=total(v)["max"] + 1), "total: p99 must lie between p90 and max"),
    (lambda v: v["conditions"]["samples"].reverse(), "conditions: samples must be in the order"),
    (lambda v: total(v).update(samples=[1.0]), "samples has 1 items where n is 30"),
    (
        lambda v: v["variants"]["tflite-int8"]["timings"].append(timing(v)),
        "timings has a thread count twice: [1, 4, 1]",
    ),
]


@pytest.mark.parametrize(("edit", "message"), BEYOND_SCHEMAS)
def test_what_no_schema_can_say_is_refused_too(edit: Edit, message: str) -> None:
    value = documented()
    edit(value)
    with pytest.raises(BundleError, match=re.escape(message)):
        read(value)


def test_a_result_of_the_first_version_is_read() -> None:
    value = documented()
    value["version"] = "1.0"
    del value["conditions"], value["sustained"], value["machine"]["emulated"], value["machine"]["mhz_max"]
    del value["variants"]["tflite-int8"]["steady_memory_bytes"]
    for key in ("busy_threads", "first_ms", "cold_start_ms"):
        del timing(value)[key]
    for latency in timing(value)["stages"].values():
        del latency["p99"]
    result = read(value)
    assert (result.conditions, result.sustained, result.machine.emulated) == (None, (), None)
    assert json.loads(result.to_json()) == value


def test_what_a_newer_minor_version_adds_is_ignored() -> None:
    value, plain = documented(), documented()
    value["version"] = plain["version"] = "1.7"
    value["battery_mv"] = 3900
    value["machine"]["temperature"] = 61.5
    timing(value)["delegate"] = {"name": "gpu"}
    assert read(value) == read(plain)
    wrong = copy.deepcopy(value)
    del wrong["machine"]
    with pytest.raises(BundleError, match="machine is missing"):
        read(wrong)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"format": []}', "{"])
def test_what_is_no_result_is_one_clear_error(text: str) -> None:
    with pytest.raises(BundleError, match=r"b\.json is n"):
        BenchResult.from_json(text, "b.json")
