"""Files of pictures: whole ones must give transformers' pixels, damaged ones pixels or an InputError."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.image import open_image, preprocess
from pocketvl_runtime.manifest import MAX_PIXELS, ImageProcessor, Normalization, Resize, ResizeMode
from tests.fuzz.mutations import damage
from tests.fuzz.target import Case, Finding, refusal, watch_memory

try:
    from tests.runtime.reference import clip_pixels
except ImportError:  # there is no transformers
    clip_pixels = None  # type: ignore[assignment]

_ORIENTATION = 0x0112
_BYTES_PER_PIXEL = 20  # `open_image` says 4 to 19
_SPARE_BYTES = 64 * 2**20
_SIDES = (1, 2, 3, 7, 8, 16, 31, 33, 64, 97, 200)
_LONG = ((1, 3000), (3000, 1), (5, 1700), (640, 480), (1100, 700))

_MAY_BE_REFUSED = ("so elongated", "of 32-bit")
# What each format holds; "I;16" is grey of 16 bits, "P+A" a palette with transparency.
_MODES = {
    "PNG": ("1", "L", "LA", "P", "P+A", "RGB", "RGB+A", "L+A", "RGBA", "I;16"),
    "JPEG": ("L", "RGB", "CMYK"),
    "WEBP": ("RGB", "RGBA", "L"),
    "GIF": ("1", "L", "P", "P+A", "RGB", "RGBA"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I;16"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"),
    "JPEG2000": ("L", "LA", "RGB", "RGBA", "I;16"),
}


@dataclass(frozen=True)
class PictureOptions:
    """How a picture is preprocessed, and whether its file is whole."""

    spec: ImageProcessor
    whole: bool


class Pictures:
    """`open_image` and `preprocess`."""

    name = "pictures"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in; not needed here."""

    def make(self, rng: random.Random) -> Case:
        """A file as Pillow writes it, mostly damaged afterwards."""
        data, what = _stored(rng)
        whole = rng.random() < 0.25
        if not whole:
            change = rng.choice((damage, damage, damage, _edit_png, _edit_exif))
            times = rng.choice((1, 1, 1, 2, 5))
            data, how = change(rng, data, times)
            what += f"; {how}"
        spec = _spec(rng)
        return Case(
            f"{what}; to {spec.width} x {spec.height}", {"picture": data}, PictureOptions(spec, whole)
        )

    def check(self, case: Case) -> str:
        """Decodes and preprocesses; whole files are held against transformers."""
        data, options = case.files["picture"], case.options
        grown = watch_memory()
        try:
            pixels = preprocess(open_image(data), options.spec)
        except InputError as error:
            if options.whole and not any(why in str(error) for why in _MAY_BE_REFUSED):
                raise Finding("a whole picture is refused", str(error)) from error
            return refusal(error)
        finally:
            _check_memory(grown(), data, options.spec)
        wanted = (options.spec.height, options.spec.width, 3)
        if pixels.shape != wanted or pixels.dtype != np.uint8:
            raise Finding("pixels of another kind", f"{pixels.dtype} {pixels.shape}, wanted {wanted}")
        if not options.whole or clip_pixels is None:
            return "pixels"
        _compare(pixels, _reference(data, options.spec))
        return "transformers' pixels"


