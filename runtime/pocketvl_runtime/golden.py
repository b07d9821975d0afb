"""The golden pack of a bundle: inputs with the pixels, ids and embeddings that they must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.files import read_file
from pocketvl_runtime.manifest import MAX_JSON_BYTES, Role, check_relative_path
from pocketvl_runtime.schema import decode, dump_json, parse_json

GOLDEN_SCHEMA_VERSION = 1
GOLDEN_FILE = "golden/golden.json"


@dataclass(frozen=True)
class GoldenImage:
    """A picture, the pixels preprocessing must make of it, and its embedding by torch in fp32.

    Attributes:
        file: the original JPEG or PNG, relative to the bundle.
        pixels: lossless PNG of the expected uint8 [H, W, 3], relative to the bundle.
        embedding: float32 values [D].
    """

    file: str
    pixels: str
    embedding: tuple[float, ...]

    def __post_init__(self) -> None:
        check_relative_path(self.file)
        check_relative_path(self.pixels)


@dataclass(frozen=True)
class GoldenText:
    """A text, the ids [T] it must give, padding included, and its embedding [D] by torch in fp32."""

    text: str
    ids: tuple[int, ...]
    embedding: tuple[float, ...]


@dataclass(frozen=True)
class Tolerance:
    """How far an embedding may be from torch's: largest absolute difference (None: any), least cosine."""

    max_abs: float | None
    cosine_min: float


@dataclass(frozen=True)
class Golden:
    """golden/golden.json; `tolerance` is per variant and role."""

    images: tuple[GoldenImage, ...]
    texts: tuple[GoldenText, ...]
    tolerance: Mapping[str, Mapping[Role, Tolerance]]
    schema_version: int = GOLDEN_SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != GOLDEN_SCHEMA_VERSION:
            raise BundleError(
                f"schema_version is {self.schema_version}, and this runtime knows only "
                f"{GOLDEN_SCHEMA_VERSION}; install the pocketvl-runtime that the bundle was made for"
            )

    @classmethod
    def from_json(cls, text: str | bytes, where: str = GOLDEN_FILE) -> Golden:
        """Parses and checks a golden.json.

        Raises:
            BundleError: it is not JSON or not valid; the message names `where` and the key path.
        """
        return decode(cls, parse_json(text, where), where)

    @classmethod
    def read(cls, path: Path) -> Golden:
        """Reads and checks a golden.json.

        Raises:
            BundleError: it cannot be read or is not valid.
        """
        try:
            text = read_file(path, MAX_JSON_BYTES)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        return cls.from_json(text, str(path))

    def to_json(self) -> str:
        """As text: sorted keys, indent 1, trailing newline."""
        return dump_json(self)

    def write(self, path: Path) -> None:
        """Writes golden.json, making its folder if needed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8", newline="\n")
