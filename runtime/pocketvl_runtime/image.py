"""From a picture to the pixels that the image graph takes, the same on host and device.

Source: transformers' `CLIPImageProcessorPil` (resize, centre crop, transparency on white), to the pixel with
Pillow below 13 (`_resized`), but for pictures of 16 bits, which it clips, and JPEGs above `MAX_PIXELS`, which
are decoded at a smaller size.
"""

from __future__ import annotations

import warnings
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from pocketvl_runtime.errors import ImageWarning, InputError, library_text
from pocketvl_runtime.image_limits import MAX_FILE_BYTES, max_pixels
from pocketvl_runtime.image_source import ImageInput, decoding, describe, load_image
from pocketvl_runtime.manifest import MAX_PIXELS, CenterCrop, ImageProcessor, Resize, Rounding
from pocketvl_runtime.obstacles import refuse_processor

__all__ = ["MAX_FILE_BYTES", "ImageInput", "Pixels", "load_pixels", "max_pixels", "open_image", "preprocess"]

Pixels: TypeAlias = npt.NDArray[np.uint8]

_STRIP_PIXELS = 2**20
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_TURNS = (None, 0, 1)
_BITS_PER_SAMPLE, _PHOTOMETRIC, _MIN_IS_WHITE = 258, 262, 0  # TIFF's


def open_image(image: ImageInput) -> Image.Image:
    """Decodes a picture: RGB, upright as its EXIF data say, transparency laid on white, 16 bits scaled to 8.

    With `preprocess`, which follows, it takes at its peak 4 bytes a pixel, or 8 where the picture is turned,
    has transparency or is not RGB; more where the decoder itself holds the whole picture: 9 for AVIF, 10 for
    a progressive JPEG, 16 for WebP, 19 for JPEG 2000. At `MAX_PIXELS` that is 0.4, 0.7 and up to 1.7 GB.

    A JPEG above `MAX_PIXELS` and up to `max_pixels()` is decoded at a half of its size (or a quarter or an
    eighth, until it fits), which takes 1 byte a pixel of the file, or 7 where it is progressive: 0.1 and
    0.8 GB at 108 million pixels. What `preprocess` makes of it for a model of 224 x 224 differs from the full
    decoding by 0.05 grey levels on average and 1 at most for photos of 12,000 x 9,000; by 0.2 on average and
    2 at most for a panorama of 65,000 x 1,400.

    Args:
        image: a path; the bytes of a file; a file opened for binary reading, which is read from its begin; a
            PIL image; or a numpy array, uint8 [H, W, 3] (RGB: an array of OpenCV is BGR, and nothing tells
            them apart), [H, W, 4] (RGBA) or [H, W] (grey).

    Returns:
        An RGB picture without `info`, the caller's own in no case.

    Warns:
        ImageWarning: EXIF data are damaged, and the picture is taken as it lies.

    Raises:
        InputError: no such file, not a regular one, 0 bytes, truncated, not a picture, more than
            `MAX_FILE_BYTES` or `MAX_PIXELS` (JPEG: `max_pixels()`), of 32-bit numbers whose range nobody
            knows, or built so that reading it would take minutes.
    """
    what = describe(image)
    with decoding(what):
        loaded = load_image(image, what)
        turn = _turn(loaded, what)
        loaded = _eight_bits(loaded, what)
        if turn is not None:
            loaded = loaded.transpose(turn)
        opaque = _opaque(loaded, what)
        if opaque is image:
            opaque = opaque.copy()
        opaque.info.clear()  # of what was turned it would ask for another turn
        return opaque


def preprocess(image: Image.Image, processor: ImageProcessor) -> Pixels:
    """Does a processor's steps.

    Args:
        image: what `open_image` gave; other modes are converted, transparency laid on white.
        processor: the manifest's.

    Returns:
        uint8 [H, W, 3] with H = `processor.height`, W = `processor.width`; where a crop is larger than the
        resized picture, the rest is black.

    Raises:
        BundleError: the processor has steps that this runtime cannot run.
        InputError: the picture has no pixels, is of 32-bit numbers, or is so elongated that the resized one
            would have more than `MAX_PIXELS`.
    """
    if image.width < 1 or image.height < 1:
        raise InputError(f"the picture has no pixels ({image.width} x {image.height})")
    refuse_processor(processor)
    image = _opaque(image, "the picture")
    for step in processor.steps:
        if isinstance(step, Resize):
            image = _resized(image, _resized_size(image, step), Image.Resampling[step.filter.name])
        elif isinstance(step, CenterCrop):
            # below 0 where the crop is larger; Pillow fills with black
            left = _half(image.width - step.width, step.rounding)
            top = _half(image.height - step.height, step.rounding)
            image = image.crop((left, top, left + step.width, top + step.height))
    return np.array(image, dtype=np.uint8)


