"""Pictures of every mode, and image processors of every kind of step, drawn from a seed."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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

_ORIENTATION = 0x0112
_NORMALIZATION = Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 1 / 255)
_FILTERS = (Filter.BICUBIC, Filter.BILINEAR, Filter.LANCZOS, Filter.BOX, Filter.HAMMING)

# "+A" is one transparent colour, or a palette with opacities; what no format holds goes to the runtime as it is.
_FORMATS = {
    "1": "PNG", "L": "PNG", "LA": "PNG", "P": "PNG", "P+A": "PNG", "RGB": "PNG", "RGBA": "PNG", "RGB+A": "PNG",
    "L+A": "PNG", "I;16": "PNG", "CMYK": "JPEG", "PA": None, "YCbCr": None, "HSV": None, "LAB": None,
}  # fmt: skip
LARGE_SIZES = (
    (4000, 3000), (3000, 4000), (4000, 4000), (1, 4000), (4000, 1), (4000, 7), (5, 3999), (4000, 300), (640, 480),
)  # fmt: skip


@dataclass(frozen=True)
class Pictured:
    """A picture as it is handed in, and what a decoder makes of it.

    Attributes:
        source: a file's bytes, or an image of a mode that no file holds.
        argb: uint32 [height, width], each 0xAARRGGBB, as it lies, not turned.
        orientation: EXIF's.
        mode: Pillow's, for the case's name.
        waves: the seed, where the picture is `waves` of it.
    """

    source: bytes | Image.Image
    argb: NDArray[np.uint32]
    orientation: int
    mode: str
    waves: int | None = None


def waves(width: int, height: int, seed: int, opaque: bool) -> NDArray[np.uint32]:
    """Colours that rise, each at a pace of its own, and wrap around; the Java tests compute the same."""
    x, y = np.arange(width, dtype=np.int64), np.arange(height, dtype=np.int64)[:, None]
    red, green, blue = x * 3 + y + seed, y * 5 + x * x // 9, x * y // 3 + seed
    alpha = np.broadcast_to(255 if opaque else x + 2 * y, (height, width))
    return _packed(red & 255, green & 255, blue & 255, alpha & 255)


def small_picture(rng: random.Random, largest: int) -> Pictured:
    """A picture of a random mode, content and size."""
    width, height = (round(min(largest, 600) ** rng.random()) for _ in range(2))
    mode = rng.choice(list(_FORMATS))
    orientation = rng.choice((1, 1, 1, 1, 2, 3, 4, 5, 6, 7, 8, 6, 8, 0, 9))
    image = _in_mode(_content(rng, width, height), mode, rng)
    kind = _FORMATS[mode]
    if kind is None:
        image.getexif()[_ORIENTATION] = orientation
        return Pictured(image, argb_of(image), orientation, mode)
    exif = Image.Exif()
    exif[_ORIENTATION] = orientation
    stored = io.BytesIO()
    transparency = {} if "transparency" not in image.info else {"transparency": image.info["transparency"]}
    image.save(stored, kind, exif=exif, **transparency)
    return decoded(stored.getvalue(), mode)


def large_picture(rng: random.Random, number: int, largest: int) -> Pictured:
    """A picture that needs no room in the pack, of a size of `LARGE_SIZES`, then of others."""
    if number < len(LARGE_SIZES):
        width, height = LARGE_SIZES[number]
    else:
        width, height = (round(50 * 80 ** rng.random()) for _ in range(2))
    seed, opaque = rng.randrange(256), rng.random() < 0.7
    argb = waves(min(width, largest), min(height, largest), seed, opaque)
    bands = np.stack([argb >> shift & 255 for shift in (16, 8, 0, 24)][: 3 if opaque else 4], -1)
    image = Image.fromarray(bands.astype(np.uint8))
    orientation = rng.choice((1, 3, 6, 6, 8))
    image.getexif()[_ORIENTATION] = orientation
    return Pictured(image, argb, orientation, image.mode, seed)


def decoded(source: bytes, mode: str | None = None) -> Pictured:
    """A file's picture as Pillow decodes it."""
    with Image.open(io.BytesIO(source)) as opened:
        orientation = opened.getexif().get(_ORIENTATION, 1)
        opened.load()
        return Pictured(source, argb_of(opened), orientation, mode or opened.mode)


def argb_of(image: Image.Image) -> NDArray[np.uint32]:
    """[height, width], each 0xAARRGGBB, opacity not multiplied into the colours; grey of 16 bits scaled to 8."""
    if image.mode.startswith("I;16"):
        wide = np.asarray(image).astype(np.int64)
        grey = (255 * wide + 32767) // 65535
        return _packed(grey, grey, grey, np.full_like(grey, 255))
    if image.mode in ("CMYK", "YCbCr", "HSV", "LAB"):  # Pillow makes no RGBA of them at once
        image = image.convert("RGB")
    bands = np.asarray(image.convert("RGBA"))
    return _packed(*(bands[..., k] for k in range(4)))


def _packed(red: Any, green: Any, blue: Any, alpha: Any) -> NDArray[np.uint32]:
    packed = np.zeros(alpha.shape, np.uint32)
    for band in (alpha, red, green, blue):
        packed = packed << np.uint32(8) | band.astype(np.uint32)
    return packed


