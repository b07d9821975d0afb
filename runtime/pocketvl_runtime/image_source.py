"""Whatever is handed in as a picture, opened and decoded by Pillow within the limits."""

from __future__ import annotations

import ctypes
import functools
import importlib
import io
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, UnidentifiedImageError, _imaging

from pocketvl_runtime.errors import ImageWarning, InputError, library_text
from pocketvl_runtime.files import regular_size
from pocketvl_runtime.image_limits import (
    MAX_FILE_BYTES,
    MAX_PIXELS_VARIABLE,
    MeteredStream,
    check_structure,
    max_pixels,
)
from pocketvl_runtime.manifest import MAX_PIXELS

ImageInput: TypeAlias = str | Path | bytes | IO[bytes] | npt.NDArray[np.uint8] | Image.Image

_FORMATS = ("BMP", "GIF", "JPEG", "PPM", "PNG", "WEBP", "TIFF", "JPEG2000")
_AVIF_BRANDS = frozenset([b"avif", b"avis"])
_HEIF_BRANDS = frozenset(
    [b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"]
)
_TAKEN = "a path, the bytes of a file, a file opened for binary reading, a PIL image or a numpy array"
_ARRAY_MODES = {(2, 1): "L", (3, 3): "RGB", (3, 4): "RGBA"}
_MAKE_SMALLER = "make it smaller first"
_STRIP = 2**20


def describe(image: ImageInput) -> str:
    """How errors call a picture: its path, where it has one."""
    return str(image) if isinstance(image, str | Path) else "the picture"


def load_image(image: ImageInput, what: str) -> Image.Image:
    """A decoded picture in Pillow's own mode: the caller's PIL image itself, or one that nobody else holds.

    Raises:
        InputError: it cannot be used; Pillow's own errors pass.
    """
    if isinstance(image, Image.Image):
        is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
        _check_count(image.size, _most_decoded(), what, "hand in its path" if is_jpeg else _MAKE_SMALLER)
        if image.format == "TIFF":
            _silence_libtiff()
        image.load()
        return image
    if isinstance(image, np.ndarray):
        return _from_array(image, what)
    with _stream(image, what) as stream:
        return _decode(stream, what)


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Maps whatever Pillow's decoders raise, which is of a dozen types, to one InputError."""
    try:
        with _PILLOW_WARNINGS.hidden():  # bombs are refused here; palette advice is of no use
            yield
    except (InputError, ImageWarning):
        raise
    except UnidentifiedImageError as error:
        known = ", ".join((*_FORMATS, "AVIF", "HEIF"))
        raise InputError(f"{what}: is not a picture of a known format ({known})") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{what}: has more than {MAX_PIXELS} pixels; {_MAKE_SMALLER}") from error
    except MemoryError as error:
        raise InputError(f"{what}: does not fit into memory; {_MAKE_SMALLER}") from error
    except Exception as error:
        raise InputError(f"{what}: is damaged or truncated ({library_text(error)})") from error


class _HiddenWarnings:
    """Hides Pillow's warnings while any thread decodes.

    `catch_warnings` of several threads that overlap would leave the filters of one of them behind for good.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads = 0
        self._caught = warnings.catch_warnings()

    @contextmanager
    def hidden(self) -> Iterator[None]:
        if getattr(sys.flags, "context_aware_warnings", False):  # each thread has filters of its own
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"PIL\.")
                yield
            return
        with self._lock:
            if self._threads == 0:
                self._caught = warnings.catch_warnings()
                self._caught.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._threads += 1
        try:
            yield
        finally:
            with self._lock:
                self._threads -= 1
                if self._threads == 0:
                    self._caught.__exit__(None, None, None)


_PILLOW_WARNINGS = _HiddenWarnings()


# --- what is handed in --------------------------------------------------------------------------------


def _from_array(array: npt.NDArray[np.uint8], what: str) -> Image.Image:
    mode = _ARRAY_MODES.get((array.ndim, array.shape[2] if array.ndim == 3 else 1))
    if array.dtype != np.uint8 or mode is None:
        raise InputError(
            f"{what}: is an array of {array.dtype} {list(array.shape)}; "
            "give uint8 [H, W, 3] (RGB), [H, W, 4] (RGBA) or [H, W] (grey)"
        )
    height, width = array.shape[:2]
    _check_count((width, height), _most_decoded(), what, _MAKE_SMALLER)
    return Image.frombytes(mode, (width, height), np.ascontiguousarray(array).tobytes())


def _stream(image: str | Path | bytes | IO[bytes], what: str) -> BinaryIO:
    """The bytes of a picture, not yet read where they lie in a file of a path."""
    if image == "":
        raise InputError("the path of the picture is empty")
    try:
        if isinstance(image, str | Path):
            _check_bytes(regular_size(Path(image)), what)
            return Path(image).open("rb")
        content = _content(image, what)
        _check_bytes(len(content), what)
        return io.BytesIO(content)
    except FileNotFoundError as error:
        raise InputError(f"{what}: no such picture") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{what}: cannot be read ({getattr(error, 'strerror', None) or error})") from error


def _check_bytes(size: int, what: str) -> None:
    if size == 0:
        raise InputError(f"{what}: is empty (0 bytes)")
    if size > MAX_FILE_BYTES:
        raise InputError(f"{what}: has {size} bytes, more than {MAX_FILE_BYTES}; {_MAKE_SMALLER}")


def _content(image: object, what: str) -> bytes:
    """Bytes as they are; of a file all, from its begin where it can be rewound, leaving it where it stood."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if not hasattr(image, "read"):
        raise InputError(f"{what}: is of type {type(image).__name__}; give {_TAKEN}")
    file = cast(BinaryIO, image)
    place = file.tell() if hasattr(file, "seekable") and file.seekable() else None
    if place is not None:
        file.seek(0)
    content = bytearray()
    while len(content) <= MAX_FILE_BYTES:
        part = file.read(MAX_FILE_BYTES + 1 - len(content))  # a raw file may give less than it is asked for
        if not isinstance(part, bytes):
            raise InputError(f"{what}: is a file that gives no bytes; open it for binary reading ('rb')")
        if not part:
            break
        content += part
    if place is not None:
        file.seek(place)
    return bytes(content)


# --- files --------------------------------------------------------------------------------------------


def _decode(stream: BinaryIO, what: str) -> Image.Image:
    prefix = stream.read(512)
    check_structure(stream, what)
    metered = cast(BinaryIO, MeteredStream(stream, what))
    if prefix.startswith(b"\xff\xd8\xff"):
        opened: ImageFile.ImageFile = _open_jpeg(metered)
    else:
        formats = _iso_formats(prefix, what) if prefix[4:8] == b"ftyp" else _FORMATS
        opened = Image.open(metered, formats=formats)
    _check_size(opened, what)
    _draft(opened)
    if opened.format == "TIFF":
        _prepare_tiff(opened)
    if opened.format == "PPM" and opened.tile[0][0] == "ppm":
        return _decode_ppm(opened, stream)
    opened.load()
    return opened


def _open_jpeg(stream: BinaryIO) -> ImageFile.ImageFile:
    """As `Image.open`, which would refuse what is too large before it can be asked for a smaller size."""
    try:
        return JpegImagePlugin.jpeg_factory(stream)
    except (SyntaxError, IndexError, TypeError, struct.error) as error:
        raise UnidentifiedImageError(str(error)) from error


def _draft(opened: ImageFile.ImageFile) -> None:
    """Asks libjpeg for a half, a quarter or an eighth of the size where that is above `MAX_PIXELS`.

    A JPEG has at most 65,535 pixels a side, so the shorter side of what remains has 679 or more.
    """
    width, height = opened.size
    if width * height > MAX_PIXELS:  # a JPEG: others are refused
        scale = next(s for s in (2, 4, 8) if -(-width // s) * -(-height // s) <= MAX_PIXELS)
        opened.draft(None, (width // scale, height // scale))


def _check_size(image: Image.Image, what: str) -> None:
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        _check_count(image.size, max_pixels(), what, f"{_MAKE_SMALLER}, or raise {MAX_PIXELS_VARIABLE}")
    else:
        _check_count(image.size, _most_decoded(), what, _MAKE_SMALLER)


def _most_decoded() -> int:
    """The most pixels that are held in memory."""
    return min(MAX_PIXELS, max_pixels())


def _check_count(size: tuple[int, int], most: int, what: str, advice: str) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"{what}: has no pixels ({width} x {height})")
    if width * height > most:
        raise InputError(f"{what}: is {width} x {height}, more than {most} pixels; {advice}")


def _iso_formats(prefix: bytes, what: str) -> tuple[str, ...]:
    """Whether AVIF or HEIF; the box that begins both names all kinds that the file is of."""
    box = prefix[: int.from_bytes(prefix[:4], "big")]
    brands = {box[k : k + 4] for k in (8, *range(16, len(box), 4))}
    if brands & _AVIF_BRANDS:
        if not _avif_is_supported():
            raise InputError(f"{what}: is an AVIF, which this Pillow does not read; pip install -U pillow")
        return ("AVIF",)
    if brands & _HEIF_BRANDS:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise InputError(f"{what}: is a HEIF (HEIC); pip install pillow-heif to read it") from error
        return ("HEIF",)
    raise UnidentifiedImageError("no picture")


@functools.cache
def _avif_is_supported() -> bool:
    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return False
    return AvifImagePlugin.SUPPORTED


def _prepare_tiff(opened: ImageFile.ImageFile) -> None:
    """Forgets the directories of metadata, which Pillow reads while it decodes, and silences libtiff."""
    exif = opened.getexif()
    for tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo, ExifTags.IFD.Interop):
        if tag in exif:
            del exif[tag]
    _silence_libtiff()


@functools.cache
def _silence_libtiff() -> None:
    """Takes away the handler by which Pillow's libtiff prints errors on stderr; Pillow raises them anyway.

    To redirect file descriptor 2 while a picture is decoded would swallow what other threads write.
    """
    try:
        silence = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):  # linked in statically, or without libtiff
        return
    silence.argtypes, silence.restype = [ctypes.c_void_p], ctypes.c_void_p
    silence(None)


def _decode_ppm(opened: ImageFile.ImageFile, stream: BinaryIO) -> Image.Image:
    """A binary PPM or PGM of an odd maximum, as Pillow would read it, value by value, in minutes."""
    _, _, offset, arguments = opened.tile[0]
    most = int(cast(tuple[str, int], arguments)[1])
    mode = "RGB" if opened.mode == "RGB" else "L"
    dtype = np.dtype(np.uint8 if most < 256 else ">u2")
    count = opened.width * opened.height * len(mode)
    stream.seek(offset)
    values = np.frombuffer(stream.read(count * dtype.itemsize), dtype)
    if values.size < count:
        raise ValueError("not enough image data")
    grey = np.array([min(255, round(v / most * 255)) for v in range(2 ** (8 * dtype.itemsize))], np.uint8)
    pixels = np.empty(count, np.uint8)
    for start in range(0, count, _STRIP):
        pixels[start : start + _STRIP] = grey[values[start : start + _STRIP]]
    return Image.frombytes(mode, opened.size, pixels.tobytes())
