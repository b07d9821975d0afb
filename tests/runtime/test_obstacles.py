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
WHY = "this runtime cannot run tasks of kind 'labels'; install a newer pocketvl-runtime"


def ask_too(manifest: Any) -> None:
    """Adds a component that no variant has, and a task that asks it."""
    inputs = [manifest["graphs"][name]["inputs"][0] for name in ("image_encoder", "text_encoder")]
    logits = {"name": "logits", "dtype": "float32", "shape": [1, 2], "kind": "class_logits"}
    manifest["graphs"]["vilt"] = {"inputs": inputs, "outputs": [logits]}
    manifest["tasks"]["ask"] = {
        "kind": "labels",
        "logits": "vilt.logits",
        "labels": ["yes", "no"],
        "activation": "sigmoid",
    }


@pytest.fixture
def asking(bundle: Path) -> Path:
    """A bundle with such a task beside the others."""
    edit_manifest(bundle, ask_too)
    return bundle


def test_other_tasks_answer_as_before(asking: Path) -> None:
    loaded = load(asking, "onnx-fp32")
    assert len(loaded.match(asking / IMAGE, ["a", "green"]).results) == 2
    assert loaded.components == {"image_encoder", "text_encoder"}
    with pytest.raises(BundleError, match=WHY):
        refuse_task(loaded.manifest, "ask")


def test_info_shows_it(asking: Path) -> None:
    done = run("info", asking)
    assert done.returncode == 0
    assert "ask cannot be asked here: this runtime cannot run tasks of kind 'labels'" in done.stdout
    assert "vilt: gives logits [1, 2]" in done.stdout
    told = json.loads(run("info", asking, "--json").stdout)["tasks"]
    assert told["ask"] == {"kind": "labels", "obstacle": "tasks of kind 'labels'"}
    assert told["match"] == {"kind": "contrastive", "obstacle": None}


def test_the_selftest_notes_what_it_does_not_check(asking: Path) -> None:
    report = selftest(Bundle.open(asking), VARIANTS)
    assert report.passed
    assert report.notes == ("task 'ask' is not checked: this runtime cannot run tasks of kind 'labels'",)


def test_a_bundle_with_nothing_that_can_be_run_says_why(asking: Path) -> None:
    def alone(manifest: Any) -> None:
        manifest["tasks"] = {"ask": manifest["tasks"]["ask"]}

    edit_manifest(asking, alone)
    with pytest.raises(BundleError, match=f"task 'ask': {WHY}"):
        load(asking, "onnx-fp32")
    assert run("info", asking).returncode == 0
    done = run("match", asking, "--image", asking / IMAGE, "--text", "a")
    assert done.returncode == 1
    assert WHY in done.stderr


@pytest.mark.parametrize(("command", "task"), [("match", "match"), ("classify", "classify")])
def test_a_task_that_is_not_there_is_named(bundle: Path, command: str, task: str) -> None:
    edit_manifest(bundle, lambda m: m["tasks"].pop(task))
    words = ["--text", "a"] if command == "match" else []
    done = run(command, bundle, "--image", bundle / IMAGE, *words)
    assert done.returncode == 1
    assert f"tiny has no task '{task}'; it has " in done.stderr
