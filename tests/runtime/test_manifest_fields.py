"""No checksum covers the manifest: of every field it is known what notices that it was changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.selftest import selftest
from tests.runtime.bundles import VARIANTS, write_bundle

PARSE, SELFTEST, NOTHING = "parse", "selftest", "nothing"
Path_ = tuple[str | int, ...]

# Which check notices a change, by the place in the manifest; the first pattern that fits counts.
NOTICED = (
    (r"schema_version|embedding_dim", PARSE),
    (r"logit_scale -.*", PARSE),
    (r"logit_scale|space|label_template|labels\.\d+", SELFTEST),
    (r"tokenizer\.(length|needs_mask|file)", PARSE),
    (r"tokenizer\.pad_id", SELFTEST),
    (r"preprocess\.(resize_height|resize_width|crop_height|crop_width|resample)", PARSE),
    (r"preprocess\.resize_mode exact", SELFTEST),
    (r"preprocess\.resize_mode .*", PARSE),
    (r"graphs\.[^/]*\.(role|engine|precision|file)", PARSE),
    (r"graphs\.[^/]*\.inputs\.0\..*", PARSE),
    (r"graphs\.[^/]*\.onnx\.outputs\.0\.name", SELFTEST),  # the graph has no such output
    (r"graphs\.[^/]*\.tflite\.outputs\.0\.name", NOTHING),  # it has one output, whatever that is called
    (r"graphs\.[^/]*\.outputs\.0\.dtype float16", SELFTEST),  # the graph's is another
    (r"graphs\.[^/]*\.outputs\.0\.dtype", PARSE),
    (r"graphs\.[^/]*\.outputs\.0\.shape\..*", PARSE),
    (r"variants\.[^.]*\.(engine|precision|graphs\.\w+)", PARSE),
    (r"variants\.[^.]*\.status experimental", SELFTEST),
    (r"variants\.[^.]*\.status", PARSE),
    (r"variants\.[^.]*\.comparable\..*", NOTHING),  # which vectors may be compared: no answer follows from it
    (r"files\..*\.(sha256|bytes)", SELFTEST),
    # What only people read; and what the graph does itself, so that changing it here changes no answer.
    (r"name|family|tasks\.\d+|provenance\..*", NOTHING),
    (r"preprocess\.(mean\.\d|std\.\d|rescale)", NOTHING),
)


def leaves(value: Any, path: Path_ = ()) -> Iterator[tuple[Path_, Any]]:
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        yield path, value
        return
    for key, item in items:
        yield from leaves(item, (*path, key))


def changed(value: Any) -> list[Any]:
    """Other values of the same type: with one bit flipped, and what else may stand there."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * (1 + 1e-9) + 1e-12, -value or 1.0]
    others = {
        "accepted": "experimental",
        "shortest_edge": "exact",
        "image_encoder": "text_encoder",
        "text_encoder": "image_encoder",
        "onnx": "tflite",
        "tflite": "onnx",
        "fp32": "int8",
        "int8": "fp32",
        "float32": "float16",
        "image_encoder.fp32.onnx": "image_encoder.int8.onnx",
        "text_encoder.int8.onnx": "text_encoder.fp32.onnx",
    }
    flipped = "".join(chr(ord(c) ^ 1) if i == len(value) // 2 else c for i, c in enumerate(value))
    return [flipped, *([others[value]] if value in others else [])]


def put(root: Path, path: Path_, value: Any) -> None:
    manifest = json.loads((root / "manifest.json").read_text())
    at = manifest
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    (root / "manifest.json").write_text(json.dumps(manifest))


def notices(root: Path) -> str:
    try:
        opened = Bundle.open(root)
    except BundleError:
        return PARSE
    try:
        variants = [name for name in VARIANTS if name in opened.manifest.variants]
        return NOTHING if selftest(opened, variants, threads=1).passed else SELFTEST
    except BundleError:
        return SELFTEST


def expected(place: str, value: object) -> str:
    for pattern, noticed in NOTICED:
        if re.fullmatch(pattern, place) or re.fullmatch(pattern, f"{place} {value}"):
            return noticed
    return "unknown"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("fields") / "tiny")


def test_every_field_is_noticed_or_known_to_be_harmless(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    found = {}
    for path, value in leaves(json.loads(text)):
        for other in changed(value):
            put(root, path, other)
            place = ".".join(map(str, path))
            found[place, other] = notices(root), expected(place, other)
        (root / "manifest.json").write_text(text)
    wrong = {key: pair for key, pair in found.items() if pair[0] != pair[1]}
    assert wrong == {}
    assert {noticed for noticed, _ in found.values()} == {PARSE, SELFTEST, NOTHING}


@pytest.mark.parametrize("key", ["labels", "variants", "graphs", "tasks", "files", "provenance"])
def test_what_is_taken_out_is_noticed_or_harmless(bundle: Path, key: str) -> None:
    text = (bundle / "manifest.json").read_text()
    for index in range(len(json.loads(text)[key])):
        manifest = json.loads(text)
        where = list(manifest[key])[index] if isinstance(manifest[key], dict) else index
        del manifest[key][where]
        (bundle / "manifest.json").write_text(json.dumps(manifest))
        noticed = notices(bundle)
        # A bundle with fewer variants answers as before; whoever wants it smaller may take one out.
        harmless = key in ("variants", "tasks", "provenance")
        assert noticed == NOTHING if harmless else noticed in (PARSE, SELFTEST), where


def test_labels_in_another_order_are_noticed(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["labels"].reverse()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    report = selftest(Bundle.open(bundle), ["onnx-fp32"])
    assert report.failures == ("the manifest's labels, or their order, are not those of the golden answers",)
