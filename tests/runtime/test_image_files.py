"""What is taken as a picture: transparency, 16 bits, arrays, file objects, large photos."""

from __future__ import annotations

import importlib.util
import io
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import AvifImagePlugin, Image, ImageOps

from pocketvl_runtime.errors import InputError
from pocketvl_runtime.image import load_pixels, max_pixels, open_image, preprocess
from pocketvl_runtime.manifest import MAX_PIXELS
from tests.runtime.bundles import picture
from tests.runtime.test_image import ORIENTATION, reference, shortest

SPEC = shortest(16, (16, 16))
WIDE = np.array([0, 1, 128, 129, 255, 256, 257, 385, 386, 1000, 32767, 32768, 65406, 65407, 65535], np.uint16)
NARROW = np.array([0, 0, 0, 1, 1, 1, 1, 1, 2, 4, 127, 128, 254, 255, 255], np.uint8)  # round(WIDE / 257)


def encoded(image: Image.Image, fmt: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, fmt, **options)
    return out.getvalue()


def png(width: int, depth: int, colour: int, row: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of one row, of kinds that Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
    joined = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(joined)


def faded(mode: str) -> Image.Image:
    """A picture whose transparency goes from nothing to all, and that is not white below it."""
    image = picture((37, 21), seed=3).convert("RGBA")
    image = image.convert("P") if mode == "PA" else image
    image = image.convert(mode)
    image.putalpha(Image.fromarray(np.linspace(0, 255, 37 * 21).astype(np.uint8).reshape(21, 37)))
    assert image.mode == mode
    return image


# --- transparency --------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", [None, 6])
@pytest.mark.parametrize(
    ("fmt", "mode"),
    [
        ("PNG", "RGBA"),
        ("PNG", "LA"),
        ("WEBP", "RGBA"),
        ("TIFF", "RGBA"),
        ("TIFF", "LA"),
        ("TIFF", "PA"),
        ("JPEG2000", "RGBA"),
        ("JPEG2000", "LA"),
    ],
)
def test_alpha_of_a_file_is_laid_on_white_as_by_transformers(
    fmt: str, mode: str, orientation: int | None
) -> None:
    options: dict[str, Any] = {"lossless": True} if fmt == "WEBP" else {}
    if orientation is not None:
        if fmt == "JPEG2000":
            pytest.skip("Pillow writes no EXIF data into JPEG 2000")
        options["exif"] = Image.Exif()
        options["exif"][ORIENTATION] = orientation
    data = encoded(faded(mode), fmt, **options)
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.mode == mode
        expected = reference(opened, SPEC)
    with Image.open(io.BytesIO(data)) as opened:  # the reference turned a TIFF in place
        np.testing.assert_array_equal(load_pixels(opened, SPEC), expected)
    np.testing.assert_array_equal(load_pixels(data, SPEC), expected)
    assert open_image(data).info == {}
    assert np.asarray(open_image(data))[0, -1 if orientation else 0].tolist() == [255, 255, 255]


def test_a_black_logo_on_transparency_is_black_on_white() -> None:
    logo = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    logo.paste((0, 0, 0, 255), (16, 16, 48, 48))
    for image in (logo, logo.convert("LA"), encoded(logo, "PNG"), encoded(logo.convert("LA"), "PNG")):
        pixels = np.asarray(open_image(image))
        assert pixels[0, 0].tolist() == [255, 255, 255]
        assert pixels[32, 32].tolist() == [0, 0, 0]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_few_bits_equals_transformers(depth: int) -> None:
    for key in range(2**depth):
        data = png(8, depth, 0, bytes(range(8)), (b"tRNS", struct.pack(">H", key)))
        with Image.open(io.BytesIO(data)) as opened:
            np.testing.assert_array_equal(load_pixels(data, SPEC), reference(opened, SPEC))


def test_a_transparent_colour_of_16_bits_equals_transformers() -> None:
    data = png(2, 16, 2, bytes(range(12)), (b"tRNS", bytes(range(6))))
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(load_pixels(data, SPEC), reference(opened, SPEC))


@pytest.mark.parametrize("mode", ["La", "RGBa"])
def test_premultiplied_alpha_is_laid_on_white(mode: str) -> None:
    plain = faded("LA" if mode == "La" else "RGBA")
    given, expected = np.asarray(open_image(plain.convert(mode)), int), np.asarray(open_image(plain), int)
    assert np.abs(given - expected).max() <= 1


# --- 16 bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_sixteen_bits_are_scaled_to_eight(mode: str) -> None:
    stored = WIDE.astype(">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (len(WIDE), 1), stored.tobytes())
    np.testing.assert_array_equal(np.asarray(open_image(image))[0], NARROW[:, None].repeat(3, 1))
    np.testing.assert_array_equal(preprocess(image, SPEC), preprocess(open_image(image), SPEC))


@pytest.mark.parametrize("fmt", ["PNG", "TIFF", "JPEG2000", "PPM", "big-endian TIFF", "LZW TIFF"])
def test_sixteen_bit_files_are_scaled_to_eight(fmt: str, tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(WIDE, (15, 1)))
    options: dict[str, Any] = {"compression": "tiff_lzw"} if fmt == "LZW TIFF" else {}
    if fmt == "big-endian TIFF":
        image = Image.frombytes("I;16B", image.size, np.tile(WIDE, (15, 1)).astype(">u2").tobytes())
    (tmp_path / "wide").write_bytes(encoded(image, fmt.split()[-1], **options))
    grey = np.asarray(open_image(tmp_path / "wide"))
    np.testing.assert_array_equal(grey, np.tile(NARROW[:, None], (15, 1, 3)))
    with Image.open(tmp_path / "wide") as opened:
        np.testing.assert_array_equal(np.asarray(open_image(opened)), grey)


def test_one_transparent_grey_of_sixteen_bits_is_white() -> None:
    row = WIDE.astype(">u2").tobytes()
    data = png(len(WIDE), 16, 0, row, (b"tRNS", struct.pack(">H", 257)))
    expected = np.where(WIDE == 257, 255, NARROW)
    np.testing.assert_array_equal(np.asarray(open_image(data))[0, :, 0], expected)


@pytest.mark.parametrize(("colour", "bands"), [(2, 3), (4, 2), (6, 4)])
def test_sixteen_bit_colours_and_alpha_are_what_pillow_reads(colour: int, bands: int) -> None:
    data = png(4, 16, colour, np.random.default_rng(0).bytes(4 * 2 * bands))
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(load_pixels(data, SPEC), reference(opened, SPEC))


def tiff(bits: int, photometric: int, row: bytes, width: int) -> bytes:
    """A TIFF of one row of unsigned grey, of kinds that Pillow does not write."""
    tags = {256: width, 257: 1, 258: bits, 259: 1, 262: photometric, 273: 122, 277: 1, 278: 1, 279: len(row)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4) + row


@pytest.mark.parametrize(
    ("bits", "photometric", "row", "expected"),
    [
        (16, 1, struct.pack("<4H", 0, 257, 32768, 65535), [0, 1, 128, 255]),
        (16, 0, struct.pack("<4H", 0, 257, 32768, 65535), [255, 254, 127, 0]),  # 0 is white
        (12, 1, bytes([0x00, 0x08, 0x00, 0xFF, 0xF0, 0x10]), [0, 128, 255, 1]),
    ],
)
def test_tiffs_of_more_than_eight_bits(bits: int, photometric: int, row: bytes, expected: list[int]) -> None:
    pixels = np.asarray(open_image(tiff(bits, photometric, row, 4)))
    assert pixels[0, :, 0].tolist() == expected


@pytest.mark.parametrize("kind", ["I", "F", "TIFF of I", "TIFF of F", "PFM"])
def test_numbers_whose_range_nobody_knows_are_refused(kind: str) -> None:
    image = Image.fromarray(np.full((4, 4), 70000, np.int32 if kind.endswith("I") else np.float32))
    given = encoded(image, "TIFF" if "TIFF" in kind else "PPM") if len(kind) > 1 else image
    numbers = "integers" if kind.endswith("I") else "floats"
    with pytest.raises(InputError, match=f"is of 32-bit {numbers}, whose range nobody knows; scale it"):
        open_image(given)


@pytest.mark.parametrize("most", [1, 100, 254, 256, 1023, 4095, 65534])
@pytest.mark.parametrize("kind", ["P5", "P6", "P2", "P3"])
def test_a_ppm_of_any_maximum_is_scaled(kind: str, most: int) -> None:
    values = np.random.default_rng(0).integers(0, most + 1, (5, 7, 3 if kind in ("P3", "P6") else 1))
    head = f"{kind}\n# made\n7 5\n{most}\n".encode()
    stored = values.astype(">u2" if most > 255 else np.uint8).tobytes()
    if kind in ("P2", "P3"):
        stored = " ".join(map(str, values.ravel())).encode()
    expected = np.broadcast_to(np.rint(values / most * 255), (5, 7, 3))
    got = np.asarray(open_image(head + stored), int)
    assert np.abs(got - expected).max() <= (kind == "P2" and most > 255)  # which Pillow scales to 16 bits


# --- arrays and file objects ---------------------------------------------------------------------


def test_arrays_are_taken_as_pillow_takes_them() -> None:
    rgba = np.asarray(faded("RGBA"))
    for array in (
        rgba[..., :3],
        rgba,
        rgba[..., 0],
        rgba[::-1, ::2, :3],
        np.asfortranarray(rgba[..., 2::-1]),
    ):
        expected = load_pixels(Image.fromarray(np.ascontiguousarray(array)), SPEC)
        np.testing.assert_array_equal(load_pixels(array, SPEC), expected)


def test_what_is_made_of_an_array_does_not_change_with_it() -> None:
    array = np.zeros((4, 4, 3), np.uint8)
    opened = open_image(array)
    array[:] = 255
    assert np.asarray(opened).max() == 0


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint16),
        np.zeros((4, 4), bool),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((4, 4, 2), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((4, 4, 3), object),
    ],
)
def test_other_arrays_are_refused_with_what_is_taken(array: npt.NDArray[Any]) -> None:
    with pytest.raises(InputError, match=r"is an array of .*; give uint8 \[H, W, 3\] \(RGB\), \[H, W, 4\]"):
        open_image(array)


