"""What docs/BUNDLE.md says of a picture's steps, word for word in numpy: also what the runtime does not run yet.

`test_pictures.py` holds it against the runtime, whose code it shares nothing with.
"""

from __future__ import annotations

import functools
import math
import operator

import numpy as np
from numpy.typing import NDArray

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.manifest import Alpha, CenterCrop, ImageProcessor, Orientation, Resize, ResizeMode, Rounding
from pocketvl_runtime.manifest.processors import Anchor, Filter

_SUPPORT = {Filter.BOX: 0.5, Filter.BILINEAR: 1, Filter.HAMMING: 1, Filter.BICUBIC: 2, Filter.LANCZOS: 3}
_HAMMING = float(np.float32(0.54)), float(np.float32(0.46))
_ONE = 2**22


def reference_pixels(argb: NDArray[np.uint32], orientation: int, processor: ImageProcessor) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of a decoded picture.

    Args:
        argb: [height, width], each 0xAARRGGBB.
        orientation: EXIF tag 0x0112.
        processor: the manifest's.
    """
    if processor.orientation is Orientation.EXIF:
        argb = _turned(argb, orientation)
    red, green, blue, alpha = ((argb >> shift & 255).astype(np.int64) for shift in (16, 8, 0, 24))
    pixels = np.stack([red, green, blue], -1)
    if processor.alpha is Alpha.OVER_WHITE:
        opacity = alpha[..., None]
        x = 128 * (pixels * opacity + 255 * (255 - opacity)) + 16384
        pixels = (x + (x >> 8) >> 8) >> 7
    for step in processor.steps:
        height, width = pixels.shape[:2]
        if isinstance(step, Resize):
            pixels = _resized(pixels, step)
        elif isinstance(step, CenterCrop):
            left = _rounded((width - step.width) / 2, step.rounding)
            top = _rounded((height - step.height) / 2, step.rounding)
            pixels = _framed(pixels, -left, -top, step.width, step.height, (0, 0, 0))
        else:
            centred = step.anchor is Anchor.CENTER
            left, top = ((step.width - width) // 2, (step.height - height) // 2) if centred else (0, 0)
            pixels = _framed(pixels, left, top, step.width, step.height, step.value)
    return pixels.astype(np.uint8)


def _turned(argb: NDArray[np.uint32], orientation: int) -> NDArray[np.uint32]:
    match orientation:
        case 2:
            return argb[:, ::-1]
        case 3:
            return argb[::-1, ::-1]
        case 4:
            return argb[::-1]
        case 5:
            return argb.T
        case 6:
            return argb.T[:, ::-1]
        case 7:
            return argb.T[::-1, ::-1]
        case 8:
            return argb.T[::-1]
        case _:
            return argb


def _rounded(x: float, rounding: Rounding) -> int:
    match rounding:
        case Rounding.FLOOR:
            return math.floor(x)
        case Rounding.HALF_UP:
            return math.floor(x + 0.5)
        case Rounding.HALF_EVEN:
            return round(x)


def _framed(
    pixels: NDArray[np.int64], left: int, top: int, width: int, height: int, fill: tuple[int, int, int]
) -> NDArray[np.int64]:
    """What a rectangle shows of a picture whose corner lies at (left, top) of it."""
    frame = np.empty((height, width, 3), np.int64)
    frame[:] = fill
    x, y = max(0, left), max(0, top)
    inside = pixels[y - top : height - top, x - left : width - left]
    frame[y : y + inside.shape[0], x : x + inside.shape[1]] = inside
    return frame


def resized_size(width: int, height: int, step: Resize) -> tuple[int, int]:
    """Width and height after a resize.

    Raises:
        InputError: one of them is 0.
    """
    if step.mode is ResizeMode.EXACT:
        assert step.width
        assert step.height
        return step.width, step.height
    assert step.size
    short, long = sorted((width, height))
    if step.mode is ResizeMode.SHORTEST_EDGE:
        short, long = step.size, _rounded(step.size * long / short, step.rounding)
    else:
        short, long = _rounded(step.size * short / long, step.rounding), step.size
    if short < 1 or long < 1:
        raise InputError(f"the picture is {width} x {height}, so elongated that nothing is left of it")
    return (short, long) if width <= height else (long, short)


def _resized(pixels: NDArray[np.int64], step: Resize) -> NDArray[np.int64]:
    width, height = resized_size(pixels.shape[1], pixels.shape[0], step)
    along_rows = _pass(pixels.transpose(1, 0, 2), width, step)
    return _pass(along_rows.transpose(1, 0, 2), height, step)


def _pass(values: NDArray[np.int64], size: int, step: Resize) -> NDArray[np.int64]:
    """The first axis becomes `size` long."""
    from_size = len(values)
    if from_size == size:
        return values
    scale = from_size / size
    if step.filter is Filter.NEAREST:
        return values[[int((i + 0.5) * scale) for i in range(size)]]
    wide = max(scale, 1.0) if step.antialias else 1.0
    reach = _SUPPORT[step.filter] * wide
    result = np.empty((size, *values.shape[1:]), np.int64)
    for i in range(size):
        centre = (i + 0.5) * scale
        first, last = max(0, int(centre - reach + 0.5)), min(from_size, int(centre + reach + 0.5))
        weights = [_value(step.filter, (k - centre + 0.5) / wide) for k in range(first, last)]
        total = functools.reduce(operator.add, weights)  # from Python 3.12 on, `sum` corrects rounding errors
        quantized = [int(w / total * _ONE + math.copysign(0.5, w)) if total else 0 for w in weights]
        summed = np.tensordot(np.array(quantized, np.int64), values[first:last], 1)
        result[i] = np.clip((_ONE // 2 + summed) >> 22, 0, 255)
    return result


def _value(by: Filter, x: float) -> float:
    t = abs(x)
    match by:
        case Filter.BOX:
            return 1.0 if -0.5 < x <= 0.5 else 0.0
        case Filter.BILINEAR:
            return 1 - t if t < 1 else 0.0
        case Filter.HAMMING:
            return _sinc(t) * (_HAMMING[0] + _HAMMING[1] * math.cos(math.pi * t)) if t < 1 else 0.0
        case Filter.BICUBIC:
            if t < 1:
                return (1.5 * t - 2.5) * t * t + 1
            return (((t - 5) * t + 8) * t - 4) * -0.5 if t < 2 else 0.0
        case _:
            return _sinc(x) * _sinc(x / 3) if -3 <= x < 3 else 0.0


def _sinc(x: float) -> float:
    return math.sin(math.pi * x) / (math.pi * x) if x else 1.0
