"""manifest.json is read strictly and written one way."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import (
    ImageProcessor,
    Manifest,
    Normalization,
    ResizeMode,
    check_relative_path,
    manifest_digest,
)
from pocketvl_runtime.schema import parse_json
from tests.runtime.bundles import edit_manifest

Edit = Callable[[dict[str, Any]], Any]
NORMALIZATION = Normalization((0, 0, 0), (1, 1, 1), 1.0)


def test_reading_what_was_written_gives_the_same_manifest(whole_bundle: Path) -> None:
    manifest = Manifest.read(whole_bundle / "manifest.json")
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert manifest.variants["onnx-int8"].files["text_encoder"].file == "graphs/text_encoder.int8.onnx"


def test_the_text_is_sorted_indented_by_one_and_ends_in_a_newline(whole_bundle: Path) -> None:
    text = (whole_bundle / "manifest.json").read_text()
    assert text == json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def image(manifest: dict[str, Any]) -> Any:
    return manifest["processors"]["image"]


def text(manifest: dict[str, Any]) -> Any:
    return manifest["processors"]["text"]


def step(manifest: dict[str, Any], number: int) -> Any:
    return image(manifest)["steps"][number]


def graph(manifest: dict[str, Any]) -> Any:
    return manifest["graphs"]["text_encoder"]


def stored(manifest: dict[str, Any]) -> Any:
    return manifest["variants"]["onnx-int8"]["files"]["text_encoder"]


def classify(manifest: dict[str, Any]) -> Any:
    return manifest["tasks"]["classify"]


EDITS: list[tuple[Edit, str]] = [
    (lambda m: m.pop("tasks"), "tasks is missing"),
    (lambda m: m.update(extra=1), "extra is not a key"),
    (
        lambda m: m.update({"k" * 10**5: 1}),
        f"{'k' * 30}\u2026{'k' * 29} is not a key of this schema; known are",
    ),
    (lambda m: m.update(files=[]), "files must be an object, not a list"),
    (
        lambda m: m["model"].update(name="n" * 256),
        "model: name has 256 characters, and at most 255 may stand",
    ),
    (lambda m: m["model"].update(family="n" * 256), "model: family has 256 characters"),
    (lambda m: m["model"].update(modalities=["smell"]), "model.modalities[0] is 'smell'; known are"),
    (lambda m: m["provenance"].update(x=1e999), "provenance.x holds a number that is not finite"),
    (lambda m: m["provenance"].update(x=nested(64)), "provenance.x is nested more than 64 deep"),
    # processors
    (lambda m: image(m).update(kind="sound"), "processors.image.kind is 'sound'; known are ['image', 'tok"),
    (lambda m: image(m).update(kind=["image"]), "processors.image.kind is ['image']; known are"),
    (lambda m: image(m).pop("kind"), "processors.image.kind is missing"),
    (lambda m: image(m).pop("steps"), "processors.image.steps is missing"),
    (lambda m: image(m).update(steps=[]), "processors.image: steps leave pictures of several sizes"),
    (lambda m: image(m)["steps"].pop(1), "processors.image: steps leave pictures of several sizes"),
    (lambda m: image(m).update(alpha="over_black"), "processors.image.alpha is 'over_black'; known are"),
    (lambda m: step(m, 0).update(op="blur"), "processors.image.steps[0].op is 'blur'; known are ['resize', "),
    (lambda m: step(m, 0).update(mode="x" * 10**5), "processors.image.steps[0].mode is 'xxx"),
    (lambda m: step(m, 0).update(filter="nice"), "processors.image.steps[0].filter is 'nice'; known are"),
    (
        lambda m: step(m, 0).update(mode="exact"),
        "a resize of mode 'exact' takes height and width, and nothing",
    ),
    (lambda m: step(m, 0).update(width=9), "a resize of mode 'shortest_edge' takes size, and nothing else"),
    (lambda m: step(m, 0).update(size=0), "steps[0]: sizes must be at least 1, not [0, 0]"),
    (
        lambda m: step(m, 0).update(size=10_000),
        "steps[0]: sizes [10000, 10000] make more than 89000000 pixels",
    ),
    (lambda m: step(m, 1).update(height=2**40), "make more than 89000000 pixels"),
    (lambda m: step(m, 1).update(height=15), "output.shape is [1, 16, 16, 3], and steps make [1, 15, 16, 3]"),
    (lambda m: image(m)["output"].update(dtype="float32"), "output.dtype is 'float32'; 'uint8' is wanted"),
    (lambda m: image(m)["normalized_in_graph"].pop("mean"), "normalized_in_graph.mean is missing"),
    (lambda m: image(m)["normalized_in_graph"].update(mean=[0, 0]), "mean has 2 items where 3 are wanted"),
    (
        lambda m: image(m)["normalized_in_graph"].update(std=[1, 0, 1]),
        "normalized_in_graph: std must not be 0",
    ),
    (lambda m: text(m).update(max_length=10**4000), "processors.text: max_length 10000000"),
    (lambda m: text(m).update(max_length=0), "processors.text: max_length 0 must be 1 to 65536"),
    (lambda m: text(m).update(max_length=65_537), "max_length 65537 must be 1 to 65536"),
    (
        lambda m: text(m).update(max_length=13),
        "and processor 'text' gives token_ids int32 [1, 13], attention",
    ),
    (lambda m: text(m)["pad"].update(id=-1), "processors.text.pad: id -1 must be 0 to 2147483647"),
    (lambda m: text(m)["pad"].update(id=2**31), "processors.text.pad: id 2147483648 must be 0 to 2147483647"),
    (lambda m: text(m)["pad"].update(side="up"), "processors.text.pad.side is 'up'; known are"),
    (lambda m: text(m).update(canonicalize=["trim"]), "canonicalize[0] is 'trim'; known are ['lower', "),
    (lambda m: text(m).update(prompt=[{"kind": "text", "text": "a"}]), "text goes with kind 'literal'"),
    (lambda m: text(m).update(file="../t.json"), "processors.text: path '../t.json' does not stay inside"),
    (lambda m: m["files"].pop("tokenizer.json"), "processors.text.file 'tokenizer.json' is not among files"),
    (lambda m: m["files"]["tokenizer.json"].update(sha256="00"), "files.tokenizer.json: sha256 must be 64"),
    (
        lambda m: m["files"]["tokenizer.json"].update(bytes=40_000_001),
        "has 40000001 bytes, and at most 40000000",
    ),
    (lambda m: m["processors"].update({"a.b": text(m)}), "processors: 'a.b' must be letters, digits and _"),
    # graphs
    (
        lambda m: graph(m).update(inputs=[]),
        "graphs.text_encoder: a graph has at least one input and one outp",
    ),
    (lambda m: graph(m)["inputs"].append(graph(m)["inputs"][0]), "two ports have one name: ['ids', 'ids']"),
    (
        lambda m: graph(m)["inputs"][0].update(dtype="int64"),
        "'ids' token_ids int64 [1, 12] is wanted, and pr",
    ),
    (lambda m: graph(m)["inputs"][0].update(dtype="int"), "inputs[0].dtype is 'int'; known are"),
    (
        lambda m: graph(m)["inputs"][0].update(shape=[1, 13]),
        "'ids' token_ids int32 [1, 13] is wanted, and pr",
    ),
    (lambda m: graph(m)["inputs"][0].update(shape=[1, 0]), "shape [1, 0] must hold sizes of at least 1"),
    (
        lambda m: graph(m)["inputs"][0].update(shape=[1, 1.5]),
        "shape[1] must be an integer or a string, not a n",
    ),
    (
        lambda m: graph(m)["inputs"][0].update(shape=[1, True]),
        "shape[1] must be an integer or a string, not a b",
    ),
    (lambda m: graph(m)["inputs"][0].update(shape=[1, "a b"]), "size 'a b' must be letters, digits and _"),
    (
        lambda m: graph(m)["inputs"][0].update(kind="pixels"),
        "'ids' pixels int32 [1, 12] is wanted, and processo",
    ),
    (lambda m: graph(m)["inputs"][0].update({"from": "eye"}), "is from 'eye', which is none of processors"),
    (lambda m: graph(m)["inputs"][0].update({"from": "a.b"}), "is from 'a.b', which is no output of graphs"),
    (lambda m: graph(m)["inputs"][0].update(name=""), "a port's name must have 1 to 255 characters, not 0"),
    (lambda m: graph(m)["outputs"][0].pop("space"), "space goes with kind 'embedding', and with no other"),
    (lambda m: graph(m)["outputs"][0].update(space="n" * 256), "space has 256 characters"),
    (
        lambda m: graph(m)["outputs"][0].update(space="other"),
        "its embeddings lie in two spaces, and no cosine",
    ),
    (
        lambda m: graph(m)["outputs"][0].update(dtype="int8"),
        "its embeddings differ: 'embedding' embedding fl",
    ),
    (
        lambda m: graph(m)["outputs"][0].update(shape=[1, 9]),
        "its embeddings differ: 'embedding' embedding fl",
    ),
    (
        lambda m: m["graphs"].update({"1a": graph(m)}),
        "graphs: '1a' must be letters, digits and _, and not begin",
    ),
    # variants
    (lambda m: m["graphs"].pop("text_encoder"), "names component 'text_encoder', which is not among graphs"),
    (lambda m: m["files"].pop("graphs/text_encoder.int8.onnx"), "is not among files"),
    (lambda m: stored(m).update(file="/etc/passwd"), "path '/etc/passwd' does not stay inside"),
    (
        lambda m: stored(m).update(ports={"x": {}}),
        "text_encoder.ports names ['x'], which the component has no",
    ),
    (lambda m: stored(m).update(ports={"ids": {"shape": [-1]}}), "ports.ids: shape [-1] must hold sizes"),
    (lambda m: m["variants"].update(best=m["variants"]["onnx-int8"]), "variants.best has the engine"),
    (lambda m: m["variants"]["onnx-int8"].update(precision="fp32"), "variants.onnx-int8 has the engine and"),
    (
        lambda m: m["variants"]["onnx-int8"].update(mode="quick"),
        "variants.onnx-int8.mode is 'quick'; known are",
    ),
    (
        lambda m: m["variants"]["onnx-int8"].update(min_engine="new"),
        "min_engine 'new' is no version, as 1.20",
    ),
    (
        lambda m: m["variants"]["onnx-int8"]["comparable"][0]["centred_cosine_median"].update(eye=1),
        "variants.onnx-int8.comparable names component 'eye', which is not among graphs",
    ),
    # tasks
    (lambda m: m.update(tasks=[]), "tasks must be an object, not a list"),
    (lambda m: m["tasks"].update({"a b": classify(m)}), "tasks: 'a b' must be letters, digits and _"),
    (
        lambda m: classify(m).update(kind="guess"),
        "tasks.classify.kind is 'guess'; known are ['contrastive', ",
    ),
    (
        lambda m: classify(m).update(first="eye.x"),
        "tasks.classify.first is 'eye.x', which is no output of gra",
    ),
    (
        lambda m: classify(m).update(first=classify(m)["second"]),
        "first and second are both 'text_encoder.emb",
    ),
    (lambda m: classify(m).update(activation="relu"), "tasks.classify.activation is 'relu'; known are"),
    (
        lambda m: classify(m).update(bias=1e10),
        "tasks.classify: bias 10000000000.0 must be between -1e+09 and",
    ),
    (lambda m: classify(m)["scale"].update(first="1"), "scale.first must be a number, not a string"),
    (lambda m: classify(m)["scale"].update(first=10**400), "scale.first is not a finite number"),
    (
        lambda m: classify(m)["scale"].update(first=0),
        "tasks.classify.scale: scale 0.0 must be above 0, at most",
    ),
    (lambda m: classify(m)["scale"].update(second=-20.0), "scale -20.0 must be above 0"),
    (lambda m: classify(m)["scale"].update(second=1.1e9), "scale 1100000000.0 must be above 0"),
    (lambda m: classify(m).pop("labels"), "tasks.classify: labels and template go together"),
    (lambda m: classify(m).update(template="a photo"), "template must hold {label}"),
    (lambda m: classify(m).update(template="{label}" * 143), "template has more than 1000 characters"),
    (lambda m: classify(m)["labels"].append("x" * 1_001), "labels: one has more than 1000 characters"),
    (
        lambda m: classify(m).update(labels=["x" * 999] * 30, template="{label}" * 142),
        "labels: 30 in the template have 4285560 characters, and at most 4000000 are read",
    ),
    (
        lambda m: classify(m).update(labels=[""] * 400_000),
        "labels: 400000 in the template have 8000000 characters",
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
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("version", ["2", "2.0.0", 2.0, 2, None, True, 1e999, "02.0", "2.x", " 2.0", "-2.0"])
def test_what_is_no_version_is_refused(bundle: Path, version: object) -> None:
    edit_manifest(bundle, lambda m: m.update(version=version))
    with pytest.raises(BundleError, match=r"version is .*, and must be like '2\.0'"):
        Manifest.read(bundle / "manifest.json")


@pytest.mark.parametrize(
    ("version", "advice"),
    [("3.0", "pip install --upgrade"), ("12.7", "pip install --upgrade"), ("1.9", "export the bundle again")],
)
def test_another_major_version_says_which_is_known_and_what_to_do(version: str, advice: str) -> None:
    text = json.dumps({"format": "pocketvl-bundle", "version": version, "shards": []})
    with pytest.raises(BundleError, match=f"version is {version}, and this runtime reads 2.x; {advice}"):
        Manifest.from_json(text)


def test_a_newer_minor_version_may_have_keys_and_kinds_of_tasks_that_nobody_knows(bundle: Path) -> None:
    def edit(manifest: Any) -> None:
        manifest.update(version="2.7", shards=[1])
        image(manifest)["steps"][0]["gamma"] = 2.2
        manifest["tasks"]["dream"] = {"kind": "diffuse", "unet": "a.b"}

    path = bundle / "manifest.json"
    known = Manifest.read(path)
    edit_manifest(bundle, edit)
    newer = Manifest.read(path)
    assert newer.version == "2.7"
    assert (newer.tasks, newer.processors, newer.graphs) == (known.tasks, known.processors, known.graphs)
    edit_manifest(bundle, lambda m: m.update(version="2.0"))
    with pytest.raises(BundleError, match="is not a key of this schema"):
        Manifest.read(path)


def test_the_checksum_of_a_manifest_is_of_its_canonical_form() -> None:
    text = (
        '{"b": [1.50, 1e-5, {"z": true, "a": null}],  "\\u00e9": "\\u00fc\\n\\"",\n "manifest_sha256": "x"}'
    )
    # printf '{"b":[1.50,1e-5,{"a":null,"z":true}],"é":"ü\\n\\""}' | sha256sum
    assert (
        manifest_digest(text)
        == hashlib.sha256(
            '{"b":[1.50,1e-5,{"a":null,"z":true}],"\u00e9":"\u00fc\\n\\""}'.encode()
        ).hexdigest()
    )


def test_a_manifest_without_a_checksum_or_with_another_is_refused(bundle: Path) -> None:
    path = bundle / "manifest.json"
    value = json.loads(path.read_text())
    promised = value.pop("manifest_sha256")
    path.write_text(json.dumps(value))
    with pytest.raises(BundleError, match="manifest_sha256 is missing; the manifest is damaged"):
        Manifest.read(path)
    for wrong in ("", "0" * 64, promised.upper(), None, 5, [promised]):
        path.write_text(json.dumps({**value, "manifest_sha256": wrong}))
        with pytest.raises(BundleError, match="manifest_sha256 is (not|missing)"):
            Manifest.read(path)


def test_a_manifest_that_has_no_canonical_form_is_one_line() -> None:
    text = json.dumps({"format": "pocketvl-bundle", "version": "2.0", "manifest_sha256": "x", "a": "\ud800"})
    with pytest.raises(BundleError, match="has no canonical form"):
        Manifest.from_json(text)


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
    processor = ImageProcessor.bicubic(ResizeMode.EXACT, (10, 20), None, NORMALIZATION)
    assert (processor.height, processor.width) == (10, 20)


def test_an_edge_that_is_two_sizes_is_none() -> None:
    with pytest.raises(BundleError, match="height and width are the same edge"):
        ImageProcessor.bicubic(ResizeMode.SHORTEST_EDGE, (10, 20), (5, 5), NORMALIZATION)
