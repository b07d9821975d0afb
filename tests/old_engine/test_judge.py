"""What `min_engine` lets in must be right, and what it keeps out is not held against it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.backends.versions import distribution
from tests.old_engine.judge import Kernels, Outcome, Row, Verdict, judge, main
from tests.runtime.bundles import edit_manifest

LITERT = "ai_edge_litert"


def only(bundle: Path) -> Row:
    (row,) = judge(bundle, LITERT)
    return row


def shift_golden(bundle: Path) -> None:
    """Makes every expected output another, as an engine that computes wrongly makes its own."""
    path = bundle / "golden" / "golden.json"
    golden = json.loads(path.read_text())
    for arrays in golden["outputs"].values():
        for array in arrays:
            array["values"] = array["values"][::-1]
    path.write_text(json.dumps(golden))
    content = path.read_bytes()

    def edit(manifest: Any) -> None:
        entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        manifest["files"]["golden/golden.json"] = entry

    edit_manifest(bundle, edit)


def test_a_variant_that_is_right_passes_with_either_kernels(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = only(bundle)
    assert (row.variant, row.min_engine, row.verdict) == ("tflite-fp32", None, Verdict.PASSED)
    assert set(row.outcomes) == set(Kernels)
    for outcome in row.outcomes.values():
        assert outcome.passed
        assert outcome.cosine == pytest.approx(1, abs=1e-5)
    assert main(["--engine", LITERT, str(bundle)]) == 0
    shown = capsys.readouterr().out
    assert distribution(LITERT)[1] in shown
    assert "| tflite-fp32 | any | passed | right, cosine 1.00000 | right, cosine 1.00000 |" in shown


@pytest.mark.parametrize(
    ("least", "verdict"), [(None, Verdict.WRONG), ("0.16", Verdict.WRONG), ("99", Verdict.REFUSED)]
)
def test_a_wrong_variant_has_to_be_refused(
    least: str | None, verdict: Verdict, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shift_golden(bundle)
    edit_manifest(bundle, lambda m: m["variants"]["tflite-fp32"].update(min_engine=least))
    row = only(bundle)
    assert row.verdict is verdict
    for outcome in row.outcomes.values():
        assert outcome.failures
        assert outcome.cosine is not None
        assert outcome.cosine < 0.9
    assert main(["--engine", LITERT, str(bundle)]) == (verdict is Verdict.WRONG)
    said = capsys.readouterr()
    assert verdict in said.out
    assert ("cosine" in said.err) == (verdict is Verdict.WRONG)


def test_a_graph_that_does_not_open_is_wrong_unless_it_is_refused(bundle: Path) -> None:
    def edit(manifest: Any) -> None:
        files = manifest["variants"]["tflite-fp32"]["files"]
        files["image_encoder"]["file"] = files["text_encoder"]["file"]

    edit_manifest(bundle, edit)
    row = only(bundle)
    assert row.verdict is Verdict.WRONG
    assert not any(outcome.passed for outcome in row.outcomes.values())


def test_bundles_without_tflite_variants_prove_nothing(
    bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit_manifest(bundle, lambda m: m["variants"].pop("tflite-fp32"))
    assert main(["--engine", LITERT, str(bundle)]) == 1
    assert "none of the bundles holds a TFLite variant" in capsys.readouterr().err


def test_a_crash_is_no_pass() -> None:
    crashed = Outcome(None, None, "the engine crashed")
    assert not crashed.passed
    assert str(crashed) == "does not run (the engine crashed)"