def test_arrays_have_the_limits_of_pictures() -> None:
    with pytest.raises(InputError, match=r"has no pixels \(0 x 5\)"):
        open_image(np.zeros((5, 0, 3), np.uint8))
    with pytest.raises(InputError, match=f"more than {MAX_PIXELS} pixels"):
        open_image(np.broadcast_to(np.zeros(3, np.uint8), (10_000, 10_000, 3)))


@pytest.mark.parametrize("given", [None, 7, [], {"a": 1}, 1.5])
def test_what_cannot_be_a_picture_is_refused_with_what_is_taken(given: Any) -> None:
    with pytest.raises(InputError, match=f"is of type {type(given).__name__}; give a path, the bytes"):
        open_image(given)


def test_files_are_read_whole_and_left_where_they_stood(tmp_path: Path) -> None:
    data = encoded(picture((40, 30)), "PNG")
    expected = load_pixels(data, SPEC)
    (tmp_path / "a.png").write_bytes(data)
    written = io.BytesIO()
    picture((40, 30)).save(written, "PNG")  # stands at its end
    with (tmp_path / "a.png").open("rb") as buffered, (tmp_path / "a.png").open("rb", buffering=0) as raw:
        buffered.seek(7)
        for file in (written, buffered, raw):
            place = file.tell()
            np.testing.assert_array_equal(load_pixels(file, SPEC), expected)
            assert file.tell() == place
    np.testing.assert_array_equal(load_pixels(bytearray(data), SPEC), expected)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be read"):
        open_image(buffered)


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    data = encoded(picture((400, 300)), "PNG")
    code = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read())"
    (tmp_path / "a.png").write_bytes(data)
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "a.png"], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert open_image(process.stdout).size == (400, 300)


