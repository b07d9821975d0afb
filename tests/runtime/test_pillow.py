"""Every Pillow that is allowed gives the same pixels, which `test_image.py` holds against transformers'."""

from __future__ import annotations

import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import ImageProcessor, ResizeMode
from tests.runtime import graphs
from tests.runtime.bundles import PREPROCESS

STRETCHED = ImageProcessor.bicubic(
    ResizeMode.EXACT, (graphs.SIZE, graphs.SIZE), None, PREPROCESS.normalized_in_graph
)


def file(mode: str, kind: str) -> bytes:
    """A file of 61 x 47 pixels: colours that rise, each at a pace of its own, and wrap around."""
    y, x = np.mgrid[:47, :61]
    bands = [x * 3 + y, y * 5 + x * x // 9, x * y // 3]
    stream = io.BytesIO()
    Image.fromarray(np.stack(bands, axis=-1).astype(np.uint8)).convert(mode).save(stream, kind)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind", "cropped", "stretched"),
    [
        ("RGB", "PNG", "9dac679e86120d08", "e5d474873369b2c7"),
        ("L", "PNG", "7bb2f7fff68099d1", "e09ea7e958886031"),
        ("RGB", "BMP", "9dac679e86120d08", "e5d474873369b2c7"),
        ("RGB", "JPEG", "2891f29d85c4799f", "d22d37d385196c3a"),
    ],
)
def test_pixels_do_not_depend_on_the_version(mode: str, kind: str, cropped: str, stretched: str) -> None:
    for spec, expected in ((PREPROCESS, cropped), (STRETCHED, stretched)):
        pixels = load_pixels(file(mode, kind), spec)
        assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == expected
