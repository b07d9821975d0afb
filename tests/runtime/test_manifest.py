"""manifest.json is read strictly and written one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest, PreprocessSpec, ResizeMode, Role, check_relative_path
from tests.runtime.bundles import edit_manifest

Edit = Callable[[dict[str, Any]], Any]


def test_reading_what_was_written_gives_the_same_manifest(whole_bundle: Path) -> None:
    manifest = Manifest.read(whole_bundle / "manifest.json")
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.variants["onnx-int8"].graphs[Role.TEXT_ENCODER] == "text_encoder.int8.onnx"


def test_the_text_is_sorted_indented_by_one_and_ends_in_a_newline(whole_bundle: Path) -> None:
    text = (whole_bundle / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


EDITS: list[tuple[Edit, str]] = [
    (lambda m: m.pop("space"), "space is missing"),
    (lambda m: m.update(space=3), "space must be a string, not a number"),
    (lambda m: m.update(extra=1), "extra is not a key"),
    (lambda m: m.update(embedding_dim=8.5), "embedding_dim must be an integer"),
    (lambda m: m.update(embedding_dim=True), "embedding_dim must be an integer, not a boolean"),
    (lambda m: m.update(embedding_dim=0), "embedding_dim must be at least 1"),
    (lambda m: m.update(logit_scale="1"), "logit_scale must be a number, not a string"),
    (lambda m: m.update(logit_scale=10**400), "logit_scale is not a finite number"),
    (lambda m: m.update(tasks="match"), "tasks must be a list, not a string"),
    (lambda m: m.update(label_template="a photo"), "label_template must hold {label}"),
    (lambda m: m["preprocess"].pop("mean"), "preprocess.mean is missing"),
    (lambda m: m["preprocess"].update(mean=[0, 0]), "preprocess.mean has 2 items where 3 are wanted"),
    (lambda m: m["preprocess"].update(std=[1, 0, 1]), "preprocess: std must not be 0"),
    (lambda m: m["preprocess"].update(resize_mode="fit"), "preprocess.resize_mode is 'fit'; known are"),
    (lambda m: m["preprocess"].update(resample="nearest"), "preprocess: resample 'nearest' is not known"),
    (lambda m: m["preprocess"].update(crop_width=None), "preprocess: crop_height and crop_width go together"),
    (lambda m: m["preprocess"].update(resize_width=9), "preprocess: with shortest_edge"),
    (lambda m: m["tokenizer"].update(length=0), "tokenizer: length 0 must be at least 1"),
    (lambda m: m["tokenizer"].update(needs_mask=1), "tokenizer.needs_mask must be true or false"),
    (lambda m: m["tokenizer"].update(file="../t.json"), "tokenizer: path '../t.json' does not stay inside"),
    (lambda m: m["files"].pop("tokenizer.json"), "tokenizer.file 'tokenizer.json' is not among files"),
    (lambda m: m["files"]["tokenizer.json"].update(sha256="00"), "files.tokenizer.json: sha256 must be 64"),
    (lambda m: m["graphs"].pop("text_encoder.int8.onnx"), "variants.onnx-int8.graphs.text_encoder names"),
    (lambda m: m["files"].pop("graphs/text_encoder.int8.onnx"), "is not among files"),
    (lambda m: m["graphs"]["text_encoder.int8.onnx"].update(inputs=[]), "at least one input"),
    (
        lambda m: m["graphs"]["text_encoder.int8.onnx"]["inputs"][0].update(shape=[1, "T"]),
        "graphs.text_encoder.int8.onnx.inputs[0].shape[1] must be an integer, not a string",
    ),
    (lambda m: m["variants"].update(best=m["variants"]["onnx-int8"]), "variants.best has the engine"),
    (
        lambda m: m["variants"]["onnx-int8"]["graphs"].update(text_encoder="text_encoder.fp32.tflite"),
        "which is a text_encoder for tflite",
    ),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_what_is_wrong_is_named(bundle: Path, edit: Edit, message: str) -> None:
    edit_manifest(bundle, edit)
    with pytest.raises(BundleError) as caught:
        Manifest.read(bundle / "manifest.json")
    assert message in str(caught.value)
    assert str(bundle / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("version", [0, 2, "1", None, True, 1e999])
def test_an_unknown_schema_version_says_which_is_known_and_what_to_do(bundle: Path, version: object) -> None:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text()) | {"schema_version": version}
    path.write_text(json.dumps(value).replace("Infinity", "1e999"))
    with pytest.raises(BundleError, match=r"schema_version is .* knows only 1; install .*or export"):
        Manifest.read(path)


def test_a_newer_manifest_is_told_by_its_version_even_where_its_keys_are_unknown() -> None:
    with pytest.raises(BundleError, match="schema_version is 7"):
        Manifest.from_json('{"schema_version": 7, "shards": []}')


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"a": NaN}', b"\xff\xfe", "[" * 100_000])
def test_what_is_no_manifest_at_all_is_refused(text: str | bytes) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Manifest.from_json(text)


@pytest.mark.parametrize("path", ["a", "graphs/a.onnx", "..a/b", "a b"])
def test_relative_paths_pass(path: str) -> None:
    assert check_relative_path(path) == path


@pytest.mark.parametrize(
    "path", ["", "/etc/passwd", "../a", "a/../../b", "a/..", "./a", "a//b", "a/", "a\\b", "C:a", "a\0b", "."]
)
def test_paths_that_leave_the_bundle_are_refused(path: str) -> None:
    with pytest.raises(BundleError, match="does not stay inside the bundle"):
        check_relative_path(path)


def test_without_a_crop_the_graph_takes_the_exact_size() -> None:
    spec = PreprocessSpec(ResizeMode.EXACT, 10, 20, None, None, (0, 0, 0), (1, 1, 1), 1.0)
    assert (spec.height, spec.width) == (10, 20)
