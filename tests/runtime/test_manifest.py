"""manifest.json is read strictly and written one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest, PreprocessSpec, ResizeMode, Role, check_relative_path
from pocketvl_runtime.schema import parse_json
from tests.runtime.bundles import edit_manifest

Edit = Callable[[dict[str, Any]], Any]


def test_reading_what_was_written_gives_the_same_manifest(whole_bundle: Path) -> None:
    manifest = Manifest.read(whole_bundle / "manifest.json")
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.variants["onnx-int8"].graphs[Role.TEXT_ENCODER] == "text_encoder.int8.onnx"


def test_the_text_is_sorted_indented_by_one_and_ends_in_a_newline(whole_bundle: Path) -> None:
    text = (whole_bundle / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def graph(manifest: dict[str, Any]) -> Any:
    return manifest["graphs"]["text_encoder.int8.onnx"]


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
    (lambda m: m.update(logit_scale=0), "logit_scale 0.0 must be above 0, at most 1e+09"),
    (lambda m: m.update(logit_scale=-20.0), "logit_scale -20.0 must be above 0"),
    (lambda m: m.update(logit_scale=1.1e9), "logit_scale 1100000000.0 must be above 0"),
    (lambda m: m.update(name="n" * 256), "name has 256 characters, and at most 255 may stand"),
    (lambda m: m.update(space="n" * 256), "space has 256 characters"),
    (lambda m: m.update(family="n" * 256), "family has 256 characters"),
    (lambda m: m.update(label_template="{label}" * 143), "label_template has more than 1000 characters"),
    (lambda m: m["labels"].append("x" * 1_001), "labels: one has more than 1000 characters"),
    (
        lambda m: m.update(labels=["x" * 999] * 30, label_template="{label}" * 142),
        "labels: 30 in the template have 4285560 characters and 360 tokens, and at most 4000000 and 67108864",
    ),
    (
        lambda m: m.update(labels=[""] * 400_000),
        "labels: 400000 in the template have 8000000 characters and 4800000 tokens",
    ),
    (
        lambda m: m["files"]["tokenizer.json"].update(bytes=40_000_001),
        "has 40000001 bytes, and at most 40000000",
    ),
    (lambda m: m["provenance"].update(x=1e999), "provenance.x holds a number that is not finite"),
    (lambda m: m["provenance"].update(x=nested(64)), "provenance.x is nested more than 64 deep"),
    (
        lambda m: m.update({"k" * 10**5: 1}),
        f"{'k' * 30}\u2026{'k' * 29} is not a key of this schema; known are",
    ),
    (lambda m: m["preprocess"].update(resize_mode="x" * 10**5), "preprocess.resize_mode is 'xxx"),
    (lambda m: m["tokenizer"].update(length=10**4000), "tokenizer: length 10000000"),
    (lambda m: m["preprocess"].pop("mean"), "preprocess.mean is missing"),
    (lambda m: m["preprocess"].update(mean=[0, 0]), "preprocess.mean has 2 items where 3 are wanted"),
    (lambda m: m["preprocess"].update(std=[1, 0, 1]), "preprocess: std must not be 0"),
    (lambda m: m["preprocess"].update(resize_mode="fit"), "preprocess.resize_mode is 'fit'; known are"),
    (lambda m: m["preprocess"].update(resample="nearest"), "preprocess: resample 'nearest' is not known"),
    (lambda m: m["preprocess"].update(crop_width=None), "preprocess: crop_height and crop_width go together"),
    (lambda m: m["preprocess"].update(resize_width=9), "preprocess: with shortest_edge"),
    (
        lambda m: m["preprocess"].update(resize_height=10_000, resize_width=10_000),
        "preprocess: resize and crop sizes [10000, 10000, 16, 16] make more than 89000000 pixels",
    ),
    (lambda m: m["preprocess"].update(crop_height=2**40), "make more than 89000000 pixels"),
    (
        lambda m: m["preprocess"].update(crop_height=15),
        "its inputs are 'pixels' uint8 [1, 16, 16, 3], and 'pix",
    ),
    (lambda m: m["tokenizer"].update(length=13), "and 'ids' int32 [1, 13] is wanted"),
    (
        lambda m: m["tokenizer"].update(needs_mask=True),
        "and 'ids' int32 [1, 12], 'mask' int32 [1, 12] is wan",
    ),
    (lambda m: m.update(embedding_dim=9), "'embedding' float32 [1, 8], and one float [1, 9] is wanted"),
    (lambda m: graph(m)["inputs"].append(graph(m)["inputs"][0]), "its inputs are 'ids' int32 [1, 12], 'ids'"),
    (
        lambda m: graph(m)["inputs"][0].update(name="tokens"),
        "its inputs are 'tokens' int32 [1, 12], and 'ids'",
    ),
    (
        lambda m: graph(m)["inputs"][0].update(dtype="int64"),
        "its inputs are 'ids' int64 [1, 12], and 'ids' in",
    ),
    (
        lambda m: graph(m)["outputs"].append(graph(m)["outputs"][0]),
        "its outputs are 'embedding' float32 [1, ",
    ),
    (
        lambda m: graph(m)["outputs"][0].update(dtype="int8"),
        "'embedding' int8 [1, 8], and one float [1, 8] is",
    ),
    (lambda m: graph(m)["outputs"][0].update(shape=[8]), "'embedding' float32 [8], and one float [1, 8] is"),
    (lambda m: m["tokenizer"].update(length=0), "tokenizer: length 0 must be 1 to 65536"),
    (lambda m: m["tokenizer"].update(length=65_537), "tokenizer: length 65537 must be 1 to 65536"),
    (lambda m: m["tokenizer"].update(pad_id=-1), "tokenizer: pad_id -1 must be 0 to 2147483647"),
    (lambda m: m["tokenizer"].update(pad_id=2**31), "tokenizer: pad_id 2147483648 must be 0 to 2147483647"),
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
    (
        lambda m: m["variants"]["onnx-int8"]["graphs"].update(text_encoder="text_encoder.fp32.onnx"),
        "which is a text_encoder for onnx in fp32",
    ),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_what_is_wrong_is_named(bundle: Path, edit: Edit, message: str) -> None:
    edit_manifest(bundle, edit)
    text = (bundle / "manifest.json").read_text()
    (bundle / "manifest.json").write_text(text.replace("Infinity", "1e999"))  # as JSON can say it
    with pytest.raises(BundleError) as caught:
        Manifest.read(bundle / "manifest.json")
    assert message in str(caught.value)
    assert str(bundle / "manifest.json") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


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


@pytest.mark.parametrize(
    ("text", "key"), [('{"a": 1, "a": 1}', "'a'"), ('{"b": [{"c": 1, "d": 2, "c": 3}]}', "'c'")]
)
def test_a_key_that_stands_twice_is_refused(text: str, key: str) -> None:
    with pytest.raises(BundleError, match=f"it is not JSON .key {key} stands twice"):
        parse_json(text, "it")


def test_what_is_nested_less_deep_may_stand_in_the_provenance(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["provenance"].update(x=nested(63)))
    assert Manifest.read(bundle / "manifest.json").provenance["x"] == nested(63)


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
