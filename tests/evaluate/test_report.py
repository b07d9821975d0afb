from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from pocketvl.data.dataset import Dataset
from pocketvl.evaluate.report import describe_data
from pocketvl.evaluate.report_json import read_report, report_from_json, report_to_json
from pocketvl_runtime.errors import BundleError
from tests.evaluate.worlds import synthetic_report


def test_a_report_survives_json(tmp_path: Path) -> None:
    report = synthetic_report()
    (tmp_path / "report.json").write_text(report_to_json(report), encoding="utf-8")
    assert read_report(tmp_path / "report.json") == report


def test_report_json_has_the_keys_that_others_read() -> None:
    value = json.loads(report_to_json(synthetic_report()))
    assert value["schema_version"] == 3
    assert {"cpu", "isa", "threads"} <= value["machine"].keys()
    assert value["reference"]["match_hard"]["n"] == 200
    variant = value["variants"]["tflite-int8"]
    assert {
        "size_bytes",
        "metrics",
        "parity",
        "latency_ms",
        "peak_rss_bytes",
        "ops",
        "gate",
    } <= variant.keys()
    assert variant["metrics"]["match_hard"]["drop_pp"] == pytest.approx(0.5)
    assert len(variant["metrics"]["match_hard"]["drop_ci95"]) == 2
    cosines = {"cosine_min", "cosine_median", "centred_cosine_min", "centred_cosine_median", "max_abs"}
    assert cosines <= variant["parity"]["image_encoder.embedding"].keys()
    assert variant["latency_ms"]["image"]["1"] == {"p10": 0.9, "median": 1.0}
    assert {"passed", "allowance_pp", "fallbacks"} <= variant["gate"].keys()
    assert value["sensitivity"] == [
        {"layer": "vision.layers.0", "bits": 8, "drop_pp": 0.25, "component": None, "loss": None}
    ]


def broken(path: list[str], value: object) -> str:
    whole: Any = json.loads(report_to_json(synthetic_report()))
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(whole)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["schema_version"], 1, "schema_version"),
        (["schema_version"], True, "schema_version"),
        (["machine", "threads"], "two", r"machine\.threads"),
        (["variants", "tflite-int8", "engine"], "coreml", "coreml"),
        (["variants", "tflite-int8", "surprise"], 1, "surprise"),
        (["reference", "match_hard", "ci95"], [0.1], "ci95"),
    ],
)
def test_a_report_of_another_shape_is_refused_by_the_key(
    path: list[str], value: object, message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        report_from_json(broken(path, value))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="pocketvl verify"):
        read_report(tmp_path / "report.json")
    (tmp_path / "report.json").write_text("{")
    with pytest.raises(BundleError, match=r"report\.json"):
        read_report(tmp_path / "report.json")
    with pytest.raises(BundleError, match="schema_version"):
        report_from_json("[]")


def test_figures_that_json_does_not_have_are_never_written() -> None:
    report = synthetic_report()
    variant = dataclasses.replace(report.variants["onnx-fp32"], size_bytes=float("nan"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="JSON"):
        report_to_json(dataclasses.replace(report, variants={"onnx-fp32": variant}))


def test_variants_are_ordered_by_engine_then_precision() -> None:
    names = [variant.name for variant in synthetic_report().ordered_variants()]
    assert names == ["onnx-fp32", "tflite-fp32", "tflite-int8"]


def test_data_is_described_by_content_and_not_by_place(tmp_path: Path) -> None:
    digests = []
    for place in ("here", "there"):
        folder = tmp_path / place / "scenes"
        folder.mkdir(parents=True)
        (folder / "x.png").write_bytes(b"")
        (folder / "samples.jsonl").write_text('{"image": "x.png", "captions": ["a"]}\n')
        described = describe_data(Dataset.open(folder), 7)
        assert (described.name, described.samples, described.texts) == ("scenes", 1, 7)
        assert str(tmp_path) not in repr(described)
        digests.append(described.sha256)
    assert digests[0] == digests[1]