def _compare(pixels: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    if pixels.shape != expected.shape:
        raise Finding("another shape than transformers'", f"{pixels.shape}, {expected.shape}")
    if not np.array_equal(pixels, expected):
        off = np.abs(pixels.astype(int) - expected)
        raise Finding(
            "other pixels than transformers'", f"{(off > 0).mean():.1%} differ, by up to {off.max()}"
        )


def _reference(data: bytes, spec: ImageProcessor) -> NDArray[np.uint8]:
    """uint8 [H, W, 3], as transformers makes it of the upright picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(io.BytesIO(data)) as opened:
            upright = _eight_bits(ImageOps.exif_transpose(opened))
        return clip_pixels(upright, spec).astype(np.uint8)


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits scaled to 8, where transformers would clip it; other pictures as they are."""
    if not image.mode.startswith("I"):
        return image
    scaled = (np.asarray(image).astype(np.int64) * 255 + 32767) // 65535
    return Image.fromarray(scaled.clip(0, 255).astype(np.uint8))


def _check_memory(grown: int, data: bytes, spec: ImageProcessor) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as opened:
                width, height = opened.size
    except Exception:
        width = height = 0
    (resize,) = (step for step in spec.steps if isinstance(step, Resize))
    edge = resize.size or resize.height or 0
    pixels = width * height if width * height <= MAX_PIXELS else 0  # larger ones are refused unread
    resized = min(edge**2 * (max(width, height) / max(1, min(width, height))), MAX_PIXELS)
    most = _BYTES_PER_PIXEL * (pixels + resized) + _SPARE_BYTES
    if grown > most:
        raise Finding(
            "takes more memory than documented",
            f"{grown >> 20} MiB for {width} x {height} in {len(data)} bytes",
        )


# --- files -------------------------------------------------------------------------------------------


def _stored(rng: random.Random) -> tuple[bytes, str]:
    fmt = rng.choice(sorted(_MODES))
    mode = rng.choice(_MODES[fmt])
    size = (rng.choice(_SIDES), rng.choice(_SIDES)) if rng.random() < 0.95 else rng.choice(_LONG)
    image, options = _image(rng, fmt, mode, size)
    options |= _format_options(rng, fmt, mode, size)
    if rng.random() < 0.3 and fmt in ("PNG", "JPEG", "WEBP", "TIFF"):
        exif = Image.Exif()
        exif[_ORIENTATION] = orientation = rng.randint(1, 8) if fmt == "TIFF" else rng.randint(0, 9)
        options["exif"] = exif
        mode += f", orientation {orientation}"
    out = io.BytesIO()
    image.save(out, fmt, **options)
    told = {key: value for key, value in options.items() if key not in ("exif", "append_images")}
    return out.getvalue(), f"{fmt} {mode} {size[0]} x {size[1]} {told}"


def _image(
    rng: random.Random, fmt: str, mode: str, size: tuple[int, int]
) -> tuple[Image.Image, dict[str, Any]]:
    """A picture of smooth noise in a mode, and what of that mode only a file can say."""
    numbers = np.random.default_rng(rng.randrange(2**32))
    width, height = size
    if mode == "I;16":
        return Image.fromarray(numbers.integers(0, 65536, (height, width), dtype=np.uint16)), {}
    if mode in ("I", "F"):
        kind = np.int32 if mode == "I" else np.float32
        return Image.fromarray(numbers.integers(-300, 70_000, (height, width)).astype(kind)), {}
    coarse = numbers.integers(0, 256, (height // 4 + 1, width // 4 + 1, 4), dtype=np.uint8)
    image = Image.fromarray(coarse, "RGBA").resize(size, Image.Resampling.BICUBIC)
    if mode == "P+A":
        one, each = rng.randrange(16), bytes(rng.randrange(256) for _ in range(16))
        transparent = rng.choice((one, each)) if fmt == "PNG" else one
        return image.convert("RGB").quantize(16), {"transparency": transparent}
    if mode.endswith("+A"):  # one colour is transparent
        image = image.convert(mode.removesuffix("+A"))
        return image, {"transparency": image.getpixel((0, 0))}
    if mode == "LAB":
        return Image.merge("LAB", image.convert("RGB").split()), {}
    return (image.convert("RGB") if mode not in ("RGBA", "LA") else image).convert(mode), {}


def _format_options(rng: random.Random, fmt: str, mode: str, size: tuple[int, int]) -> dict[str, Any]:
    """How the encoder is set."""
    if fmt == "JPEG":
        progressive, subsampling = rng.random() < 0.3, rng.choice((0, 1, 2))
        return {"quality": rng.choice((5, 75, 95)), "progressive": progressive, "subsampling": subsampling}
    if fmt == "WEBP":
        return {"lossless": rng.random() < 0.5} | _frames(rng, size)
    if fmt == "PNG":
        return {} if mode.endswith("+A") else _frames(rng, size)
    if fmt == "GIF":
        return {"interlace": rng.random() < 0.5} | _frames(rng, size)
    if fmt == "JPEG2000":
        return {"irreversible": rng.random() < 0.5}
    if fmt == "TIFF":
        known = ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]
        known += {"1": ["group3", "group4"], "RGB": ["jpeg"], "L": ["jpeg"], "YCbCr": ["jpeg"]}.get(mode, [])
        return {"compression": rng.choice(known)}
    return {}


def _frames(rng: random.Random, size: tuple[int, int]) -> dict[str, Any]:
    if rng.random() < 0.85:
        return {}
    others = [Image.new("RGB", size, rng.choice(("red", "blue"))) for _ in range(2)]
    return {"save_all": True, "append_images": others} if rng.random() < 0.5 else {"save_all": True}


def _spec(rng: random.Random) -> ImageProcessor:
    edge, side = rng.choice((1, 16, 32, 33)), rng.choice((1, 16, 32, 40))
    mode, height, width = ResizeMode.SHORTEST_EDGE, edge, edge
    crop: tuple[int, int] | None = (side, side)
    if rng.random() < 0.3:
        mode, width = ResizeMode.EXACT, rng.choice((1, 20, 48))
        crop = crop if rng.random() < 0.5 else None
    return ImageProcessor.bicubic(
        mode, (height, width), crop, Normalization((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1 / 255)
    )


# --- damage that a checksum or a syntax would stop at once ---------------------------------------------


def _edit_png(rng: random.Random, data: bytes, times: int) -> tuple[bytes, str]:
    """Changes chunks of a PNG, with right checksums; other files are damaged anyhow."""
    if not data.startswith(b"\x89PNG"):
        return damage(rng, data, times)
    chunks = _png_chunks(data)
    told = []
    for _ in range(times):
        place = rng.randrange(len(chunks))
        kind, content = chunks[place]
        what = rng.choice(("content", "content", "twice", "gone", "moved", "kind"))
        if what == "content":
            content, how = damage(rng, content)
            chunks[place] = (kind, content)
            what = how
        elif what == "twice":
            chunks.insert(rng.randrange(len(chunks) + 1), (kind, content))
        elif what == "kind":
            chunks[place] = (
                rng.choice((b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"acTL", b"fdAT", b"zTXt")),
                content,
            )
        elif what == "gone" and len(chunks) > 1:
            del chunks[place]
        else:
            chunks.append(chunks.pop(place))
        told.append(f"{kind!r} {what}")
    return data[:8] + b"".join(_png_chunk(*chunk) for chunk in chunks), ", ".join(told)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    chunks, place = [], 8
    while place + 8 <= len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + checksum


_EXIF_ENTRIES = (
    (0x112, 3, 1, struct.pack("<HH", 6, 0)),
    (0x112, 3, 1, struct.pack("<HH", 77, 0)),
    (0x112, 2, 4, b"six\0"),
    (0x112, 4, 1, struct.pack("<I", 8)),
    (0x11A, 10, 1, struct.pack("<I", 8)),  # a fraction that points into the directory
    (0x11A, 5, 1, struct.pack("<I", 2**31)),
    (0x8769, 4, 1, struct.pack("<I", 8)),  # a directory that holds itself
    (0x8825, 4, 1, struct.pack("<I", 2**32 - 1)),
    (0x10F, 2, 2**32 - 1, struct.pack("<I", 8)),
)


def _edit_exif(rng: random.Random, data: bytes, times: int) -> tuple[bytes, str]:
    """Gives a JPEG or PNG EXIF that cannot be; other files are damaged anyhow."""
    entries = rng.sample(_EXIF_ENTRIES, rng.randint(1, 4))
    packed = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in entries)
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + packed + b"\0\0\0\0"
    if rng.random() < 0.5:
        exif, _ = damage(rng, exif)
    told = f"EXIF with {[hex(entry[0]) for entry in entries]}"
    if data.startswith(b"\xff\xd8"):
        segment = b"Exif\0\0" + exif
        return data[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + data[2:], told
    if data.startswith(b"\x89PNG"):
        first, *rest = [chunk for chunk in _png_chunks(data) if chunk[0] != b"eXIf"]
        return data[:8] + b"".join(_png_chunk(*c) for c in (first, (b"eXIf", exif), *rest)), told
    return damage(rng, data, times)
