"""Pictures whose EXIF data are damaged: turned as they ask, or taken as they lie with a warning."""

from __future__ import annotations

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from pocketvl_runtime.errors import ImageWarning
from pocketvl_runtime.image import open_image
from pocketvl_runtime.image_source import decoding
from tests.runtime.bundles import picture
from tests.runtime.test_image import ORIENTATION
from tests.runtime.test_image_files import encoded


def exif(*entries: tuple[int, int, int, int], order: str = "<", count: int | None = None) -> bytes:
    """EXIF data of entries (tag, type, count, value or offset); `count` says how many there were."""
    head = b"II*\0\x08\0\0\0" if order == "<" else b"MM\0*\0\0\0\x08"
    stored = b"".join(
        struct.pack(order + "HHI", *entry[:3])
        + (struct.pack(order + "HH", entry[3], 0) if entry[1] == 3 else struct.pack(order + "I", entry[3]))
        for entry in entries
    )
    number = len(entries) if count is None else count
    return (
        b"Exif\0\0" + head + struct.pack(order + "H", number) + stored + b"\0" * 4 + struct.pack("<ii", -1, 0)
    )


TURNED = (ORIENTATION, 3, 1, 6)
BAD_RATIONAL = (0x11A, 10, 1, 38)  # -1 / 0


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "data",
    [
        exif(TURNED),
        exif(TURNED, order=">"),
        exif(TURNED, BAD_RATIONAL),
        exif(BAD_RATIONAL, TURNED),
        exif((ORIENTATION, 4, 1, 6)),  # LONG
        exif((ORIENTATION, 9, 1, 6)),  # SLONG
        exif(TURNED, (0x11A, 5, 1, 2**31)),  # beyond its end
        exif(TURNED, (0x10F, 2, 2**31, 8)),  # a string of 2 GB
        exif(TURNED, (0x8769, 4, 1, 2**31)),  # a directory beyond its end
        exif(TURNED, (0x8769, 4, 1, 8)),  # a directory within itself
        exif(TURNED, (0x8825, 2, 4, 0)),
        exif(TURNED, (0x9999, 77, 1, 0)),  # of no known type
        exif(TURNED, count=9)[:-12],  # cut off behind the orientation
    ],
)
def test_a_bad_value_in_exif_data_does_not_keep_a_picture_from_being_turned(data: bytes, fmt: str) -> None:
    stored = encoded(picture((60, 40)), fmt, exif=data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(stored).size == (40, 60)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Image.open(io.BytesIO(stored))
    with opened:
        assert open_image(opened).size == (40, 60)


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (exif((ORIENTATION, 3, 1, 9)), "orientation 9 is none of 1 to 8"),
        (exif((ORIENTATION, 2, 2, ord("6"))), "orientation '6' is none of 1 to 8"),
        (exif((ORIENTATION, 1, 1, 6)), "is none of 1 to 8"),  # BYTE
        (exif((ORIENTATION, 10, 1, 26)), "orientation nan is none of 1 to 8"),  # -1 / 0
        (exif((ORIENTATION, 11, 1, 0x7FC00000)), "orientation nan is none of 1 to 8"),
        (exif(count=5), "the directory is cut off"),
        (exif(TURNED, count=9)[:20], "the directory is cut off"),
        (exif(TURNED)[:10], "damaged"),
        (b"Exif\0\0II*\0\xff\xff\xff\x7f", "the directory is cut off"),
        (b"Exif\0\0nonsense, and more of it", "damaged"),
    ],
)
def test_exif_data_that_do_not_say_how_to_turn_leave_a_picture_as_it_lies(
    data: bytes, said: str, fmt: str
) -> None:
    stored = encoded(picture((60, 40)), fmt, exif=data)
    with pytest.warns(
        ImageWarning, match="the picture: is taken as it lies, for its EXIF.*" + said
    ) as caught:
        assert open_image(stored).size == (60, 40)
    assert len(caught) == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "data", [exif(), exif((ORIENTATION, 3, 1, 0)), exif((ORIENTATION, 3, 1, 1)), b"Exif\0\0"]
)
def test_exif_data_without_a_turn_are_no_damage(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(encoded(picture((60, 40)), "JPEG", exif=data)).size == (60, 40)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
def test_a_bad_directory_of_a_tiff_is_not_read(compression: str) -> None:
    tags = {ORIENTATION: 6, 0x8769: 8, 0x8825: 8}
    stored = encoded(picture((60, 40)), "TIFF", tiffinfo=tags, compression=compression)
    for tag in (0x8769, 0x8825):
        good, bad = struct.pack("<HHIi", tag, 4, 1, 8), struct.pack("<HHIi", tag, 9, 1, -1)  # LONG, SLONG
        assert stored.count(good) == 1
        stored = stored.replace(good, bad)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(stored).size == (40, 60)


def test_pillows_warnings_are_hidden_until_the_last_of_overlapping_threads_ends() -> None:
    before = list(warnings.filters)
    first, second = decoding("first"), decoding("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)  # as another thread may, before this one ends
    assert warnings.filters != before
    second.__exit__(None, None, None)
    assert warnings.filters == before


def test_threads_that_decode_leave_no_filters_behind() -> None:
    stored = encoded(picture((300, 200)), "JPEG", exif=exif(TURNED, BAD_RATIONAL))
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        assert {image.size for image in threads.map(open_image, [stored] * 100)} == {(200, 300)}
    assert warnings.filters == before
