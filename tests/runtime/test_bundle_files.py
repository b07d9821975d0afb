"""The bundles in tests/bundles are read as their README says."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest
from pocketvl_runtime.selftest import selftest

BUNDLES = Path(__file__).parents[1] / "bundles"
VARIANTS = ["onnx-fp32", "tflite-fp32"]
DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", ["format-1", "format-2.0", "format-2.1"])
def test_what_can_be_read_opens_and_answers(name: str) -> None:
    bundle = Bundle.open(BUNDLES / name)
    report = selftest(bundle, VARIANTS)
    assert report.failures == ()
    assert (report.files, report.images, report.texts, report.answers) == (10, 2, 3, 4)
    assert sorted(bundle.manifest.tasks) == ["classify", "match"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_questions_are_answered_as_the_golden_pack_says(variant: str) -> None:
    bundle = Bundle.open(BUNDLES / "labels-2.0")
    report = selftest(bundle, [variant])
    assert report.failures == ()
    assert (report.files, report.images, report.texts, report.answers) == (8, 2, 3, 3)
    golden, loaded = bundle.golden(), load(bundle, variant)
    for expected in (golden.answers or {})["ask"]:
        image = bundle.file(golden.images[expected.inputs["image"]].file)
        (result,) = loaded.ask(image, golden.texts[expected.inputs["text"]].text).results
        assert result.answers[0].answer == expected.answer
        assert result.answers[0].probability == pytest.approx(max(expected.probability), abs=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_encoder_by_itself_embeds_as_the_golden_pack_says(variant: str) -> None:
    bundle = Bundle.open(BUNDLES / "embed-2.0")
    report = selftest(bundle, [variant])
    assert report.failures == ()
    assert (report.files, report.images, report.texts, report.answers) == (7, 2, 0, 0)
    golden, loaded = bundle.golden(), load(bundle, variant)
    for expected in golden.outputs["image_encoder.embedding"]:
        found = loaded.embed_image(bundle.file(golden.images[expected.inputs["image"]].file))
        np.testing.assert_allclose(found, expected.values, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_all_of_them_answer_alike(variant: str) -> None:
    answers = []
    for name in ("format-1", "format-2.0", "format-2.1"):
        image = BUNDLES / name / "golden" / "images" / "wide.jpg"
        results = load(BUNDLES / name, variant).classify(image).results
        answers.append([(each.label, each.similarity, each.probability) for each in results])
    assert answers[0] == answers[1] == answers[2]


def test_a_newer_minor_version_has_something_to_pass_over() -> None:
    value = json.loads((BUNDLES / "format-2.1" / "manifest.json").read_text())
    assert {"shards"} == set(value) - set(json.loads((BUNDLES / "format-2.0" / "manifest.json").read_text()))
    assert value["tasks"]["segment"]["kind"] == "segment"


def test_another_major_version_is_refused_with_advice() -> None:
    with pytest.raises(
        BundleError, match=r"version is 3\.0, and this runtime reads 2\.x; pip install --upgrade"
    ):
        Bundle.open(BUNDLES / "format-3.0")


def test_one_flipped_bit_is_refused() -> None:
    whole, damaged = (
        (BUNDLES / name / "manifest.json").read_bytes() for name in ("format-2.0", "flipped-bit")
    )
    assert sum((a ^ b).bit_count() for a, b in zip(whole, damaged, strict=True)) == 1
    jsonschema.validate(json.loads(damaged), json.loads((DOCS / "bundle.schema.json").read_text()))
    with pytest.raises(BundleError, match="is damaged or was edited: manifest_sha256 is not"):
        Bundle.open(BUNDLES / "flipped-bit")


# --- format 1 ----------------------------------------------------------------------------------------


def old(tmp_path: Path) -> Path:
    """A copy of the bundle of format 1 to change; its manifest has no checksum."""
    return Path(shutil.copytree(BUNDLES / "format-1", tmp_path / "old"))


def test_an_old_manifest_says_what_a_new_one_says() -> None:
    before, now = (Manifest.read(BUNDLES / name / "manifest.json") for name in ("format-1", "format-2.0"))
    assert before.graphs == now.graphs
    assert before.processors == now.processors
    assert before.tasks == now.tasks
    assert before.model == now.model
    golden = [Bundle.open(BUNDLES / name).golden() for name in ("format-1", "format-2.0")]
    assert golden[0].inputs == golden[1].inputs
    assert golden[0].answers == golden[1].answers
    for port, arrays in golden[0].outputs.items():
        for one, other in zip(arrays, golden[1].outputs[port], strict=True):
            np.testing.assert_allclose(one.values, other.values, atol=1e-6)


EDITS = {
    "logit_scale": 30.0,
    "space": "sha256:other",
    "labels": ["blue ball", "red cube", "green"],
    "label_template": "a picture of a {label}",
}


@pytest.mark.parametrize("key", EDITS)
def test_an_old_manifest_is_held_against_its_golden_answers(key: str, tmp_path: Path) -> None:
    path = old(tmp_path) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: EDITS[key]}))
    with pytest.raises(BundleError, match=f"the manifest's {key} is not that of the golden answers in"):
        selftest(Bundle.open(path.parent), VARIANTS)


def test_an_old_variant_is_held_against_the_status_that_the_gate_gave(tmp_path: Path) -> None:
    path = old(tmp_path) / "manifest.json"
    value = json.loads(path.read_text())
    value["variants"]["onnx-fp32"]["status"] = "experimental"
    path.write_text(json.dumps(value))
    with pytest.raises(
        BundleError, match="onnx-fp32: its status is experimental, and the gate gave accepted"
    ):
        selftest(Bundle.open(path.parent), VARIANTS)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["schema_version"], 2, "schema_version is 2, and of those this runtime knows only 1; export"),
        (["schema_version"], True, "schema_version is True"),
        (["extra"], 1, "extra is not a key of this schema"),
        (["embedding_dim"], 9, r"its outputs are .*, and one \[1, 9\] is wanted"),
        (["tokenizer", "needs_mask"], True, r"its inputs are \['ids'\], and \['ids', 'mask'\] are wanted"),
        (["tokenizer", "length"], 13, r"and processor 'text' gives token_ids int32 \[1, 13\]"),
        (["preprocess", "resample"], "nearest", "resample 'nearest' is not known"),
        (["preprocess", "crop_width"], None, "crop_height and crop_width go together"),
        (["preprocess", "resize_width"], 9, "height and width are the same edge"),
        (["graphs", "image_encoder.fp32.onnx", "role"], "fusion", "format 1 has image and text encoders"),
        (["graphs", "image_encoder.fp32.onnx", "file"], "graphs/x", "whose name is not the graph's id"),
        (
            ["graphs", "image_encoder.fp32.onnx", "precision"],
            "int8",
            "which is a image_encoder for onnx-int8",
        ),
        (["variants", "onnx-fp32", "graphs", "text_encoder"], "x", "which is not among graphs"),
        (["label_template"], "a photo", "template must hold {label}"),
    ],
)
def test_what_is_wrong_with_an_old_manifest_is_named(
    keys: list[str], value: object, message: str, tmp_path: Path
) -> None:
    path = old(tmp_path) / "manifest.json"
    manifest = json.loads(path.read_text())
    at = manifest
    for key in keys[:-1]:
        at = at[key]
    at[keys[-1]] = value
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(path.parent)
    assert str(path) in str(caught.value)


def test_an_old_golden_pack_without_answers_is_checked_as_before_and_it_is_said(tmp_path: Path) -> None:
    root = old(tmp_path)
    path = root / "golden" / "golden.json"
    value = json.loads(path.read_text())
    value["schema_version"] = 1
    del value["answers"]
    _write(root, value)
    report = selftest(Bundle.open(root), VARIANTS)
    assert report.passed
    assert (report.images, report.texts, report.answers) == (2, 3, 0)
    assert (
        "the scale, labels and what follows from them were not checked; export the bundle again"
        in report.notes[0]
    )
    value["texts"][0]["ids"].reverse()
    _write(root, value)
    assert selftest(Bundle.open(root), VARIANTS).failures == ("golden text 0: the token ids differ",)
    value["schema_version"] = 3
    _write(root, value)
    with pytest.raises(
        BundleError, match="schema_version is 3, and of those this runtime knows only 1 and 2"
    ):
        Bundle.open(root).golden()


def _write(root: Path, golden: object) -> None:
    """Writes a golden pack, and its checksum into a manifest of format 1."""
    content = json.dumps(golden).encode()
    (root / "golden" / "golden.json").write_bytes(content)
    path = root / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["golden/golden.json"] = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    path.write_text(json.dumps(manifest))
