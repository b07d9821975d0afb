"""Write pictures and the pixels that the runtime makes of them, for the tests of the Android core.

    python -m tests.android.write_pictures OUT --count 500 --seed 1 --photos ../shared/data/photos

`OUT/pictures.json` lists the cases; `OUT/pictures.bin` holds zlib streams, one behind the other: sources, uint32
0xAARRGGBB in little-endian order, row-major, as a decoder gives them, before they are turned; and pixels, uint8
[H, W, 3]. Sources of pictures up to 4,000 pixels a side are `waves`, which the Java side computes. What is expected is
the runtime's, or, of steps that it does not run yet, that of `image_reference`; a case says which. One without pixels
is refused.
"""

from __future__ import annotations

import io
import json
import random
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
from numpy.typing import NDArray

from pocketvl_runtime.errors import ImageWarning, InputError
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Filter, ImageProcessor
from pocketvl_runtime.obstacles import processor_obstacle
from pocketvl_runtime.schema import encode
from tests.android.image_reference import reference_pixels
from tests.android.picture_cases import (
    Pictured,
    clip,
    decoded,
    large_picture,
    other_processor,
    runnable_processor,
    small_picture,
    stretched,
)

LIST_FILE, DATA_FILE = "pictures.json", "pictures.bin"
_LARGE_EVERY = 12
_PHOTO_PROCESSORS = (
    clip(224), stretched(224, 224, Filter.BILINEAR), clip(80), stretched(96, 96, Filter.LANCZOS),
    stretched(48, 64, Filter.HAMMING), clip(224), clip(56, Filter.BOX), stretched(384, 384, Filter.BICUBIC),
)  # fmt: skip


@dataclass(frozen=True)
class PictureCase:
    """A picture and what becomes of it."""

    name: str
    picture: Pictured
    processor: ImageProcessor


def drawn_cases(count: int, seed: int, largest: int) -> Iterator[PictureCase]:
    """Cases of a seed: the first ones are the same, however many are asked for."""
    for number in range(count):
        rng = random.Random(f"{seed} {number}")
        large = number % _LARGE_EVERY == 0
        picture = large_picture(rng, number // _LARGE_EVERY, largest) if large else small_picture(rng, largest)
        draw = runnable_processor if large or rng.random() < 0.65 else other_processor
        processor = draw(rng, largest)
        yield PictureCase(f"{number} {picture.mode}", picture, processor)


def photo_cases(folder: Path) -> Iterator[PictureCase]:
    """One case for each JPEG in a folder, with its subfolders."""
    for number, path in enumerate(sorted(folder.rglob("*.jpg"))):
        processor = _PHOTO_PROCESSORS[number % len(_PHOTO_PROCESSORS)]
        yield PictureCase(path.relative_to(folder).as_posix(), decoded(path.read_bytes()), processor)


def expected_pixels(case: PictureCase) -> tuple[NDArray[np.uint8] | None, str]:
    """The pixels, None where the picture is refused, and whose they are: "runtime" or "reference"."""
    by_runtime = processor_obstacle(case.processor) is None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImageWarning)  # of orientations that turn nothing
            if by_runtime:
                return load_pixels(case.picture.source, case.processor), "runtime"
        return reference_pixels(case.picture.argb, case.picture.orientation, case.processor), "reference"
    except InputError as error:
        if "so elongated" not in str(error):
            raise
        return None, "runtime" if by_runtime else "reference"


def write_case(case: PictureCase, data: BinaryIO) -> dict[str, Any]:
    """Writes a case's arrays, and gives its entry of the list."""
    argb, pictured = case.picture.argb, case.picture
    pixels, author = expected_pixels(case)
    entry: dict[str, Any] = {
        "name": case.name,
        "width": argb.shape[1],
        "height": argb.shape[0],
        "orientation": pictured.orientation,
        "processor": encode(case.processor),
        "expected_by": author,
    }
    if pictured.waves is None:
        entry["source"] = _stored(np.ascontiguousarray(argb, "<u4").tobytes(), data)
    else:
        entry["waves"] = {"seed": pictured.waves, "opaque": pictured.mode == "RGB"}
    if pixels is not None:
        entry["pixels"] = _stored(pixels.tobytes(), data)
    return entry


def _stored(content: bytes, data: BinaryIO) -> dict[str, int]:
    packed = zlib.compress(content, 9)
    place = {"offset": data.tell(), "bytes": len(packed)}
    data.write(packed)
    return place


@click.command()
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@click.option("--count", default=500, show_default=True, help="Cases that are drawn.")
@click.option("--seed", default=1, show_default=True)
@click.option("--largest", default=4000, show_default=True, help="Pixels of a side, of pictures and of what they become, at most.")
@click.option("--photos", type=click.Path(path_type=Path), help="A folder of JPEGs, taken where it is there.")
def main(out: Path, count: int, seed: int, largest: int, photos: Path | None) -> None:
    """Write the pack."""
    out.mkdir(parents=True, exist_ok=True)
    cases = [drawn_cases(count, seed, largest)]
    if photos is not None and photos.is_dir():
        cases.append(photo_cases(photos))
    with (out / DATA_FILE).open("wb") as data:
        entries = [write_case(case, data) for group in cases for case in group]
    lines = ",\n".join(json.dumps(entry) for entry in entries)
    (out / LIST_FILE).write_text(f'{{"cases": [\n{lines}\n]}}\n', "utf-8")
    click.echo(f"{len(entries)} pictures, {(out / DATA_FILE).stat().st_size / 1e6:.1f} MB, in {out}")


if __name__ == "__main__":
    main()
