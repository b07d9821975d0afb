"""Preprocessing gives transformers' pixels, to the pixel."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from pocketvl_runtime import image as module
from pocketvl_runtime.errors import BundleError, InputError
from pocketvl_runtime.image import load_pixels, open_image, preprocess
from pocketvl_runtime.manifest import (
    Alpha,
    CenterCrop,
    Filter,
    ImageProcessor,
    Normalization,
    Orientation,
    Pad,
    Resize,
    ResizeMode,
    Rounding,
)
from pocketvl_runtime.manifest.processors import Anchor, ImageStep, Layout, PixelsOutput
from tests.runtime.bundles import picture
from tests.runtime.reference import clip_pixels

ORIENTATION = 0x0112
NORMALIZATION = Normalization((0, 0, 0), (1, 1, 1), 1 / 255)


def shortest(edge: int, crop: tuple[int, int]) -> ImageProcessor:
    return ImageProcessor.bicubic(ResizeMode.SHORTEST_EDGE, (edge, edge), crop, NORMALIZATION)


def exact(height: int, width: int, crop: tuple[int, int] | None = None) -> ImageProcessor:
    return ImageProcessor.bicubic(ResizeMode.EXACT, (height, width), crop, NORMALIZATION)


def reference(image: Image.Image, spec: ImageProcessor) -> Any:
    return clip_pixels(ImageOps.exif_transpose(image), spec)  # in its own mode: it lays transparency on white


def assert_same(image: Image.Image, spec: ImageProcessor) -> None:
    got = preprocess(open_image(image), spec)
    assert got.shape == (spec.height, spec.width, 3)
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, reference(image, spec))


sides = st.integers(1, 97)


@settings(max_examples=120, deadline=None)
@given(st.tuples(sides, sides), sides, st.tuples(sides, sides), st.booleans(), st.integers(0, 2**32 - 1))
@example((1, 1), 32, (32, 32), False, 0)
@example((1, 97), 32, (32, 32), False, 0)
@example((97, 1), 32, (32, 32), False, 0)
@example((31, 17), 20, (33, 21), False, 0)  # the crop is larger than the picture, by an odd number
@example((40, 41), 40, (40, 40), False, 0)  # nothing to resize
@example((50, 20), 10, (12, 8), True, 0)
def test_any_size_equals_transformers(
    size: tuple[int, int], edge: int, crop: tuple[int, int], stretch: bool, seed: int
) -> None:
    assert_same(picture(size, seed), exact(edge, crop[0], crop) if stretch else shortest(edge, crop))


@pytest.mark.parametrize("size", [(7, 5000), (5000, 7), (1, 1700), (3000, 4), (640, 480), (1023, 769)])
def test_elongated_and_large_pictures_equal_transformers(size: tuple[int, int]) -> None:
    assert_same(picture(size), shortest(64, (64, 64)))
    assert_same(picture(size), exact(48, 40))


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "PA", "1", "CMYK", "YCbCr", "HSV"])
def test_every_mode_equals_transformers(mode: str) -> None:
    image = picture((37, 21), seed=3).convert("RGBA" if mode == "PA" else "RGB")
    if mode == "PA":
        image = image.convert("P")
    image = image.convert(mode)
    if mode in ("LA", "RGBA", "PA"):
        image.putalpha(picture((37, 21), seed=4).convert("L"))
    assert image.mode == mode
    assert_same(image, shortest(16, (16, 16)))


@pytest.mark.parametrize("transparency", [7, bytes(range(0, 250, 5))])
def test_a_palette_with_transparency_equals_transformers(transparency: int | bytes) -> None:
    assert_same_after_saving(picture((37, 21)).quantize(50), "PNG", transparency=transparency)


@pytest.mark.parametrize(("mode", "colour"), [("L", 0), ("RGB", (0, 0, 0)), ("1", 0)])
def test_one_transparent_colour_equals_transformers(mode: str, colour: Any) -> None:
    image = picture((37, 21)).convert(mode)
    image.paste(colour, (5, 5, 20, 15))
    assert_same_after_saving(image, "PNG", transparency=colour)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "JPEG2000"])
def test_every_format_equals_transformers(fmt: str) -> None:
    assert_same_after_saving(picture((37, 21)), fmt)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_as_exif_says(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned.png"
    image = picture((37, 21))
    image.save(path, exif=exif)
    opened = open_image(path)
    assert opened.size == ((21, 37) if orientation >= 5 else (37, 21))
    upright = np.asarray(opened)
    corners = {tuple(int(v) for v in upright[y, x]) for y in (0, -1) for x in (0, -1)}
    assert corners == {tuple(int(v) for v in np.asarray(image)[y, x]) for y in (0, -1) for x in (0, -1)}
    assert np.array_equal(upright, np.asarray(image)) == (orientation == 1)
    assert_same_after_saving(image, "JPEG", exif=exif)


def assert_same_after_saving(image: Image.Image, fmt: str, **options: Any) -> None:
    stored = io.BytesIO()
    image.save(stored, fmt, **options)
    spec = shortest(16, (16, 16))
    with Image.open(stored) as again:
        np.testing.assert_array_equal(load_pixels(stored.getvalue(), spec), reference(again, spec))


def test_a_path_bytes_and_a_pil_image_give_the_same(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture((40, 30)).save(path)
    spec = shortest(16, (16, 16))
    expected = load_pixels(path, spec)
    np.testing.assert_array_equal(load_pixels(str(path), spec), expected)
    np.testing.assert_array_equal(load_pixels(path.read_bytes(), spec), expected)
    np.testing.assert_array_equal(load_pixels(Image.open(path), spec), expected)


def test_opening_leaves_the_callers_image_as_it_was() -> None:
    image = picture((40, 30), mode="P")
    open_image(image)
    assert image.mode == "P"


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_opening_what_was_opened_turns_it_no_further(fmt: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    path = tmp_path / "turned"
    picture((37, 21)).save(path, fmt, exif=exif)
    once = open_image(path)
    np.testing.assert_array_equal(open_image(once), once)


@pytest.mark.parametrize(
    ("fmt", "mode"), [("PNG", "P"), ("PNG", "RGBA"), ("TIFF", "P"), ("TIFF", "RGBA"), ("WEBP", "RGBA")]
)
def test_a_turned_palette_or_alpha_equals_transformers(fmt: str, mode: str) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    assert_same_after_saving(picture((37, 21)).convert(mode), fmt, exif=exif)


def test_transparency_is_the_same_across_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture((37, 53)).convert("RGBA")
    image.putalpha(picture((37, 53), seed=4).convert("L"))
    spec = shortest(16, (16, 16))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    expected = preprocess(Image.alpha_composite(white, image).convert("RGB"), spec)
    for pixels in (1, 37 * 10, 37 * 53):
        monkeypatch.setattr(module, "_STRIP_PIXELS", pixels)
        np.testing.assert_array_equal(preprocess(image, spec), expected)


@pytest.mark.parametrize(
    ("fmt", "options", "bytes_per_pixel"),
    [
        ("PNG", {"compress_level": 1}, 4),
        ("JPEG", {}, 4),
        ("PNG", {"compress_level": 1, "exif": b"MM\0*\0\0\0\x08\0\1\1\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0"}, 8),
        ("PNG", {"transparency": 3}, 6),
        ("PNG", {"compress_level": 1, "alpha": True}, 8),
    ],
    ids=["PNG", "JPEG", "turned", "palette", "alpha"],
)
def test_a_large_picture_takes_no_more_memory_than_is_said(
    fmt: str, options: dict[str, Any], bytes_per_pixel: int, tmp_path: Path
) -> None:
    side = 3000
    image = picture((30, 30)).resize((side, side), Image.Resampling.NEAREST)
    image = image.quantize(16) if "transparency" in options else image
    image = image.convert("RGBA") if "alpha" in options else image
    image.save(tmp_path / "large", fmt, **options)
    code = (
        "import sys; from PIL import Image; from pocketvl_runtime.process import peak_rss_bytes\n"
        "from pocketvl_runtime.image import load_pixels; from pocketvl_runtime.manifest import *\n"
        "one = (1.0, 1.0, 1.0)\n"
        "edge, norm = ResizeMode.SHORTEST_EDGE, Normalization(one, one, 1.0)\n"
        "spec = ImageProcessor.bicubic(edge, (16, 16), (16, 16), norm)\n"
        "Image.preinit(); before = peak_rss_bytes()\n"
        "load_pixels(sys.argv[1], spec); print(peak_rss_bytes() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "large")], capture_output=True, text=True, check=True
    )
    assert (bytes_per_pixel - 1) * side**2 < int(done.stdout) < (bytes_per_pixel + 2) * side**2


def test_a_picture_that_resizing_would_blow_up_is_refused() -> None:
    with pytest.raises(InputError, match="1 x 5000, so elongated .* cut it first"):
        preprocess(picture((1, 5000)), shortest(224, (224, 224)))


BICUBIC = Resize(ResizeMode.EXACT, Filter.BICUBIC, True, Rounding.FLOOR, height=8, width=8)


@pytest.mark.parametrize(
    ("step", "obstacle"),
    [
        (Pad(8, 8, Anchor.CENTER, (0, 0, 0)), "image steps of kind 'pad'"),
        (replace(BICUBIC, filter=Filter.NEAREST), "resizing by filter 'nearest'"),
        (replace(BICUBIC, antialias=False), "resizing by filter 'bicubic' without antialias"),
        (replace(BICUBIC, rounding=Rounding.HALF_UP), "rounding 'half_up' of resize"),
        (
            Resize(ResizeMode.LONGEST_EDGE, Filter.BICUBIC, True, Rounding.FLOOR, size=8),
            "resizing of mode 'longest_edge'",
        ),
    ],
)
def test_steps_that_cannot_be_run_yet_are_refused(step: ImageStep, obstacle: str) -> None:
    processor = ImageProcessor(
        (step, BICUBIC), PixelsOutput("uint8", Layout.NHWC, (1, 8, 8, 3)), NORMALIZATION
    )
    with pytest.raises(BundleError, match=f"this runtime cannot run {obstacle}; install a newer"):
        load_pixels(picture((9, 9)), processor)


@pytest.mark.parametrize("change", [{"alpha": Alpha.DROP}, {"orientation": Orientation.AS_STORED}])
def test_ways_to_open_that_cannot_be_run_yet_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(
        BundleError, match="this runtime cannot run (alpha 'drop'|orientation 'as_stored'); inst"
    ):
        load_pixels(picture((9, 9)), replace(exact(8, 8), **change))


@pytest.mark.parametrize(
    ("rounding", "starts"),
    [
        (Rounding.FLOOR, {9: 0, 10: 1, 11: 1, 13: 2, 7: -1, 5: -2}),
        (Rounding.HALF_UP, {9: 1, 10: 1, 11: 2, 13: 3, 7: 0, 5: -1}),
        (Rounding.HALF_EVEN, {9: 0, 10: 1, 11: 2, 13: 2, 7: 0, 5: -2}),
    ],
)
def test_the_offset_of_a_crop_is_rounded_as_the_manifest_says(
    rounding: Rounding, starts: dict[int, int]
) -> None:
    crop, size = CenterCrop(8, 8, rounding), PixelsOutput("uint8", Layout.NHWC, (1, 8, 8, 3))
    for side, start in starts.items():
        image = picture((side, 8), 5)
        got = load_pixels(image, ImageProcessor((crop,), size, NORMALIZATION))
        np.testing.assert_array_equal(got, image.crop((start, 0, start + 8, 8)))


def test_steps_are_done_in_their_order() -> None:
    crop, size = CenterCrop(20, 30, Rounding.FLOOR), PixelsOutput("uint8", Layout.NHWC, (1, 8, 8, 3))
    got = load_pixels(picture((64, 48), 5), ImageProcessor((crop, BICUBIC), size, NORMALIZATION))
    middle = picture((64, 48), 5).crop((17, 14, 47, 34))
    np.testing.assert_array_equal(got, middle.resize((8, 8), Image.Resampling.BICUBIC))