def test_files_of_text_and_without_end_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with (tmp_path / "a.txt").open() as text, pytest.raises(InputError, match="open it for binary reading"):
        open_image(text)  # type: ignore[arg-type]
    with (
        Path("/dev/zero").open("rb") as endless,
        pytest.raises(InputError, match="has 256000001 bytes, more than"),
    ):
        open_image(endless)
    with pytest.raises(InputError, match="is empty"):
        open_image(io.BytesIO())


# --- AVIF and HEIF -------------------------------------------------------------------------------


@pytest.mark.skipif(not AvifImagePlugin.SUPPORTED, reason="this Pillow is built without AVIF")
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_avif_equals_transformers(mode: str) -> None:
    given = Image.Exif()
    given[ORIENTATION] = 6
    data = encoded(faded("RGBA").convert(mode), "AVIF", exif=given)
    with Image.open(io.BytesIO(data)) as opened:
        np.testing.assert_array_equal(load_pixels(data, SPEC), reference(opened, SPEC))
    assert open_image(data).size == (21, 37)
    for kept in (0.3, 0.9):
        with pytest.raises(InputError, match="is damaged or truncated|is not a picture"):
            open_image(data[: int(len(data) * kept)])


HEIF_HEAD = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is not None, reason="pillow-heif is installed")
@pytest.mark.parametrize("data", [HEIF_HEAD, HEIF_HEAD.replace(b"ftypheic", b"ftypmif1")])
def test_heif_without_its_package_is_refused_with_its_name(data: bytes) -> None:
    with pytest.raises(InputError, match=r"is a HEIF \(HEIC\); pip install pillow-heif to read it"):
        open_image(data)


