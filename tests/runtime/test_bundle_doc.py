"""The formulas of docs/BUNDLE.md are what this runtime does: they stand here a second time, from the page."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import Filter, ImageProcessor, Normalization, ResizeMode, manifest_digest
from tests.runtime.bundles import picture

Pixels = NDArray[np.uint8]


def sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def bicubic(x: float) -> float:
    t = abs(x)
    if t < 1:
        return (1.5 * t - 2.5) * t * t + 1
    return (((t - 5) * t + 8) * t - 4) * -0.5 if t < 2 else 0.0


FILTERS: dict[str, tuple[float, Callable[[float], float]]] = {
    "box": (0.5, lambda x: 1.0 if -0.5 < x <= 0.5 else 0.0),
    "bilinear": (1.0, lambda x: max(0.0, 1 - abs(x))),
    "hamming": (1.0, lambda x: sinc(x) * (0.54 + 0.46 * math.cos(math.pi * x)) if abs(x) < 1 else 0.0),
    "bicubic": (2.0, bicubic),
    "lanczos": (3.0, lambda x: sinc(x) * sinc(x / 3) if -3 <= x < 3 else 0.0),
}


def along_rows(pixels: Pixels, size: int, name: str) -> Pixels:
    """One pass with antialias, [H, n, 3] -> [H, size, 3]."""
    n, (support, weight) = pixels.shape[1], FILTERS[name]
    if n == size:
        return pixels
    scale = n / size
    wide = max(scale, 1)
    out = np.zeros((pixels.shape[0], size, 3), np.uint8)
    for i in range(size):
        centre = (i + 0.5) * scale
        first = max(0, math.trunc(centre - support * wide + 0.5))
        last = min(n, math.trunc(centre + support * wide + 0.5))
        w = [weight((first + k - centre + 0.5) / wide) for k in range(last - first)]
        q = np.array([math.trunc(v / sum(w) * 2**22 + (0.5 if v >= 0 else -0.5)) for v in w], np.int64)
        total = 2**21 + (q[None, :, None] * pixels[:, first:last].astype(np.int64)).sum(axis=1)
        out[:, i] = np.clip(total >> 22, 0, 255)
    return out


def resized(pixels: Pixels, size: tuple[int, int], name: str) -> Pixels:
    """Both passes; `size` is (width, height)."""
    rows = along_rows(pixels, size[0], name)
    return along_rows(rows.transpose(1, 0, 2), size[1], name).transpose(1, 0, 2)


def stretched(size: tuple[int, int], name: str) -> ImageProcessor:
    """To a size, (width, height), by a filter."""
    normalization = Normalization((0, 0, 0), (1, 1, 1), 1 / 255)
    return ImageProcessor.resampled(Filter(name), ResizeMode.EXACT, size[::-1], None, normalization)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(16, 16), (70, 41), (37, 9), (200, 21)])
def test_resizing_is_as_the_page_says(name: str, size: tuple[int, int]) -> None:
    image = picture((37, 21), seed=3)
    np.testing.assert_array_equal(
        preprocess(image, stretched(size, name)), resized(np.asarray(image), size, name)
    )


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("size", [(37, 21), (21, 37), (9, 40), (100, 3), (3, 100)])
def test_pictures_of_any_shape_are_resized_along_rows_first(size: tuple[int, int], name: str) -> None:
    image = Image.fromarray(np.random.default_rng(5).integers(0, 256, (*size[::-1], 3), np.uint8))
    np.testing.assert_array_equal(
        preprocess(image, stretched((16, 16), name)), resized(np.asarray(image), (16, 16), name)
    )


def test_transparency_on_white_is_as_the_page_says() -> None:
    c, a = np.meshgrid(np.arange(256), np.arange(256))
    x = 128 * (c * a + 255 * (255 - a)) + 16384
    rgba = np.stack([c, c, c, a], axis=-1).astype(np.uint8)
    got = np.asarray(open_image(Image.fromarray(rgba)))[..., 0]
    np.testing.assert_array_equal(got, ((x + (x >> 8)) >> 8) >> 7)


def test_16_bits_become_8_as_the_page_says() -> None:
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    got = np.asarray(open_image(Image.fromarray(wide)))[..., 0]
    np.testing.assert_array_equal(got, (255 * wide.astype(np.int64) + 32767) // 65535)


def canonical(value: Any) -> str:
    """By the page, for values whose numbers Python writes as the file does."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@pytest.mark.parametrize("name", ["clap", "siglip", "smolvlm", "tabletop-clip", "vilt"])
def test_the_checksum_is_as_the_page_says(name: str) -> None:
    text = (Path(__file__).parents[2] / "docs" / "manifests" / f"{name}.json").read_text(encoding="utf-8")
    value = json.loads(text)
    promised = value.pop("manifest_sha256")
    assert hashlib.sha256(canonical(value).encode("utf-8")).hexdigest() == promised == manifest_digest(text)
