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
WHY = "this runtime cannot run tasks of kind 'generate'; install a newer pocketvl-runtime"


def describe_too(manifest: Any) -> None:
    """Adds a component that no variant has, and a task that asks it."""
    inputs = [manifest["graphs"][name]["inputs"][0] for name in ("image_encoder", "text_encoder")]
    logits = {"name": "logits", "dtype": "float32", "shape": [1, 1, 9], "kind": "token_logits"}
    manifest["graphs"]["decoder"] = {"inputs": inputs, "outputs": [logits]}
    manifest["tasks"]["describe"] = {
        "kind": "generate",
        **dict.fromkeys(("vision", "embed", "step"), "decoder"),
        "prefill": [{"component": "decoder", "length": 1}],
        "logits": "decoder.logits",
        "image_token": {"id": 1, "text": "<image>", "count": 4},
        "cache_length": 8,
        "max_new_tokens": 4,
        "stop_ids": [2],
    }


@pytest.fixture
def describing(bundle: Path) -> Path:
    """A bundle with such a task beside the others."""
    edit_manifest(bundle, describe_too)
    return bundle


def test_other_tasks_answer_as_before(describing: Path) -> None:
    loaded = load(describing, "onnx-fp32")
    assert len(loaded.match(describing / IMAGE, ["a", "green"]).results) == 2
    assert loaded.components == {"image_encoder", "text_encoder"}
    with pytest.raises(BundleError, match=WHY):
        refuse_task(loaded.manifest, "describe")


def test_info_shows_it(describing: Path) -> None:
    done = run("info", describing)
    assert done.returncode == 0
    assert "describe cannot be asked here: this runtime cannot run tasks of kind 'generate'" in done.stdout
    assert "decoder: gives logits [1, 1, 9]" in done.stdout
    told = json.loads(run("info", describing, "--json").stdout)["tasks"]
    assert told["describe"] == {"kind": "generate", "obstacle": "tasks of kind 'generate'"}
    assert told["match"] == {"kind": "contrastive", "obstacle": None}


def test_the_selftest_notes_what_it_does_not_check(describing: Path) -> None:
    report = selftest(Bundle.open(describing), VARIANTS)
    assert report.passed
    assert report.notes == (
        "task 'describe' is not checked: this runtime cannot run tasks of kind 'generate'",
    )


def test_a_bundle_with_nothing_that_can_be_run_says_why(describing: Path) -> None:
    def alone(manifest: Any) -> None:
        manifest["tasks"] = {
            "describe": {
                **manifest["tasks"]["describe"],
            }
        }

    edit_manifest(describing, alone)
    with pytest.raises(BundleError, match=f"task 'describe': {WHY}"):
        load(describing, "onnx-fp32")
    assert run("info", describing).returncode == 0
    done = run("match", describing, "--image", describing / IMAGE, "--text", "a")
    assert done.returncode == 1
    assert WHY in done.stderr


@pytest.mark.parametrize(("command", "task"), [("match", "match"), ("classify", "classify")])
def test_a_task_that_is_not_there_is_named(bundle: Path, command: str, task: str) -> None:
    edit_manifest(bundle, lambda m: m["tasks"].pop(task))
    words = ["--text", "a"] if command == "match" else []
    done = run(command, bundle, "--image", bundle / IMAGE, *words)
    assert done.returncode == 1
    assert f"tiny has no task '{task}'; it has " in done.stderr
