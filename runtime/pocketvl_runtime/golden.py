"""The golden pack of a bundle: inputs with the arrays and answers that they must give."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from pocketvl_runtime.errors import BundleError
from pocketvl_runtime.files import read_file
from pocketvl_runtime.manifest import (
    BUNDLE_FORMAT,
    FORMAT_VERSION,
    MAX_JSON_BYTES,
    Manifest,
    check_relative_path,
)
from pocketvl_runtime.manifest.format1 import is_format1, upgrade_golden
from pocketvl_runtime.schema import OPTIONAL, decode, dump_json, parse_json

GOLDEN_FILE = "golden/golden.json"


@dataclass(frozen=True)
class GoldenImage:
    """A picture, and the pixels that the processor must make of it.

    Attributes:
        file: the original JPEG or PNG, relative to the bundle.
        pixels: lossless PNG of the expected uint8 [H, W, 3], relative to the bundle.
    """

    file: str
    pixels: str
    kind: Literal["image"] = "image"

    def __post_init__(self) -> None:
        check_relative_path(self.file)
        check_relative_path(self.pixels)


@dataclass(frozen=True)
class GoldenText:
    """A text, and the ids [T] that the processor must make of it, padding included."""

    text: str
    ids: tuple[int, ...]
    kind: Literal["text"] = "text"


@dataclass(frozen=True)
class GoldenAudio:
    """A sound, and the features that the processor must make of it.

    Attributes:
        file: a WAV file, relative to the bundle.
        features: the expected float32 values, little-endian, row-major, relative to the bundle.
    """

    file: str
    features: str
    kind: Literal["audio"] = "audio"

    def __post_init__(self) -> None:
        check_relative_path(self.file)
        check_relative_path(self.features)


GoldenInput: TypeAlias = GoldenImage | GoldenText | GoldenAudio


@dataclass(frozen=True)
class GoldenArray:
    """What an output must be, by torch in fp32.

    Attributes:
        inputs: of which inputs: processor -> number in `Golden.inputs`.
        shape: of the array.
        values: row-major.
    """

    inputs: Mapping[str, int]
    shape: tuple[int, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        if math.prod(self.shape) != len(self.values):
            raise BundleError(f"values has {len(self.values)} numbers, and shape is {list(self.shape)}")


@dataclass(frozen=True)
class Scores:
    """A task's answer, by torch in fp32.

    Attributes:
        inputs: about which inputs: processor -> number in `Golden.inputs`. A contrastive task names the input
            of one side; it is held against all inputs of the other, or against the labels, in order.
        probability: [N].
        similarity: cosines [N], of a contrastive task.
        answer: the likeliest label, of a task of kind labels.
    """

    inputs: Mapping[str, int]
    probability: tuple[float, ...]
    similarity: tuple[float, ...] | None = field(default=None, metadata=OPTIONAL)
    answer: str | None = field(default=None, metadata=OPTIONAL)

    def __post_init__(self) -> None:
        if self.similarity is not None and len(self.similarity) != len(self.probability):
            raise BundleError("similarity and probability differ in length")


@dataclass(frozen=True)
class Tolerance:
    """How far an array may be from torch's: largest absolute difference (None: any), least cosine."""

    max_abs: float | None
    cosine_min: float


@dataclass(frozen=True)
class AnswerTolerance:
    """How far scores may be from torch's: largest absolute differences."""

    similarity: float
    probability: float


@dataclass(frozen=True)
class VariantTolerance:
    """A variant's tolerances, by "component.port" and by task."""

    ports: Mapping[str, Tolerance]
    answers: Mapping[str, AnswerTolerance]


@dataclass(frozen=True)
class Golden:
    """golden/golden.json.

    Attributes:
        inputs: by processor.
        outputs: by "component.port".
        answers: by task; None in a pack of format 1 that was made before answers stood in it.
        tolerance: by variant.
    """

    inputs: Mapping[str, tuple[GoldenInput, ...]]
    outputs: Mapping[str, tuple[GoldenArray, ...]]
    answers: Mapping[str, tuple[Scores, ...]] | None
    tolerance: Mapping[str, VariantTolerance]
    version: str = FORMAT_VERSION
    format: Literal["pocketvl-golden"] = "pocketvl-golden"

    def __post_init__(self) -> None:
        for key, named in (("outputs", self.outputs), ("answers", self.answers or {})):
            for name, rows in named.items():
                for row in rows:
                    self._check_inputs(f"{key}.{name}", row.inputs)

    def _check_inputs(self, where: str, inputs: Mapping[str, int]) -> None:
        for processor, number in inputs.items():
            count = len(self.inputs.get(processor, ()))
            if not 0 <= number < count:
                raise BundleError(f"{where}: inputs.{processor} is {number}, and there are {count}")

    @property
    def images(self) -> tuple[GoldenImage, ...]:
        """The pictures among the inputs."""
        return tuple(i for each in self.inputs.values() for i in each if isinstance(i, GoldenImage))

    @property
    def sounds(self) -> tuple[GoldenAudio, ...]:
        """The sounds among the inputs."""
        return tuple(i for each in self.inputs.values() for i in each if isinstance(i, GoldenAudio))

    @property
    def texts(self) -> tuple[GoldenText, ...]:
        """The texts among the inputs."""
        return tuple(i for each in self.inputs.values() for i in each if isinstance(i, GoldenText))

    @classmethod
    def from_json(cls, text: str | bytes, manifest: Manifest, where: str = GOLDEN_FILE) -> Golden:
        """Parses and checks a golden.json; one of format 1 is upgraded.

        Raises:
            BundleError: it is not JSON, of a major version this runtime does not know, not valid, or (format
                1) not of this manifest; the message names `where` and the key path.
        """
        value = parse_json(text, where)
        if isinstance(value, dict) and is_format1(value):
            return decode(cls, upgrade_golden(value, where, manifest), where)
        try:
            newer = (
                isinstance(value, dict) and "version" in value and BUNDLE_FORMAT.is_newer(value["version"])
            )
        except BundleError as error:
            raise BundleError(f"{where}: {error}") from error
        return decode(cls, value, where, ignore_unknown=newer)

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> Golden:
        """Reads and checks a golden.json.

        Raises:
            BundleError: it cannot be read or is not valid.
        """
        try:
            text = read_file(path, MAX_JSON_BYTES)
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror})") from error
        return cls.from_json(text, manifest, str(path))

    def to_json(self) -> str:
        """As text: sorted keys, indent 1, trailing newline."""
        return dump_json(self)

    def write(self, path: Path) -> None:
        """Writes golden.json, making its folder if needed."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8", newline="\n")
