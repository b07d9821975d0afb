"""From a picture to the pixels that the image graph takes, the same on host and device.

Source: transformers' `CLIPImageProcessorPil` (resize, centre crop, transparency on white), to the pixel.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import PreprocessSpec, ResizeMode

ImageInput: TypeAlias = str | Path | bytes | Image.Image
Pixels: TypeAlias = npt.NDArray[np.uint8]

MAX_PIXELS = 89_000_000
"""Bigger pictures are refused: decoded they would take more than a third of a gigabyte."""

_FORMATS = ("BMP", "GIF", "JPEG", "PPM", "PNG", "WEBP", "TIFF", "JPEG2000")


def open_image(image: ImageInput) -> Image.Image:
    """Decodes a picture and turns it upright: `exif_transpose(image).convert("RGB")`.

    Args:
        image: a path, the bytes of a file, or a PIL image.

    Returns:
        An RGB picture. As in PIL, its `info` may name one colour as transparent; `preprocess` handles it.

    Raises:
        InputError: no such file, 0 bytes, truncated, not a picture, or more than `MAX_PIXELS`.
    """
    if isinstance(image, Image.Image):
        return _upright(image, "the picture")
    what = "the picture" if isinstance(image, bytes) else str(image)
    data = image if isinstance(image, bytes) else _read(Path(image))
    if not data:
        raise InputError(f"{what}: is empty (0 bytes)")
    with _decoding(what), Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
        return _upright(opened, what)


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
    image = _opaque(image)
    height, width = _resized_size(image, spec)
    if spec.crop_height is None or spec.crop_width is None:
        return _to_array(_resize(image, (height, width)))
    rows, top = _crop_axis(height, spec.crop_height)
    columns, left = _crop_axis(width, spec.crop_width)
    window = _to_array(
        _resize(image, (height, width)).crop((columns.start, rows.start, columns.stop, rows.stop))
    )
    if window.shape[:2] == (spec.crop_height, spec.crop_width):
        return window
    padded = np.zeros((spec.crop_height, spec.crop_width, 3), dtype=np.uint8)
    padded[top : top + len(rows), left : left + len(columns)] = window
    return padded


def load_pixels(image: ImageInput, spec: PreprocessSpec) -> Pixels:
    """`open_image`, then `preprocess`: uint8 [H, W, 3].

    Raises:
        InputError: the picture cannot be used.
    """
    return preprocess(open_image(image), spec)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such picture") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


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


def _upright(image: Image.Image, what: str) -> Image.Image:
    if image.width < 1 or image.height < 1:
        raise InputError(f"{what}: has no pixels ({image.width} x {image.height})")
    if image.width * image.height > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise InputError(f"{what}: is {size}, more than {MAX_PIXELS} pixels; make it smaller first")
    with _decoding(what):
        return ImageOps.exif_transpose(image).convert("RGB")


def _opaque(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and image.info.get("transparency") is None:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image).convert("RGB")


def _resized_size(image: Image.Image, spec: PreprocessSpec) -> tuple[int, int]:
    if spec.resize_mode is ResizeMode.EXACT:
        return spec.resize_height, spec.resize_width
    edge = spec.resize_height
    short, long = sorted(image.size)
    new_long = int(edge * long / short)
    if edge * new_long > MAX_PIXELS:
        size = f"{image.width} x {image.height}"
        raise InputError(
            f"the picture is {size}, so elongated that resizing its shortest edge to {edge} would make more "
            f"than {MAX_PIXELS} pixels; cut it first"
        )
    return (new_long, edge) if image.width <= image.height else (edge, new_long)


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    height, width = size
    return image.resize((width, height), resample=Image.Resampling.BICUBIC)


def _crop_axis(size: int, crop: int) -> tuple[range, int]:
    """What of `size` pixels is kept, and where it lands in `crop` pixels."""
    if size >= crop:
        start = (size - crop) // 2
        return range(start, start + crop), 0
    return range(size), (crop - size + 1) // 2


def _to_array(image: Image.Image) -> Pixels:
    return np.array(image, dtype=np.uint8)
