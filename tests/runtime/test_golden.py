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
    GoldenAnswers,
    GoldenImage,
    GoldenText,
    Scores,
    Tolerance,
)
from pocketvl_runtime.manifest import Role, Status
from tests.runtime.bundles import without_answers

PACK = Golden(
    images=(GoldenImage("golden/images/a.jpg", "golden/pixels/a.png", (0.6, 0.8)),),
    texts=(GoldenText("naïve 日本 🦊", (1, 5, 2), (1.0, 0.0)),),
    tolerance={
        "onnx-fp32": {Role.IMAGE_ENCODER: Tolerance(1e-4, 0.9999), Role.TEXT_ENCODER: Tolerance(None, 0.9)}
    },
    answers=GoldenAnswers(
        space="sha256:0",
        logit_scale=10.0,
        labels=("fox", "owl"),
        label_template="a {label}",
        match=(Scores((0.6,), (1.0,)),),
        classify=(Scores((0.6, 0.5), (0.731, 0.269)),),
        tolerance={"onnx-fp32": AnswerTolerance(1e-4, 1e-3, Status.ACCEPTED)},
    ),
)


def test_reading_what_was_written_gives_the_same_pack(tmp_path: Path) -> None:
    path = tmp_path / "golden" / "golden.json"
    PACK.write(path)
    assert Golden.read(path) == PACK
    assert path.read_text(encoding="utf-8") == PACK.to_json()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"schema_version": 2',
            '"schema_version": 3',
            "schema_version is 3, and this runtime knows only 1 and 2",
        ),
        ('"schema_version": 2', '"schema_version": true', "schema_version is True"),
        ("golden/images/a.jpg", "../a.jpg", "images[0]: path '../a.jpg' does not stay inside"),
        ('"image_encoder"', '"eye"', "tolerance.onnx-fp32.eye is 'eye'"),
        ("0.9999", '"high"', "tolerance.onnx-fp32.image_encoder.cosine_min must be a number"),
    ],
)
def test_what_is_wrong_is_named(old: str, new: str, message: str) -> None:
    assert old in PACK.to_json()
    with pytest.raises(BundleError) as caught:
        Golden.from_json(PACK.to_json().replace(old, new))
    assert message in str(caught.value)


def test_a_missing_pack_is_a_bundle_error(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        Golden.read(tmp_path / "golden.json")


def test_a_pack_of_the_first_version_has_no_answers() -> None:
    value = json.loads(PACK.to_json())
    without_answers(value)
    pack = Golden.from_json(json.dumps(value))
    assert pack.answers is None
    assert (pack.images, pack.texts, pack.tolerance) == (PACK.images, PACK.texts, PACK.tolerance)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda g: g.pop("answers"), "answers is missing"),
        (lambda g: g["answers"]["match"].clear(), "answers.match has 0 pictures where 1 are wanted"),
        (
            lambda g: g["answers"]["classify"].append({"similarity": [], "probability": []}),
            "has 2 pictures where 1",
        ),
        (
            lambda g: g["answers"].update(labels=["fox"]),
            "answers.classify must have 1 scores of each picture",
        ),
        (lambda g: g["answers"].update(labels=[]), "answers.classify has 1 pictures where 0 are wanted"),
        (
            lambda g: g["answers"]["match"][0]["probability"].append(0),
            "answers.match must have 1 scores of each",
        ),
        (
            lambda g: g["answers"]["tolerance"]["onnx-fp32"].pop("status"),
            "tolerance.onnx-fp32.status is missing",
        ),
    ],
)
def test_answers_that_do_not_fit_the_pack_are_named(edit: Callable[[Any], object], message: str) -> None:
    value = json.loads(PACK.to_json())
    edit(value)
    with pytest.raises(BundleError) as caught:
        Golden.from_json(json.dumps(value))
    assert message in str(caught.value)
