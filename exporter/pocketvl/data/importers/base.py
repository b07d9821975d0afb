"""What an importer reads out of a source: samples with a picture that is encoded as it was, and texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

from pocketvl.errors import DataError
from pocketvl_runtime.errors import quoted, shortened

TRAIN, CALIBRATION, TEST, VALIDATION = "train", "calibration", "test", "validation"
_WEB_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".avif", ".heic", ".heif")
PICTURE_SUFFIXES = frozenset((*_WEB_SUFFIXES, ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".jp2"))
_OFFICIAL = {
    "train": TRAIN,
    "training": TRAIN,
    "restval": TRAIN,  # Karpathy's: validation pictures that everybody trains on
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "testing": TEST,
}
_WORD = re.compile(r"[A-Za-z]+")


@dataclass(frozen=True)
class SourceSample:
    """One picture as a source has it.

    Attributes:
        name: where it stands in the source, for messages and for `source` in samples.jsonl.
        picture: the bytes of the encoded picture, or the file that holds them; None: there is none.
        captions: true descriptions.
        label: class name.
        split: the official one: TRAIN, VALIDATION or TEST; None where the source has none.
        problem: why there is no picture.
    """

    name: str
    picture: bytes | Path | None
    captions: tuple[str, ...] = ()
    label: str | None = None
    split: str | None = None
    problem: str = "has no picture"


@dataclass(frozen=True)
class Source:
    """What is imported.

    Attributes:
        count: how many samples there are, for progress.
        samples: all of them, in an order that is always the same; read once.
    """

    count: int
    samples: Iterator[SourceSample]


@dataclass(frozen=True)
class ReadOptions:
    """What a source does not say of itself.

    Attributes:
        images: the folder of its pictures; by default looked for beside it.
        class_names: from a folder's name or a class number to the label.
        image_column, caption_column, label_column: of tables; by default the usual names.
    """

    images: Path | None = None
    class_names: Mapping[str, str] = field(default_factory=dict)
    image_column: str | None = None
    caption_column: str | None = None
    label_column: str | None = None


Importer: TypeAlias = Callable[[Path, ReadOptions], Source]
"""Opens a source.

Raises DataError where it cannot be read; a picture that cannot is a sample with its problem."""


def official_split(name: str) -> str | None:
    """The split that a word of the field means: "val" is VALIDATION; None: it is no such word."""
    return _OFFICIAL.get(name.strip().lower())


def split_of_file(path: Path | PurePosixPath) -> str | None:
    """The split that a file's name or its folder's tells: `train-00000-of-00002.parquet`, `test/0.tar`."""
    words = [*_WORD.findall(path.name.partition(".")[0]), path.parent.name]
    return next(filter(None, map(official_split, words)), None)


def is_picture(path: PurePosixPath | Path) -> bool:
    """Whether a file's name is that of a picture; hidden files and those of macOS' archives are none."""
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in PICTURE_SUFFIXES and not hidden


def texts_of(*values: object) -> tuple[str, ...]:
    """The captions in strings, lists of strings or of objects with `raw`: each once, without margins."""
    found: dict[str, None] = {}
    for value in values:
        if isinstance(value, str):
            found[value.strip()] = None
        elif isinstance(value, Mapping):
            found |= dict.fromkeys(texts_of(*(value[k] for k in ("raw", "caption", "text") if k in value)))
        elif isinstance(value, Iterable) and not isinstance(value, bytes):
            found |= dict.fromkeys(texts_of(*value))
    return tuple(text for text in found if text and is_unicode(text))


def is_unicode(text: str) -> bool:
    """Whether a text can be written; JSON may hold halves of characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def label_of(value: object, names: Mapping[str, str]) -> str | None:
    """A class's label: as `names` has it, or its own name; None where there is none."""
    if value is None or value == -1 or isinstance(value, bool | float):  # -1: of `datasets`, unlabelled
        return None
    text = str(value).strip()
    label = names.get(text, text).strip()
    return label if label and is_unicode(label) else None


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        DataError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON ({shortened(str(error), 80)})") from error


def read_text(path: Path) -> str:
    """A UTF-8 file without its byte order mark.

    Raises:
        DataError: it cannot be read, or is something else.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def read_class_names(path: Path) -> dict[str, str]:
    """Labels by folder name or class number: a JSON object or list, or a text with a label a line.

    Raises:
        DataError: it cannot be read or holds something else.
    """
    lines = path.suffix.lower() != ".json"
    found = (
        [line.strip() for line in read_text(path).splitlines() if line.strip()] if lines else read_json(path)
    )
    named = dict(enumerate(found)) if isinstance(found, list) else found
    if not isinstance(named, dict) or not all(isinstance(name, str) and name for name in named.values()):
        raise DataError(f"{path}: class names are a JSON object or list of strings, or one a line")
    return {str(key): name for key, name in named.items()}


def image_folder(source: Path, given: Path | None, candidates: Sequence[Path], first: str) -> Path:
    """Where a source's pictures are: the folder given, or the first candidate that has the first one.

    Raises:
        DataError: there is no such folder.
    """
    if given is not None:
        if not given.is_dir():
            raise DataError(f"{given} is no folder of pictures")
        return given
    found = next((each for each in candidates if (each / first).is_file()), None)
    if found is None:
        raise DataError(f"{source}: its pictures, such as {quoted(first)}, are not beside it; name --images")
    return found


def inside(folder: Path, written: str) -> SourceSample:
    """The picture that a source names by a relative path; one outside of the folder is a problem."""
    path = PurePosixPath(written.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or not path.name or "\0" in written:
        return SourceSample(shortened(written, 100), None, problem="lies outside the folder of pictures")
    return SourceSample(path.as_posix(), folder / path)


def files_in(source: Path, suffixes: Sequence[str], what: str) -> tuple[Path, ...]:
    """A file itself, or all files below a folder whose names end so, sorted.

    Raises:
        DataError: there are none.
    """
    if source.is_file():
        return (source,)
    found = sorted(each for each in source.rglob("*") if each.name.lower().endswith(tuple(suffixes)))
    files = tuple(each for each in found if each.is_file() and not each.name.startswith("."))
    if not files:
        raise DataError(f"{source}: there is no {what} ({', '.join(suffixes)}) in it")
    return files


def splits_of_files(files: Sequence[Path]) -> tuple[str | None, ...]:
    """The official split of each file; of none where some do not tell theirs."""
    splits = tuple(map(split_of_file, files))
    return splits if all(splits) else (None,) * len(files)
