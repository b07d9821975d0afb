"""golden.json is read strictly and written one way."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.golden import (
    AnswerTolerance,
    Golden,
    GoldenArray,
    GoldenAudio,
    GoldenImage,
    GoldenText,
    Scores,
    Tolerance,
    VariantTolerance,
)
from pocketvl_runtime.manifest import Manifest

PACK = Golden(
    inputs={
        "image": (GoldenImage("golden/images/a.jpg", "golden/pixels/a.png"),),
        "text": (GoldenText("na\u00efve \u65e5\u672c \U0001f98a", (1, 5, 2)),),
        "audio": (GoldenAudio("golden/audio/a.wav", "golden/audio/a.f32"),),
    },
    outputs={
        "image_encoder.embedding": (GoldenArray({"image": 0}, (1, 2), (0.6, 0.8)),),
        "fusion.logits": (GoldenArray({"image": 0, "text": 0}, (1, 1, 3), (1.0, 0.0, -1.0)),),
    },
    answers={
        "match": (Scores({"image": 0}, (1.0,), (0.6,)),),
        "ask": (Scores({"image": 0, "text": 0}, (0.665, 0.245, 0.09)),),
    },
    tolerance={
        "onnx-fp32": VariantTolerance(
            {"image_encoder.embedding": Tolerance(1e-4, 0.9999), "fusion.logits": Tolerance(None, 0.9)},
            {"match": AnswerTolerance(1e-4, 1e-3)},
        )
    },
)


@pytest.fixture(scope="module")
def manifest(whole_bundle: Path) -> Manifest:
    return Manifest.read(whole_bundle / "manifest.json")


def test_reading_what_was_written_gives_the_same_pack(tmp_path: Path, manifest: Manifest) -> None:
    path = tmp_path / "golden" / "golden.json"
    PACK.write(path)
    assert Golden.read(path, manifest) == PACK
    assert path.read_text(encoding="utf-8") == PACK.to_json()
    assert [image.file for image in PACK.images] == ["golden/images/a.jpg"]
    assert [text.ids for text in PACK.texts] == [(1, 5, 2)]


Edit = Callable[[Any], object]
EDITS: list[tuple[Edit, str]] = [
    (lambda g: g.update(version="3.0"), "version is 3.0, and this runtime reads 2.x; pip install --upgrade"),
    (lambda g: g.update(version=2), "version is 2, and must be like '2.0'"),
    (lambda g: g.pop("version"), "version is missing"),
    (lambda g: g.update(format="gold"), "format is 'gold'; 'pocketvl-golden' is wanted"),
    (lambda g: g.pop("answers"), "answers is missing"),
    (lambda g: g.update(extra=1), "extra is not a key"),
    (lambda g: g["inputs"]["image"][0].update(file="../a.jpg"), "path '../a.jpg' does not stay inside"),
    (lambda g: g["inputs"]["image"][0].update(kind="film"), "inputs.image[0].kind is 'film'; known are"),
    (lambda g: g["inputs"]["audio"][0].update(features="/f"), "path '/f' does not stay inside"),
    (lambda g: g["inputs"]["text"].clear(), "outputs.fusion.logits: inputs.text is 0, and there are 0"),
    (lambda g: g["inputs"].pop("text"), "inputs.text is 0, and there are 0"),
    (
        lambda g: g["answers"]["match"][0]["inputs"].update(image=-1),
        "answers.match: inputs.image is -1, and there are 1",
    ),
    (
        lambda g: g["outputs"]["fusion.logits"][0].update(shape=[1, 2]),
        "outputs.fusion.logits[0]: values has 3 numbers, and shape is [1, 2]",
    ),
    (
        lambda g: g["answers"]["match"][0]["similarity"].append(0),
        "answers.match[0]: similarity and probability differ in length",
    ),
    (
        lambda g: g["tolerance"]["onnx-fp32"]["ports"]["fusion.logits"].update(cosine_min="high"),
        "tolerance.onnx-fp32.ports.fusion.logits.cosine_min must be a number",
    ),
    (
        lambda g: g["tolerance"]["onnx-fp32"]["answers"]["match"].pop("probability"),
        "tolerance.onnx-fp32.answers.match.probability is missing",
    ),
]


@pytest.mark.parametrize(("edit", "message"), EDITS, ids=[message for _, message in EDITS])
def test_what_is_wrong_is_named(edit: Edit, message: str, manifest: Manifest) -> None:
    value = json.loads(PACK.to_json())
    edit(value)
    with pytest.raises(BundleError) as caught:
        Golden.from_json(json.dumps(value), manifest)
    assert message in str(caught.value)


def test_a_newer_minor_version_may_have_keys_that_nobody_knows(manifest: Manifest) -> None:
    value = json.loads(PACK.to_json())
    value.update(version="2.3", videos=[])
    value["inputs"]["image"][0]["taken"] = "in June"
    newer = Golden.from_json(json.dumps(value), manifest)
    assert (newer.inputs, newer.outputs, newer.version) == (PACK.inputs, PACK.outputs, "2.3")


def test_a_missing_pack_is_a_bundle_error(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Golden.read(tmp_path / "golden.json", manifest)


@pytest.mark.parametrize("text", ["", "[]", "null", "3", '{"a": NaN}'])
def test_what_is_no_pack_at_all_is_refused(text: str, manifest: Manifest) -> None:
    with pytest.raises(BundleError, match=r"golden\.json"):
        Golden.from_json(text, manifest)
