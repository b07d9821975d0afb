"""Of every field of a manifest it is known what notices that it was changed.

With the old checksum: that. With one made anew, as a mistake of whoever makes bundles has it: what the
parts of the manifest say of each other, or the golden pack; or nothing, and then no answer changes.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.manifest import Manifest
from pocketvl_runtime.selftest import selftest
from tests.runtime.bundles import VARIANTS, edit_manifest, write_bundle

PARSE, SELFTEST, NOTHING = "parse", "selftest", "nothing"
Path_ = tuple[str | int, ...]

# Which check notices a change, by the place in the manifest; the first pattern that fits counts.
NOTICED = (
    (r"version 2\.1", NOTHING),  # a newer minor version may be read
    (r"format|version", PARSE),
    (r"model\.modalities\.\d+ (image|text)", NOTHING),
    (r"model\.modalities\.\d+", PARSE),
    (r"model\.(name|family)|provenance\..*", NOTHING),  # what only people read
    # What the graph does itself, so that changing it here changes no answer.
    (r"processors\.image\.normalized_in_graph\..*", NOTHING),
    # What this runtime cannot run yet: then there is no task left.
    (r"processors\.image\.(orientation as_stored|alpha drop)", SELFTEST),
    (r"processors\.image\.steps\.\d\.(antialias|rounding half_up)", SELFTEST),
    (r"processors\.text\.pad\.side left", SELFTEST),
    (r"processors\.text\.truncate left", NOTHING),  # none of these golden texts is cut
    (r"processors\.text\.(max_length|file)", PARSE),
    (r"processors\.text\.pad\.id", SELFTEST),
    (r"processors\.image\.steps\.0\.(size|filter lanczos)", SELFTEST),
    (r"processors\..*", PARSE),
    (r"graphs\.[^.]*\.inputs\.0\.name", SELFTEST),  # the graph has no such input
    (r"graphs\.text_encoder\.inputs\.0\.kind attention_mask", SELFTEST),  # of the same size as ids
    (r"graphs\.[^.]*\.inputs\.0\..*", PARSE),
    (r"graphs\.[^.]*\.outputs\.0\.dtype float16", SELFTEST),  # the graph's is another
    (r"graphs\.[^.]*\.outputs\.0\..*", PARSE),
    (r"tasks\.[^.]*\.(scale\.first \d.*|bias 1e-12)", NOTHING),  # by a billionth
    (r"tasks\.[^.]*\.scale\.second \d.*", NOTHING),
    (r"tasks\.[^.]*\.bias 1.0", NOTHING),  # a softmax does not see it
    (r"tasks\.[^.]*\.activation sigmoid", SELFTEST),
    (r"tasks\.classify\.(labels\.\d+|template) .*", SELFTEST),
    (r"tasks\..*", PARSE),
    (r"variants\.[^.]*\.(weights_bits|activations_bits|mode static)", NOTHING),  # the graph has its own
    (r"variants\.[^.]*\.status experimental", NOTHING),  # says who may take it by default, and is signed
    (r"variants\.[^.]*\.files\.\w+\.signature", SELFTEST),
    (r"variants\.[^.]*\.files\.image_encoder\.file graphs/text_encoder\.fp32\.onnx", SELFTEST),
    (r"variants\.[^.]*\.min_engine", NOTHING),  # any that is installed is newer
    (r"variants\.[^.]*\.comparable\.0\.(space|centred.*)", NOTHING),  # no answer follows from it
    (r"variants\..*", PARSE),
    (r"files\..*\.(sha256|bytes)", SELFTEST),
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
    if value is None:
        return ["1.0"]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, float):
        return [value * (1 + 1e-9) + 1e-12, -value or 1.0]
    others = {
        "2.0": "2.1",
        "accepted": "experimental",
        "shortest_edge": "exact",
        "floor": "half_up",
        "bicubic": "lanczos",
        "exif": "as_stored",
        "over_white": "drop",
        "right": "left",
        "softmax": "sigmoid",
        "float": "static",
        "pixels": "attention_mask",
        "token_ids": "attention_mask",
        "embedding": "hidden",
        "image": "text",
        "text": "image",
        "image_encoder.embedding": "text_encoder.embedding",
        "onnx": "tflite",
        "tflite": "onnx",
        "fp32": "int8",
        "int8": "fp32",
        "float32": "float16",
        "serving_default": "decode",
        "graphs/image_encoder.fp32.onnx": "graphs/text_encoder.fp32.onnx",
    }
    if re.fullmatch("[0-9a-f]{64}", value):  # one bit further than f is no digit, which another check notices
        return [("1" if value[0] == "0" else "0") + value[1:]]
    flipped = "".join(chr(ord(c) ^ 1) if i == len(value) // 2 else c for i, c in enumerate(value))
    return [flipped, *([others[value]] if value in others else [])]


def put(root: Path, path: Path_, value: Any) -> None:
    """Changes a value, and the checksum with it."""

    def edit(manifest: Any) -> None:
        at = manifest
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    edit_manifest(root, edit)


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


def signed_leaves(root: Path) -> list[tuple[Path_, Any]]:
    value = json.loads((root / "manifest.json").read_text())
    del value["manifest_sha256"]
    return list(leaves(value))


def test_every_field_is_noticed_or_known_to_be_harmless(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    found = {}
    for path, value in signed_leaves(root):
        for other in changed(value):
            put(root, path, other)
            place = ".".join(map(str, path))
            found[place, other] = notices(root), expected(place, other)
        (root / "manifest.json").write_text(text)
    wrong = {key: pair for key, pair in found.items() if pair[0] != pair[1]}
    assert not wrong, "\n".join(map(str, wrong.items()))
    assert {noticed for noticed, _ in found.values()} == {PARSE, SELFTEST, NOTHING}


def test_the_checksum_notices_every_field(root: Path) -> None:
    text = (root / "manifest.json").read_text()
    promised = json.loads(text)["manifest_sha256"]
    for path, value in signed_leaves(root):
        for other in changed(value):
            put(root, path, other)
            changed_text = (root / "manifest.json").read_text()
            own = json.loads(changed_text)["manifest_sha256"]
            with pytest.raises(
                BundleError, match="is damaged or was edited|version is|is no manifest of a bundle"
            ):
                Manifest.from_json(changed_text.replace(own, promised))
            (root / "manifest.json").write_text(text)


def test_the_checksum_notices_every_bit(root: Path) -> None:
    content = (root / "manifest.json").read_bytes()
    rng = random.Random(0)
    for place in rng.sample(range(len(content)), 1_000):
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        with pytest.raises(BundleError):
            Manifest.from_json(bytes(damaged))


KEYS = (
    ("tasks", "classify", "labels"),
    ("tasks",),
    ("variants",),
    ("graphs",),
    ("processors",),
    ("processors", "image", "steps"),
    ("files",),
    ("provenance",),
)


@pytest.mark.parametrize("keys", KEYS, ids=".".join)
def test_what_is_taken_out_is_noticed_or_harmless(bundle: Path, keys: tuple[str, ...]) -> None:
    text = (bundle / "manifest.json").read_text()

    def held(manifest: Any) -> Any:
        for key in keys:
            manifest = manifest[key]
        return manifest

    for index in range(len(held(json.loads(text)))):
        (bundle / "manifest.json").write_text(text)

        def edit(manifest: Any, index: int = index) -> None:
            at = held(manifest)
            del at[list(at)[index] if isinstance(at, dict) else index]

        edit_manifest(bundle, edit)
        noticed = notices(bundle)
        # A bundle with fewer variants or tasks answers as before; whoever wants it smaller may take one out.
        harmless = keys in (("variants",), ("tasks",), ("provenance",))
        assert noticed == NOTHING if harmless else noticed in (PARSE, SELFTEST), index


def test_labels_in_another_order_are_noticed(bundle: Path) -> None:
    edit_manifest(bundle, lambda m: m["tasks"]["classify"]["labels"].reverse())
    report = selftest(Bundle.open(bundle), ["onnx-fp32"])
    assert all("classify of golden/images" in failure for failure in report.failures)
    assert len(report.failures) == 2
