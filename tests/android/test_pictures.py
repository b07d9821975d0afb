"""The pictures that the Android core is held against: the list is whole, and what is expected is right."""

from __future__ import annotations

import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Filter, ImageProcessor
from pocketvl_runtime.obstacles import processor_obstacle
from pocketvl_runtime.schema import decode
from tests.android.image_reference import reference_pixels
from tests.android.picture_cases import runnable_processor, small_picture, stretched, waves
from tests.android.write_pictures import DATA_FILE, LIST_FILE, drawn_cases, expected_pixels, main

COMMITTED = Path("android_demo/core/src/test/resources/pictures")
COUNT, SEED, LARGEST = 72, 2, 32  # of the committed ones


@pytest.mark.parametrize("seed", range(150))
@pytest.mark.filterwarnings("ignore::pocketvl_runtime.errors.ImageWarning")
def test_the_document_gives_the_runtimes_pixels(seed: int) -> None:
    rng = random.Random(seed)
    picture, processor = small_picture(rng, 90), runnable_processor(rng, 60)
    try:
        expected = load_pixels(picture.source, processor)
    except InputError:
        pytest.skip("too elongated for this processor")
    got = reference_pixels(picture.argb, picture.orientation, processor)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("by", [each for each in Filter if each is not Filter.NEAREST])
@pytest.mark.parametrize("size", [(192, 64), (300, 48), (211, 97), (33, 120)])
def test_weights_of_the_document_are_pillows(by: Filter, size: tuple[int, int]) -> None:
    rows = np.random.default_rng(size[0]).integers(0, 256, (400, size[0], 3), dtype=np.uint8)
    red, green, blue = (rows[..., k].astype(np.uint32) for k in range(3))
    argb = np.uint32(0xFF000000) | red << np.uint32(16) | green << np.uint32(8) | blue
    processor = stretched(400, size[1], by)
    np.testing.assert_array_equal(reference_pixels(argb, 1, processor), load_pixels(rows, processor))


def test_the_committed_pictures_are_those_that_are_written_today() -> None:
    listed = json.loads((COMMITTED / LIST_FILE).read_text("utf-8"))["cases"]
    data = (COMMITTED / DATA_FILE).read_bytes()
    assert len(listed) == COUNT
    for entry, case in zip(listed, drawn_cases(COUNT, SEED, LARGEST), strict=True):
        assert entry["name"] == case.name
        assert decode(ImageProcessor, entry["processor"], case.name) == case.processor
        if "source" in entry:
            stored = np.frombuffer(_part(data, entry["source"]), "<u4").reshape(
                entry["height"], entry["width"]
            )
        else:
            stored = waves(entry["width"], entry["height"], entry["waves"]["seed"], entry["waves"]["opaque"])
        np.testing.assert_array_equal(stored, case.picture.argb)
        pixels, author = expected_pixels(case)
        assert entry["expected_by"] == author
        assert (pixels is None) == ("pixels" not in entry)
        if pixels is not None:
            assert _part(data, entry["pixels"]) == pixels.tobytes()


def test_every_mode_orientation_and_kind_of_step_is_among_five_hundred() -> None:
    cases = list(drawn_cases(500, 1, 60))
    assert {case.picture.mode for case in cases} >= {
        "1", "L", "LA", "L+A", "I;16", "P", "P+A", "PA", "RGB", "RGBA", "RGB+A", "CMYK", "YCbCr", "HSV",
        "LAB",
    }  # fmt: skip
    assert {case.picture.orientation for case in cases} >= set(range(10))
    steps = [step for case in cases for step in case.processor.steps]
    assert {step.op for step in steps} == {"resize", "center_crop", "pad"}
    assert {step.filter for step in steps if step.op == "resize"} == set(Filter)
    assert sum(processor_obstacle(case.processor) is None for case in cases) > 300


def test_a_pack_is_written(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path), "--count", "3", "--seed", "9", "--largest", "30"])
    assert done.exit_code == 0, done.output
    assert done.output.startswith("3 pictures")
    assert len(json.loads((tmp_path / LIST_FILE).read_text("utf-8"))["cases"]) == 3


def _part(data: bytes, place: dict[str, int]) -> bytes:
    return zlib.decompress(data[place["offset"] : place["offset"] + place["bytes"]])