@pytest.mark.skipif(
    importlib.util.find_spec("pillow_heif") is None, reason="needs pillow-heif, which is optional"
)
def test_heif_with_its_package_is_read_upright() -> None:
    importlib.import_module("pillow_heif").register_heif_opener()
    given = Image.Exif()
    given[ORIENTATION] = 6
    smooth = picture((6, 4)).resize((60, 40), Image.Resampling.BICUBIC)
    opened = open_image(encoded(smooth, "HEIF", quality=100, exif=given.tobytes()))
    assert opened.size == (40, 60)
    expected = np.asarray(smooth.transpose(Image.Transpose.ROTATE_270), int)
    assert np.abs(np.asarray(opened, int) - expected).mean() < 6
    with pytest.raises(InputError, match="is damaged or truncated|is not a picture"):
        open_image(HEIF_HEAD)


def test_other_files_of_boxes_are_no_pictures() -> None:
    with pytest.raises(InputError, match="is not a picture of a known format"):
        open_image(b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100))


# --- large photos --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo_of_108_megapixels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12000 x 9000, sharp at every scale: noise of few and of many pixels, and edges."""
    path = tmp_path_factory.mktemp("large") / "photo.jpg"
    image = picture((120, 90)).resize((12_000, 9_000), Image.Resampling.NEAREST)
    for size, seed in ((1500, 1), (300, 2)):
        detail = picture((size, size), seed=seed)
        for left in range(0, 12_000, 3_000):
            image.paste(detail.resize((1500, 1500), Image.Resampling.NEAREST), (left, 3000 + size))
    image.save(path, quality=92)
    return path


@pytest.mark.slow
def test_a_photo_of_108_megapixels_is_taken_at_half_its_size(photo_of_108_megapixels: Path) -> None:
    """The difference to the full decoding: 0.05 of 255 grey levels on average, 2 at most, at sharp edges."""
    spec = shortest(224, (224, 224))
    opened = open_image(photo_of_108_megapixels)
    assert opened.size == (6000, 4500)
    with Image.open(photo_of_108_megapixels) as whole:
        whole.load()
        expected = preprocess(ImageOps.exif_transpose(whole), spec)
    difference = np.abs(preprocess(opened, spec).astype(int) - expected)
    assert 0 < difference.mean() <= 0.2
    assert difference.max() <= 4
    np.testing.assert_array_equal(open_image(photo_of_108_megapixels.read_bytes()), opened)


def test_a_large_photo_takes_a_quarter_of_the_memory_of_its_pixels(photo_of_108_megapixels: Path) -> None:
    code = (
        "import sys; from PIL import Image; from pocketvl_runtime.process import peak_rss_bytes\n"
        "from pocketvl_runtime.image import load_pixels; from pocketvl_runtime.manifest import *\n"
        "one = (1.0, 1.0, 1.0)\n"
        "edge, norm = ResizeMode.SHORTEST_EDGE, Normalization(one, one, 1.0)\n"
        "spec = ImageProcessor.bicubic(edge, (224, 224), (224, 224), norm)\n"
        "Image.preinit(); before = peak_rss_bytes()\n"
        "load_pixels(sys.argv[1], spec); print(peak_rss_bytes() - before)\n"
    )
    command = [sys.executable, "-c", code, str(photo_of_108_megapixels)]
    peak = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert 0.9 < peak / 108e6 < 1.4  # bytes for each pixel of the file


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_fits_is_decoded_at_its_own_size(progressive: bool) -> None:
    data = encoded(picture((3000, 2000)), "JPEG", progressive=progressive)
    with Image.open(io.BytesIO(data)) as whole:
        np.testing.assert_array_equal(open_image(data), whole)


def test_the_limit_of_pixels_can_be_set(
    photo_of_108_megapixels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert max_pixels() == 250_000_000
    monkeypatch.setenv("POCKETVL_MAX_PIXELS", "100000000")
    with pytest.raises(
        InputError, match="12000 x 9000, more than 100000000 pixels; .*raise POCKETVL_MAX_PIXELS"
    ):
        open_image(photo_of_108_megapixels)
    monkeypatch.setenv("POCKETVL_MAX_PIXELS", "1000")
    with pytest.raises(InputError, match="40 x 30, more than 1000 pixels; make it smaller first"):
        open_image(picture((40, 30)))
    for value in ("many", "-1", "0", "1e9", "9" * 30):
        monkeypatch.setenv("POCKETVL_MAX_PIXELS", value)
        with pytest.raises(InputError, match="POCKETVL_MAX_PIXELS is .*; set it to a number of pixels"):
            open_image(picture((40, 30)))


def test_a_large_photo_opened_by_pillow_is_refused_with_advice(photo_of_108_megapixels: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = Image.open(photo_of_108_megapixels)
    with opened, pytest.raises(InputError, match=f"more than {MAX_PIXELS} pixels; hand in its path"):
        open_image(opened)
