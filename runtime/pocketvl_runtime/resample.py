"""Pillow's 8-bit bicubic resize, computed only where it is wanted.

A very elongated picture, resized by its shortest edge, becomes a strip of up to billions of pixels of which the
crop keeps a square. This computes that square alone, with the very integers that Pillow computes.

Source: Pillow, `src/libImaging/Resample.c` (fixed-point two-pass convolution, horizontal first).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_PRECISION_BITS = 32 - 8 - 2
_SUPPORT = 2.0
_A = -0.5


def resize_window(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int], rows: range, columns: range
) -> npt.NDArray[np.uint8]:
    """Resizes bicubically with antialias and returns only a window of the result.

    Args:
        pixels: uint8 [H, W, C].
        size: height and width of the whole result.
        rows, columns: the window in the result.

    Returns:
        uint8 [len(rows), len(columns), C], equal to the same window of Pillow's resize.
    """
    height, width = pixels.shape[:2]
    first, row_weights = _weights(height, size[0], rows)
    top, bottom = int(first.min()), int(min(first.max() + row_weights.shape[1], height))
    band = pixels[top:bottom]
    if size[1] != width:
        column_first, column_weights = _weights(width, size[1], columns)
        band = _convolve(band.swapaxes(0, 1), column_first, column_weights).swapaxes(0, 1)
    else:
        band = band[:, columns.start : columns.stop]
    if size[0] == height:
        return np.ascontiguousarray(band[rows.start - top : rows.stop - top])
    return np.ascontiguousarray(_convolve(band, first - top, row_weights))


def _weights(
    in_size: int, out_size: int, wanted: range
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First source index [n] and fixed-point weights [n, k] of each wanted output index."""
    scale = in_size / out_size
    filter_scale = max(scale, 1.0)
    support = _SUPPORT * filter_scale
    center = (np.asarray(wanted, dtype=np.float64) + 0.5) * scale
    first = np.maximum((center - support + 0.5).astype(np.int64), 0)
    last = np.minimum((center + support + 0.5).astype(np.int64), in_size)
    tap = np.arange(int((last - first).max()))
    inside = tap[None, :] < (last - first)[:, None]
    distance = ((tap[None, :] + first[:, None]) - center[:, None] + 0.5) * (1.0 / filter_scale)
    weight = np.where(inside, _bicubic(distance), 0.0)
    weight /= weight.sum(axis=1, keepdims=True)
    scaled = weight * (1 << _PRECISION_BITS)
    return first, np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int64)


def _bicubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    x = np.abs(x)
    near = ((_A + 2.0) * x - (_A + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * _A
    return np.where(x < 1.0, near, np.where(x < 2.0, far, 0.0))


def _convolve(
    lines: npt.NDArray[np.uint8], first: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint8]:
    """Weighted sums of lines [N, ...] along the first axis: [n, ...]."""
    shape = (len(first), *lines.shape[1:])
    total = np.full(shape, 1 << (_PRECISION_BITS - 1), dtype=np.int64)
    for tap in range(weights.shape[1]):
        source = lines[np.minimum(first + tap, len(lines) - 1)]  # weights beyond the edge are 0
        total += weights[:, tap].reshape(-1, *([1] * (lines.ndim - 1))) * source
    return np.clip(total >> _PRECISION_BITS, 0, 255).astype(np.uint8)
