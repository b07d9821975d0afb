"""golden.json is read strictly and written one way."""

from __future__ import annotations

from pathlib import Path

import pytest

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.golden import Golden, GoldenImage, GoldenText, Tolerance
from pocketvl_runtime.manifest import Role

PACK = Golden(
    images=(GoldenImage("golden/images/a.jpg", "golden/pixels/a.png", (0.6, 0.8)),),
    texts=(GoldenText("naïve 日本 🦊", (1, 5, 2), (1.0, 0.0)),),
    tolerance={
        "onnx-fp32": {Role.IMAGE_ENCODER: Tolerance(1e-4, 0.9999), Role.TEXT_ENCODER: Tolerance(None, 0.9)}
    },
)


def test_reading_what_was_written_gives_the_same_pack(tmp_path: Path) -> None:
    path = tmp_path / "golden" / "golden.json"
    PACK.write(path)
    assert Golden.read(path) == PACK
    assert path.read_text(encoding="utf-8") == PACK.to_json()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"schema_version": 1', '"schema_version": 2', "schema_version is 2"),
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
