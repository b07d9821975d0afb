"""The JSON Schemas in docs are those of the types, and the manifests in docs are valid and can be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from pocketvl_runtime.bundle_schemas import golden_schema, manifest_schema
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest
from pocketvl_runtime.obstacles import refuse_task, runnable_tasks, task_obstacle
from tests.runtime.bundles import with_digest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "manifests").glob("*.json"))
NAMES = ["blip", "clap", "clip-vision", "siglip", "smolvlm", "tabletop-clip", "vilt"]


@pytest.mark.parametrize(
    ("file", "schema"), [("bundle.schema.json", manifest_schema), ("golden.schema.json", golden_schema)]
)
def test_the_schema_files_are_those_of_the_types(file: str, schema: Callable[[], str]) -> None:
    assert (DOCS / file).read_text() == schema(), "write it with: make schemas"
    jsonschema.Draft202012Validator.check_schema(json.loads(schema()))


def validator(schema: Callable[[], str]) -> Any:
    return jsonschema.Draft202012Validator(json.loads(schema()))


def test_a_bundle_is_valid(whole_bundle: Path) -> None:
    validator(manifest_schema).validate(json.loads((whole_bundle / "manifest.json").read_text()))
    validator(golden_schema).validate(json.loads((whole_bundle / "golden" / "golden.json").read_text()))


def test_there_is_an_example_of_every_kind_of_model() -> None:
    assert [path.stem for path in EXAMPLES] == NAMES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.stem))
def test_the_examples_are_valid_and_read_and_written_alike(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    validator(manifest_schema).validate(json.loads(text))
    assert Manifest.from_json(text).to_json() == text


OBSTACLES = {
    "clip-vision": {"embed": None},
    "vilt": {"ask": None},
    "siglip": {"match": None, "classify": None},
    "tabletop-clip": {"match": None, "classify": None},
    "blip": {"match": None, "classify": None, "rerank": None},
    "clap": {"match": None, "classify": None},
    "smolvlm": {"describe": "tasks of kind 'generate'"},
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.stem))
def test_what_of_the_examples_can_be_run_is_known(path: Path) -> None:
    manifest = Manifest.from_json(path.read_text(encoding="utf-8"))
    expected = OBSTACLES[path.stem]
    assert {name: task_obstacle(manifest, name) for name in manifest.tasks} == expected
    assert set(runnable_tasks(manifest)) == {name for name, obstacle in expected.items() if obstacle is None}
    for name, obstacle in expected.items():
        if obstacle is not None:
            with pytest.raises(
                BundleError, match=f"task '{name}': this runtime cannot run {obstacle}; install"
            ):
                refuse_task(manifest, name)


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.pop("processors"),
        lambda m: m.update(extra=1),
        lambda m: m.update(manifest_sha256="x"),
        lambda m: m["processors"]["text"].update(kind="sentencepiece"),
        lambda m: m["processors"]["image"]["steps"][0].update(filter="nice"),
        lambda m: m["graphs"]["image_encoder"]["inputs"][0].update(shape=[1, None]),
        lambda m: m["graphs"]["image_encoder"]["inputs"][0].update(kind="smell"),
        lambda m: m["variants"]["onnx-int8"].update(weights_bits="8"),
        lambda m: m["tasks"]["match"].update(scale=1),
    ],
)
def test_what_the_schema_refuses_the_reader_refuses_too(edit: Callable[[Any], Any]) -> None:
    value = json.loads((DOCS / "manifests" / "siglip.json").read_text())
    edit(value)
    assert not validator(manifest_schema).is_valid(value)
    signed = value if value.get("manifest_sha256") == "x" else json.loads(with_digest(value))
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(signed))