def load_pixels(image: ImageInput, processor: ImageProcessor) -> Pixels:
    """`open_image`, then `preprocess`: uint8 [H, W, 3].

    Raises:
        BundleError: the processor has steps that this runtime cannot run.
        InputError: the picture cannot be used.
    """
    return preprocess(open_image(image), processor)


def _half(pixels: int, rounding: Rounding) -> int:
    match rounding:
        case Rounding.FLOOR:
            return pixels // 2
        case Rounding.HALF_UP:
            return (pixels + 1) // 2
        case Rounding.HALF_EVEN:
            return round(pixels / 2)


def _turn(image: Image.Image, what: str) -> Image.Transpose | None:
    """What turns a picture upright; None, with a warning, where its EXIF data do not say."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation)
        if orientation is None:
            _check_directory(image.info.get("exif") or b"")
        if orientation in _NO_TURNS:
            return None
        if orientation not in _TURNS:
            raise ValueError(f"orientation {orientation!r} is none of 1 to 8")
        return _TURNS[orientation]
    except Exception as error:  # what damage makes Pillow raise is of many types
        message = f"{what}: is taken as it lies, for its EXIF data are damaged ({library_text(error)})"
        warnings.warn(message, ImageWarning, stacklevel=3)
        return None


def _check_directory(exif: bytes) -> None:
    """Pillow takes EXIF data whose first directory is cut off for empty."""
    tiff = exif.removeprefix(b"Exif\0\0").removeprefix(b"Exif\0\0")
    order: Literal["little", "big"] = "little" if tiff.startswith(b"II") else "big"
    start = int.from_bytes(tiff[4:8], order)
    entries = int.from_bytes(tiff[start : start + 2], order)
    if tiff and start + 2 + 12 * entries > len(tiff):
        raise ValueError("the directory is cut off")


def _eight_bits(image: Image.Image, what: str) -> Image.Image:
    """A picture of 16 bits in L, or in LA where one grey is transparent; others as they are.

    Raises:
        InputError: it is of 32-bit numbers.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    if image.mode == "F" or (image.mode == "I" and image.format != "PPM"):
        numbers = "floats" if image.mode == "F" else "integers"
        raise InputError(
            f"{what}: is of 32-bit {numbers}, whose range nobody knows; scale it to 8 bits first"
        )
    tags = getattr(image, "tag_v2", {})
    white = 4095 if tags.get(_BITS_PER_SAMPLE) == (12,) else 65535
    table = [min(255, (255 * value + white // 2) // white) for value in range(65536)]
    if tags.get(_PHOTOMETRIC) == _MIN_IS_WHITE:
        table.reverse()
    wide = image.convert("I")
    grey = wide.point(table, "L")
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return grey
    alpha = wide.point([0 if value == transparent else 255 for value in range(65536)], "L")
    return Image.merge("LA", (grey, alpha))


def _opaque(image: Image.Image, what: str) -> Image.Image:
    """RGB, with transparency laid on white; strip by strip, for all of it in RGBA takes thrice the memory."""
    image = _eight_bits(image, what)
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    opaque = Image.new("RGB", image.size)
    rows = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        strip = (strip.convert("LA") if image.mode == "La" else strip).convert("RGBA")
        white = Image.new("RGBA", strip.size, (255, 255, 255, 255))
        opaque.paste(Image.alpha_composite(white, strip).convert("RGB"), (0, top))
    return opaque


def _resized_size(image: Image.Image, step: Resize) -> tuple[int, int]:
    """Width and height of the resized picture."""
    if step.size is None:
        exact = step.size_after()
        assert exact is not None  # of the two modes that `refuse_processor` lets through
        height, width = exact
    else:
        short, long = sorted(image.size)
        new_long = int(step.size * long / short)
        upright = image.width <= image.height
        width, height = (step.size, new_long) if upright else (new_long, step.size)
    if width * max(height, image.height) > MAX_PIXELS:
        raise InputError(
            f"the picture is {image.width} x {image.height}, so elongated that resizing it to "
            f"{width} x {height} would take more than {MAX_PIXELS} pixels; cut it first"
        )
    return width, height


def _resized(image: Image.Image, size: tuple[int, int], resampling: Image.Resampling) -> Image.Image:
    """Along rows, then along columns, each pass rounded to 8 bits: the order of Pillow before 13.

    Pillow 13 takes upright pictures the other way round, which moves pixels of photos by up to 16 levels.
    """
    return image.resize((size[0], image.height), resampling).resize(size, resampling)
