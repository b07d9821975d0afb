"""Whatever stands in a bundle's JSON files, what is raised is one of the errors that are documented."""

from __future__ import annotations

import json
import random
import warnings
from pathlib import Path

import pytest

from pocketvl_runtime import load
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, BundleError, InputError
from pocketvl_runtime.selftest import selftest
from pocketvl_runtime.text import TruncatedTextWarning
from tests.hostile.mutations import mutated
from tests.runtime.bundles import picture, reseal, with_digest


def resigned(manifest: bytes) -> bytes:
    """Damage as whoever makes bundles can do it: with the right checksum, where it is JSON at all."""
    try:
        return with_digest(json.loads(manifest)).encode("utf-8")
    except ValueError:
        return manifest


@pytest.mark.parametrize("file", ["manifest.json", "golden/golden.json", "tokenizer.json"])
def test_damage_gives_answers_or_a_documented_error(bundle: Path, file: str) -> None:
    whole = {path: (bundle / path).read_bytes() for path in (file, "manifest.json")}
    image, refused = picture((20, 20)), 0
    for seed in range(60):
        damaged = mutated(whole[file], random.Random(seed))
        (bundle / file).write_bytes(resigned(damaged) if file == "manifest.json" else damaged)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                warnings.simplefilter("ignore", TruncatedTextWarning)
                if file != "manifest.json":
                    reseal(bundle)
                selftest(Bundle.open(bundle), ["onnx-fp32"], threads=1)
                model = load(bundle, "onnx-fp32", 1)
                model.match(image, ["a red cube", "ball"])
                model.classify(image)
        except (BundleError, InputError, BackendError) as error:
            refused += 1
            assert len(str(error)) < 1_000, seed
        (bundle / "manifest.json").write_bytes(whole["manifest.json"])
    assert 20 < refused < 60  # the damage is neither for show, nor all that is found
