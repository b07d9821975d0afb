"""The golden pack of a bundle: inputs with the pixels, ids, embeddings and answers that they must give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketvl_runtime.errors import BundleError, quoted
from pocketvl_runtime.files import read_file
from pocketvl_runtime.manifest import MAX_JSON_BYTES, Role, Status, check_relative_path
from pocketvl_runtime.schema import decode, dump_json, parse_json

GOLDEN_SCHEMA_VERSION = 2
"""1 had no answers."""

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
class Scores:
    """One golden picture's similarities [N], and the probabilities [N] that follow, by torch in fp32."""

    similarity: tuple[float, ...]
    probability: tuple[float, ...]


@dataclass(frozen=True)
class AnswerTolerance:
    """How far a variant's scores may be from torch's, and the status it was given.

    Attributes:
        similarity, probability: largest absolute difference.
        status: decides whether the variant is taken by default.
    """

    similarity: float
    probability: float
    status: Status


@dataclass(frozen=True)
class GoldenAnswers:
    """What match and classify answer about the golden pictures, and what of the manifest that follows from.

    No checksum covers the manifest. Its fields that change answers stand here again, behind the checksum of
    golden.json, and must be the same there.

    Attributes:
        space: which space the golden embeddings lie in.
        logit_scale, labels, label_template: as in the manifest.
        match: of each picture, scores of the golden texts, in order.
        classify: of each picture, scores of the labels, in order.
        tolerance: per variant, for both tasks.
    """

    space: str
    logit_scale: float
    labels: tuple[str, ...]
    label_template: str
    match: tuple[Scores, ...]
    classify: tuple[Scores, ...]
    tolerance: Mapping[str, AnswerTolerance]

    @property
    def count(self) -> int:
        """How many answers there are, one a picture and task."""
        return len(self.match) + len(self.classify)


@dataclass(frozen=True)
class Golden:
    """golden/golden.json; `tolerance` is per variant and role. A pack of schema version 1 has no answers."""

    images: tuple[GoldenImage, ...]
    texts: tuple[GoldenText, ...]
    tolerance: Mapping[str, Mapping[Role, Tolerance]]
    answers: GoldenAnswers | None = None
    schema_version: int = GOLDEN_SCHEMA_VERSION

    def __post_init__(self) -> None:
        if self.answers is not None:
            self._check_counts("match", self.answers.match, len(self.texts))
            self._check_counts("classify", self.answers.classify, len(self.answers.labels))

    def _check_counts(self, task: str, rows: tuple[Scores, ...], asked: int) -> None:
        pictures = len(self.images) if asked else 0
        if len(rows) != pictures:
            raise BundleError(f"answers.{task} has {len(rows)} pictures where {pictures} are wanted")
        if any(len(values) != asked for row in rows for values in (row.similarity, row.probability)):
            raise BundleError(f"answers.{task} must have {asked} scores of each picture")

    @classmethod
    def from_json(cls, text: str | bytes, where: str = GOLDEN_FILE) -> Golden:
        """Parses and checks a golden.json.

        Raises:
            BundleError: it is not JSON, of a schema version this runtime does not know, or not valid; the
                message names `where` and the key path.
        """
        value = parse_json(text, where)
        if isinstance(value, dict):
            version = value.get(
                "schema_version", GOLDEN_SCHEMA_VERSION
            )  # where it is missing, `decode` says so
            if version not in (1, GOLDEN_SCHEMA_VERSION) or isinstance(version, bool):
                raise BundleError(
                    f"{where}: schema_version is {quoted(version)}, and this runtime knows only 1 and "
                    f"{GOLDEN_SCHEMA_VERSION}; install the pocketvl-runtime that the bundle was made for"
                )
            if version == 1:
                value.setdefault("answers", None)
        return decode(cls, value, where)

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
