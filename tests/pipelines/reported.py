"""The small bundle with a report of it, and profiles of it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from pocketvl.evaluate.report import Report
from pocketvl.evaluate.report_json import REPORT_FILE, report_to_json
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from tests.devices import profiles
from tests.evaluate.worlds import synthetic_report
from tests.runtime.bundles import write_bundle

MEDIANS = {"onnx-fp32": {1: 30.0, 2: 20.0}, "onnx-int8": {1: 9.0, 2: 6.0}, "tflite-fp32": {1: 25.0}}


def write_reported(root: Path) -> Path:
    """Write the bundle with report.json: onnx-int8 loses 0.5 points, the others nothing."""
    write_bundle(root)
    (root / REPORT_FILE).write_text(report_to_json(report_of(root)), encoding="utf-8")
    return root


def report_of(root: Path) -> Report:
    bundle = Bundle.open(root)
    report = synthetic_report()
    variants = {
        name: dataclasses.replace(
            report.variants["tflite-int8" if name == "onnx-int8" else "tflite-fp32"],
            engine=spec.engine,
            precision=spec.precision,
            size_bytes=bundle.size_bytes(name),
        )
        for name, spec in bundle.manifest.variants.items()
    }
    return dataclasses.replace(report, variants=variants)


def profile_of(root: Path, medians: dict[str, dict[int, float]] = MEDIANS) -> BenchResult:
    manifest = hashlib.sha256((root / "manifest.json").read_bytes()).hexdigest()
    return profiles.profile(medians, manifest=manifest)


def write_profile(root: Path, path: Path, result: BenchResult | None = None) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text((result or profile_of(root)).to_json(), encoding="utf-8")
    return path
