"""Pictures that are none, or not whole, or meant to hurt."""

from __future__ import annotations

import io
import json
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketvl_runtime.errors import ImageWarning, InputError
from pocketvl_runtime.image import MAX_FILE_BYTES, load_pixels, open_image
from pocketvl_runtime.manifest import MAX_PIXELS
from tests.hostile.conftest import Refuses, run_command
from tests.runtime.bundles import PREPROCESS, picture


def stored(fmt: str, size: tuple[int, int] = (64, 48)) -> bytes:
    out = io.BytesIO()
    picture(size).save(out, fmt)
    return out.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9])
def test_a_truncated_picture_is_refused(fmt: str, kept: float) -> None:
    data = stored(fmt)
    with pytest.raises(InputError, match=r"is damaged or truncated|is not a picture") as caught:
        open_image(data[: int(len(data) * kept)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000"])
def test_damage_gives_a_picture_or_an_input_error_and_nothing_else(fmt: str) -> None:
    data, rng = stored(fmt), np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = rng.integers(0, 256)
        try:
            assert open_image(bytes(broken)).mode == "RGB"
        except InputError as error:
            refused += 1
            assert "\n" not in str(error).strip()
    assert refused > 0 or fmt == "BMP"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"hello",
        b"<svg/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"\xff\xd8\xff",
    ],
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(
        InputError, match=r"is empty \(0 bytes\)|is not a picture of a known format|is damaged"
    ):
        open_image(data)


@pytest.mark.parametrize(
    ("width", "height"), [(20_000, 20_000), (MAX_PIXELS + 1, 1), (1, MAX_PIXELS + 1), (2**31 - 1, 2**31 - 1)]
)
def test_a_decompression_bomb_is_refused_before_it_goes_off(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=f"more than {MAX_PIXELS} pixels; make it smaller"):
            open_image(png_of_size(width, height))


def test_a_claimed_size_without_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="is damaged or truncated"):
        open_image(png_of_size(300, 200))


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_a_picture_without_pixels_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="has no pixels"):
        load_pixels(Image.new("RGB", size), PREPROCESS)


def test_a_picture_of_one_pixel_is_a_picture() -> None:
    pixels = load_pixels(stored("PNG", (1, 1)), PREPROCESS)
    assert pixels.shape == (16, 16, 3)
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 1


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_the_command_answers_about_one_pixel(whole_bundle: Path, tmp_path: Path, mode: str) -> None:
    picture((1, 1)).convert(mode).save(tmp_path / "one.png")
    done = run_command(
        ["match", whole_bundle, "--image", tmp_path / "one.png", "--text", "a", "--text", "cube", "--json"]
    )
    assert done.returncode == 0, done.stderr
    assert abs(sum(row["probability"] for row in json.loads(done.stdout)["results"]) - 1) < 1e-9


def test_damaged_exif_is_no_traceback() -> None:
    out = io.BytesIO()
    picture((20, 10)).save(out, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f")
    with pytest.warns(ImageWarning, match="taken as it lies, for its EXIF data are damaged"):
        assert open_image(out.getvalue()).size == (20, 10)


def test_the_command_says_one_line(whole_bundle: Path, tmp_path: Path, refuses: Refuses) -> None:
    cases = {
        "missing.jpg": (None, "no such picture"),
        "empty.jpg": (b"", "is empty (0 bytes)"),
        "text.jpg": (b"not a picture", "is not a picture of a known format"),
        "short.jpg": (stored("JPEG")[:600], "is damaged or truncated"),
        "bomb.png": (png_of_size(60_000, 60_000), f"more than {MAX_PIXELS} pixels"),
    }
    for name, (data, message) in cases.items():
        path = tmp_path / name
        if data is not None:
            path.write_bytes(data)
        line = refuses(
            "match", whole_bundle, "--image", path, "--text", "a", "--json", "--variant", "onnx-fp32"
        )
        assert name in line
        assert message in line


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/dev/zero", "error: /dev/zero: cannot be read (not a regular file)"),
        ("/dev/null", "error: /dev/null: cannot be read (not a regular file)"),
        ("", "error: the path of the picture is empty"),
        (".", "error: .: cannot be read (Is a directory)"),
        ("x" * 300, "cannot be read (File name too long)"),
    ],
)
def test_what_is_no_file_is_not_read(whole_bundle: Path, path: str, message: str, refuses: Refuses) -> None:
    for more in (("match", "--text", "a"), ("embed",), ("bench", "--runs", "1")):
        line = refuses(more[0], whole_bundle, "--image", path, "--variant", "onnx-fp32", *more[1:])
        assert message in line


def test_a_pipe_is_not_waited_for(whole_bundle: Path, tmp_path: Path, refuses: Refuses) -> None:
    os.mkfifo(tmp_path / "pipe")
    line = refuses("embed", whole_bundle, "--image", tmp_path / "pipe")
    assert "pipe: cannot be read (not a regular file)" in line


def test_a_link_that_goes_round_in_circles_is_no_picture(
    whole_bundle: Path, tmp_path: Path, refuses: Refuses
) -> None:
    (tmp_path / "loop.png").symlink_to("loop.png")
    assert "loop.png: cannot be read (" in refuses("embed", whole_bundle, "--image", tmp_path / "loop.png")


def test_a_file_beyond_reason_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as sparse:
        sparse.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(InputError, match=f"has {MAX_FILE_BYTES + 1} bytes, more than {MAX_FILE_BYTES}; make"):
        open_image(path)


def test_a_folder_is_no_picture(whole_bundle: Path, tmp_path: Path, refuses: Refuses) -> None:
    line = refuses("embed", whole_bundle, "--image", tmp_path)
    assert "cannot be read (Is a directory)" in line


def test_a_file_name_that_is_not_utf8_is_no_hindrance(
    whole_bundle: Path, image: Path, refuses: Refuses
) -> None:
    odd = bytes(image.parent) + b"/\xff\xfe.png"
    try:
        Path(odd.decode("utf-8", "surrogateescape")).write_bytes(image.read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    done = run_command(["embed", whole_bundle, "--image", odd, "--variant", "onnx-fp32"])
    assert done.returncode == 0, done.stderr
    assert r"\udcff" in done.stdout
    assert "no such picture" in refuses(
        "embed", whole_bundle, "--image", odd + b"x", "--variant", "onnx-fp32"
    )
