"""What this runtime cannot run yet is shown, and refused in one line when it is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.obstacles import refuse_task
from pocketvl_runtime.selftest import selftest
from tests.runtime.bundles import VARIANTS, edit_manifest
from tests.runtime.test_cli import run

IMAGE = "golden/images/wide.jpg"
WHY = "this runtime cannot run tasks of kind 'match'; install a newer pocketvl-runtime"


def rerank_too(manifest: Any) -> None:
    """Adds a component that no variant has, and a task that asks it."""
    inputs = [manifest["graphs"][name]["inputs"][0] for name in ("image_encoder", "text_encoder")]
    logits = {"name": "logits", "dtype": "float32", "shape": [1, 2], "kind": "class_logits"}
    manifest["graphs"]["fusion"] = {"inputs": inputs, "outputs": [logits]}
    manifest["tasks"]["rerank"] = {
        "kind": "match",
        "logits": "fusion.logits",
        "positive_index": 1,
        "activation": "softmax",
        "reranks": "match",
    }


@pytest.fixture
def reranking(bundle: Path) -> Path:
    """A bundle with such a task beside the others."""
    edit_manifest(bundle, rerank_too)
    return bundle


def test_other_tasks_answer_as_before(reranking: Path) -> None:
    loaded = load(reranking, "onnx-fp32")
    assert len(loaded.match(reranking / IMAGE, ["a", "green"]).results) == 2
    assert loaded.components == {"image_encoder", "text_encoder"}
    with pytest.raises(BundleError, match=WHY):
        refuse_task(loaded.manifest, "rerank")


def test_info_shows_it(reranking: Path) -> None:
    done = run("info", reranking)
    assert done.returncode == 0
    assert "rerank cannot be asked here: this runtime cannot run tasks of kind 'match'" in done.stdout
    assert "fusion: gives logits [1, 2]" in done.stdout
    told = json.loads(run("info", reranking, "--json").stdout)["tasks"]
    assert told["rerank"] == {"kind": "match", "obstacle": "tasks of kind 'match'"}
    assert told["match"] == {"kind": "contrastive", "obstacle": None}


def test_the_selftest_notes_what_it_does_not_check(reranking: Path) -> None:
    report = selftest(Bundle.open(reranking), VARIANTS)
    assert report.passed
    assert report.notes == ("task 'rerank' is not checked: this runtime cannot run tasks of kind 'match'",)


def test_a_bundle_with_nothing_that_can_be_run_says_why(reranking: Path) -> None:
    def alone(manifest: Any) -> None:
        manifest["tasks"] = {"rerank": {**manifest["tasks"]["rerank"], "reranks": "rerank"}}

    edit_manifest(reranking, alone)
    with pytest.raises(BundleError, match=f"task 'rerank': {WHY}"):
        load(reranking, "onnx-fp32")
    assert run("info", reranking).returncode == 0
    done = run("match", reranking, "--image", reranking / IMAGE, "--text", "a")
    assert done.returncode == 1
    assert WHY in done.stderr


@pytest.mark.parametrize(("command", "task"), [("match", "match"), ("classify", "classify")])
def test_a_task_that_is_not_there_is_named(bundle: Path, command: str, task: str) -> None:
    edit_manifest(bundle, lambda m: m["tasks"].pop(task))
    words = ["--text", "a"] if command == "match" else []
    done = run(command, bundle, "--image", bundle / IMAGE, *words)
    assert done.returncode == 1
    assert f"tiny has no task '{task}'; it has " in done.stderr