def _content(rng: random.Random, width: int, height: int) -> Image.Image:
    """RGBA: noise, blocks of it, black and white, a smooth picture, or one colour."""
    kind = rng.choice(("noise", "blocks", "extremes", "smooth", "plain"))
    few = kind != "noise" and kind != "extremes"
    columns, rows = (1 + width // 9, 1 + height // 9) if few else (width, height)
    if kind == "plain":
        columns = rows = 1
    data = np.frombuffer(rng.randbytes(columns * rows * 4), np.uint8).reshape(rows, columns, 4)
    if kind == "extremes":
        data = (data >> 7) * np.uint8(255)
    by = Image.Resampling.BICUBIC if kind == "smooth" else Image.Resampling.NEAREST
    return Image.fromarray(data).resize((width, height), by)


def _in_mode(image: Image.Image, mode: str, rng: random.Random) -> Image.Image:
    alpha = image.getchannel("A")
    rgb = image.convert("RGB")
    match mode:
        case "RGBA":
            return image
        case "LA":
            return Image.merge("LA", (rgb.convert("L"), alpha))
        case "PA":
            made = rgb.quantize(40).convert("PA")
            made.putalpha(alpha)
            return made
        case "P" | "P+A":
            made = rgb.quantize(40)
            if mode == "P+A":
                made.info["transparency"] = rng.choice((3, rng.randbytes(30)))
            return made
        case "I;16":
            values = np.frombuffer(rng.randbytes(2 * rgb.width * rgb.height), np.uint16)
            return Image.fromarray(values.reshape(rgb.height, rgb.width))
        case "RGB+A":
            rgb.info["transparency"] = rgb.getpixel((0, 0))
            return rgb
        case "L+A":
            grey = rgb.convert("L")
            grey.info["transparency"] = grey.getpixel((0, 0))
            return grey
        case _:
            return rgb.convert(mode)


# --- processors ---------------------------------------------------------------------------------------


def processor_of(*steps: ImageStep) -> ImageProcessor:
    """A processor of steps whose last one makes a size of its own."""
    made = steps[-1].size_after()
    assert made is not None
    return ImageProcessor(steps, PixelsOutput("uint8", Layout.NHWC, (1, *made, 3)), _NORMALIZATION)


def clip(size: int, by: Filter = Filter.BICUBIC) -> ImageProcessor:
    """The shorter edge, then the middle, as CLIP takes it."""
    return processor_of(_edge(by, size), CenterCrop(size, size, Rounding.FLOOR))


def stretched(height: int, width: int, by: Filter) -> ImageProcessor:
    """Both edges at once, as SigLIP and ViLT on a fixed grid take a picture."""
    return processor_of(_exact(by, height, width))


def runnable_processor(rng: random.Random, largest: int) -> ImageProcessor:
    """Steps that the runtime runs, to `largest` pixels a side at most."""
    size, by = _size(rng, largest), rng.choice(_FILTERS)
    height, width = _size(rng, largest), _size(rng, largest)
    middle = CenterCrop(height, width, Rounding.FLOOR)
    makes: tuple[Callable[[], ImageProcessor], ...] = (
        lambda: clip(size),
        lambda: clip(min(largest, rng.choice((80, 224)))),
        lambda: stretched(size, size, rng.choice((Filter.BICUBIC, Filter.BILINEAR))),
        lambda: stretched(height, width, by),
        lambda: processor_of(_edge(by, size), middle),
        lambda: processor_of(middle, _exact(by, size, size)),
        lambda: processor_of(middle),
        lambda: processor_of(_edge(by, size), _exact(Filter.BICUBIC, height, width), CenterCrop(9, 9, Rounding.FLOOR)),
    )
    return rng.choice(makes)()


def other_processor(rng: random.Random, largest: int) -> ImageProcessor:
    """Steps, or ways to open a picture, that docs/BUNDLE.md names and the runtime does not run yet, likewise."""
    size, by, rounding = _size(rng, largest), rng.choice(_FILTERS), rng.choice(list(Rounding))
    height, width = _size(rng, largest), _size(rng, largest)
    colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
    longest = Resize(ResizeMode.LONGEST_EDGE, by, True, rounding, size=size)
    pad = Pad(size + rng.randrange(4), size + rng.randrange(4), rng.choice(list(Anchor)), colour)
    shortest = replace(_edge(by, size), rounding=rounding)
    makes: tuple[Callable[[], ImageProcessor], ...] = (
        lambda: processor_of(longest, pad),
        lambda: processor_of(longest, pad, _exact(by, height, width)),
        lambda: processor_of(shortest, CenterCrop(height, width, rounding)),
        lambda: processor_of(_exact(Filter.NEAREST, height, width)),
        lambda: processor_of(replace(_edge(Filter.NEAREST, size), rounding=rounding), CenterCrop(size, size, rounding)),
        lambda: processor_of(replace(_exact(by, height, width), antialias=False)),
        lambda: replace(clip(size, by), alpha=Alpha.DROP),
        lambda: replace(clip(size, by), orientation=Orientation.AS_STORED),
    )
    return rng.choice(makes)()


def _size(rng: random.Random, largest: int) -> int:
    return round(min(largest, 100) ** rng.random())


def _exact(by: Filter, height: int, width: int) -> Resize:
    return Resize(ResizeMode.EXACT, by, True, Rounding.FLOOR, height=height, width=width)


def _edge(by: Filter, size: int) -> Resize:
    return Resize(ResizeMode.SHORTEST_EDGE, by, True, Rounding.FLOOR, size=size)
