"""The inputs of the golden pack: pictures and strings of the kinds on which preprocessing tends to differ."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset
from pocketvl.tasks.contrastive_metrics import label_prompts
from pocketvl_runtime.image import open_image

_ORIENTATION = 0x0112
_NAMES = {"JPEG": "plain.jpg", "PNG": "plain.png"}
# What Pillow reports of a file beside its pixels and yet says nothing of who took it, where or with what.
_HARMLESS = {
    "jfif",
    "jfif_version",
    "jfif_unit",
    "jfif_density",
    "dpi",
    "progressive",
    "progression",  # another name for progressive
    "transparency",
}

HARD_STRINGS = (
    "A PHOTO  of\ta RED Circle",
    "cafe\u0301 na\u00efve \u2014 d\u00e9j\u00e0 vu",
    "\u4e00\u53ea\u5728\u684c\u5b50\u4e0a\u7684\u732b",
    "\U0001f534 left of \U0001f7e6 \U0001f468\u200d\U0001f469\u200d\U0001f467",
    "3.14, 50% & <b>bold</b>?!",
    "a very long description of a table " * 12,
)


def golden_images(dataset: Dataset) -> dict[str, bytes]:
    """Six pictures made from a dataset's first ones: file name -> bytes; the same dataset, the same bytes.

    Nothing but pixels gets in: no camera, no place, no colour profile.

    Raises:
        InputError: a picture cannot be used.
    """
    pictures = [dataset.samples[k % len(dataset)].image for k in range(6)]
    upright = [_bare(path) for path in pictures]
    makers: tuple[tuple[str, Callable[[Image.Image], bytes]], ...] = (
        ("wide-grey.jpg", _wide_grey),
        ("alpha.png", _alpha),
        ("turned.jpg", _turned),
        ("tiny-palette.png", _tiny_palette),
        ("huge.jpg", _huge),
    )
    name, content = _plain(pictures[0], upright[0])
    return {name: content} | {
        name: make(image) for (name, make), image in zip(makers, upright[1:], strict=True)
    }


def golden_texts(dataset: Dataset) -> tuple[str, ...]:
    """Twelve strings: a dataset's captions, or its labels, filled up with plain ones, then the hard ones."""
    captions = list(dict.fromkeys(s.captions[0] for s in dataset.samples if s.captions))
    plain = [f"a photo of number {k}" for k in range(1, 7)]
    texts = list(dict.fromkeys([*(captions or label_prompts(dataset).values()), *plain]))
    return (*texts[:6], *HARD_STRINGS)


def _bare(path: Path) -> Image.Image:
    image = open_image(path)
    image.info.clear()  # Pillow writes some of it again
    return image


def _plain(path: Path, upright: Image.Image) -> tuple[str, bytes]:
    """A picture's own bytes where they are a JPEG or PNG without EXIF and its like; else written anew."""
    with Image.open(path) as opened:
        opened.load()  # a PNG may tell more behind its pixels
        kind = str(opened.format)
        bare = not opened.getexif() and set(opened.info) <= _HARMLESS
    if bare and kind in _NAMES:
        return _NAMES[kind], path.read_bytes()
    if kind in ("JPEG", "MPO"):
        return _NAMES["JPEG"], _encoded(upright, "JPEG", quality=92)
    return _NAMES["PNG"], _encoded(upright, "PNG")


def _encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def _wide_grey(image: Image.Image) -> bytes:
    wide = image.convert("L").resize((211, 97), Image.Resampling.BILINEAR)
    return _encoded(wide, "JPEG", quality=88)


def _alpha(image: Image.Image) -> bytes:
    picture = image.resize((90, 123), Image.Resampling.BILINEAR).convert("RGBA")
    fade = np.linspace(0, 255, picture.width, dtype=np.uint8)[None].repeat(picture.height, axis=0)
    picture.putalpha(Image.fromarray(fade))
    return _encoded(picture, "PNG")


def _turned(image: Image.Image) -> bytes:
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    return _encoded(image.resize((160, 120), Image.Resampling.BILINEAR), "JPEG", quality=90, exif=exif)


def _tiny_palette(image: Image.Image) -> bytes:
    return _encoded(image.resize((5, 3), Image.Resampling.BOX).quantize(8), "PNG")


def _huge(image: Image.Image) -> bytes:
    return _encoded(image.resize((2592, 1944), Image.Resampling.BICUBIC), "JPEG", quality=60)
