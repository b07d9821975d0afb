"""From a picture to the pixels that the image graph takes, the same on host and device.

Source: transformers' `CLIPImageProcessorPil` (resize, centre crop, transparency on white), to the pixel.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.files import regular_size
from pocketvl_runtime.manifest import MAX_PIXELS, PreprocessSpec, ResizeMode

ImageInput: TypeAlias = str | Path | bytes | Image.Image
Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_FILE_BYTES = 256_000_000
"""Larger files are not read."""

_STRIP_PIXELS = 2**20
_FORMATS = ("BMP", "GIF", "JPEG", "PPM", "PNG", "WEBP", "TIFF", "JPEG2000")


def open_image(image: ImageInput) -> Image.Image:
    """Decodes a picture and turns it upright: `exif_transpose(image).convert("RGB")`.

    With `preprocess`, which follows, it takes at its peak 4 bytes a pixel, or 8 where the picture is turned,
    has transparency or is not RGB; more where the decoder itself holds the whole picture: 10 for a
    progressive JPEG, 16 for WebP, 19 for JPEG 2000. At `MAX_PIXELS` that is 0.4, 0.7 and up to 1.7 GB.

    Args:
        image: a path, the bytes of a file, or a PIL image.

    Returns:
        An RGB picture. As in PIL, its `info` may name one colour as transparent; `preprocess` handles it.

    Raises:
        InputError: no such file, not a regular one, 0 bytes, truncated, not a picture, or more than
            `MAX_FILE_BYTES` or `MAX_PIXELS`.
    """
    if image == "":
        raise InputError("the path of the picture is empty")
    what = "the picture" if isinstance(image, bytes | Image.Image) else str(image)
    with _decoding(what):
        if isinstance(image, Image.Image):
            _check_size(image, what)
            return _rgb(ImageOps.exif_transpose(image))
        with _stream(image, what) as stream, Image.open(stream, formats=_FORMATS) as opened:
            _check_size(opened, what)
            ImageOps.exif_transpose(opened, in_place=True)  # it is ours: a copy would double the memory
            return _rgb(opened)


def preprocess(image: Image.Image, spec: PreprocessSpec) -> Pixels:
    """Resizes and crops a picture.

    Args:
        image: what `open_image` gave; other modes are converted, transparency laid on white.
        spec: sizes in pixels.

    Returns:
        uint8 [H, W, 3] with H = `spec.height`, W = `spec.width`; where the crop is larger than the resized
        picture, the rest is black.

    Raises:
        InputError: the picture has no pixels, or is so elongated that the resized one would have more than
            `MAX_PIXELS`.
    """
    if image.width < 1 or image.height < 1:
        raise InputError(f"the picture has no pixels ({image.width} x {image.height})")
    image = _opaque(image).resize(_resized_size(image, spec), resample=Image.Resampling.BICUBIC)
    if spec.crop_width is not None and spec.crop_height is not None:
        # below 0 where the crop is larger; Pillow fills with black
        left = (image.width - spec.crop_width) // 2
        top = (image.height - spec.crop_height) // 2
        image = image.crop((left, top, left + spec.crop_width, top + spec.crop_height))
    return np.array(image, dtype=np.uint8)


def load_pixels(image: ImageInput, spec: PreprocessSpec) -> Pixels:
    """`open_image`, then `preprocess`: uint8 [H, W, 3].

    Raises:
        InputError: the picture cannot be used.
    """
    return preprocess(open_image(image), spec)


def _stream(image: str | Path | bytes, what: str) -> BinaryIO:
    """The bytes of a picture, not yet read where they lie in a file."""
    try:
        size = len(image) if isinstance(image, bytes) else regular_size(Path(image))
        if size == 0:
            raise InputError(f"{what}: is empty (0 bytes)")
        if size > MAX_FILE_BYTES:
            raise InputError(f"{what}: has {size} bytes, more than {MAX_FILE_BYTES}; make it smaller first")
        return io.BytesIO(image) if isinstance(image, bytes) else Path(image).open("rb")
    except FileNotFoundError as error:
        raise InputError(f"{what}: no such picture") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


@contextmanager
def _decoding(what: str) -> Iterator[None]:
    """Maps whatever Pillow's decoders raise, which is of a dozen types, to one InputError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # bombs are refused below; palette advice is of no use here
            yield
    except InputError:
        raise
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise InputError(f"{what}: is not a picture of a known format ({known})") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{what}: has more than {MAX_PIXELS} pixels; make it smaller first") from error
    except Exception as error:
        raise InputError(f"{what}: is damaged or truncated ({error})") from error


def _check_size(image: Image.Image, what: str) -> None:
    if image.width < 1 or image.height < 1:
        raise InputError(f"{what}: has no pixels ({image.width} x {image.height})")
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise InputError(f"{what}: is {size}, more than {MAX_PIXELS} pixels; make it smaller first")


def _rgb(image: Image.Image) -> Image.Image:
    return image if image.mode == "RGB" else image.convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    """RGB, with transparency laid on white; strip by strip, for all of it in RGBA takes thrice the memory."""
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return _rgb(image)
    opaque = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height))).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return opaque


def _resized_size(image: Image.Image, spec: PreprocessSpec) -> tuple[int, int]:
    """Width and height of the resized picture."""
    if spec.resize_mode is ResizeMode.EXACT:
        return spec.resize_width, spec.resize_height
    edge = spec.resize_height
    short, long = sorted(image.size)
    new_long = int(edge * long / short)
    if edge * new_long > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise InputError(
            f"the picture is {size}, so elongated that resizing its shortest edge to {edge} would make more "
            f"than {MAX_PIXELS} pixels; cut it first"
        )
    return (edge, new_long) if image.width <= image.height else (new_long, edge)
