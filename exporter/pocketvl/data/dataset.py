"""The dataset-folder format: `samples.jsonl` and the pictures or sounds beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from pocketvl.errors import DataError
from pocketvl_runtime.errors import InputError, quoted
from pocketvl_runtime.manifest import Modality
from pocketvl_runtime.prompts import read_templates

SAMPLES_FILE = "samples.jsonl"
TEMPLATES_FILE = "templates.txt"
"""Texts with `{label}` in them, one a line; a dataset folder may hold it."""
DEFAULT_TEMPLATE = "a photo of a {label}"
_MEDIA = (Modality.IMAGE, Modality.AUDIO)
_LISTS_OF_TEXT = ("captions", "negatives", "negative_kinds")


@dataclass(frozen=True)
class Sample:
    """One picture or sound, or both, and what is known of it.

    Attributes:
        files: absolute paths of the picture and the sound inside the folder, as far as there are such; each
            may be a link that leads elsewhere.
        captions: true descriptions; the first tells this picture from others.
        negatives: captions made false by one change of `captions[0]`.
        negative_kinds: what was changed in each negative, in the same order; empty where unknown.
        label: class name, if any.
        objects: what a procedural scene was drawn from; training may use it, evaluation never.
        qa: question-answer pairs, each with `question`, `answer` and `type`.
    """

    files: Mapping[Modality, Path]
    captions: tuple[str, ...] = ()
    negatives: tuple[str, ...] = ()
    negative_kinds: tuple[str, ...] = ()
    label: str | None = None
    objects: tuple[Mapping[str, Any], ...] = ()
    qa: tuple[Mapping[str, str], ...] = ()

    def of(self, modality: Modality) -> Path:
        """Its picture or its sound.

        Raises:
            DataError: it has none.
        """
        if modality not in self.files:
            name = modality.value
            raise DataError(
                f"{self.file}: this sample has no {name}, which the model takes; give its line of "
                f"{SAMPLES_FILE} an `{name}` path"
            )
        return self.files[modality]

    @property
    def image(self) -> Path:
        """Its picture.

        Raises:
            DataError: it has none.
        """
        return self.of(Modality.IMAGE)

    @property
    def file(self) -> Path:
        """What messages call it: its picture, or else its sound."""
        return next(iter(self.files.values()))


@dataclass(frozen=True)
class Dataset:
    """A dataset folder that has been read and checked.

    Attributes:
        root: the folder.
        samples: its samples, in the order of the file.
        templates: what labels stand in. Where one text is needed, as in calibration, training and bundles,
            it is the first; to classify, a label is the mean over all.
    """

    root: Path
    samples: tuple[Sample, ...] = field(repr=False)
    templates: tuple[str, ...] = (DEFAULT_TEMPLATE,)

    def __len__(self) -> int:
        return len(self.samples)

    def media(self, modality: Modality) -> tuple[Path, ...]:
        """The picture or the sound of each sample.

        Raises:
            DataError: a sample has none.
        """
        return tuple(sample.of(modality) for sample in self.samples)

    @property
    def texts(self) -> tuple[str, ...]:
        """All captions, negatives and questions, each once."""
        found: dict[str, None] = {}
        for sample in self.samples:
            found.update(dict.fromkeys((*sample.captions, *sample.negatives)))
            found.update(dict.fromkeys(qa["question"] for qa in sample.qa if "question" in qa))
        return tuple(found)

    @classmethod
    def open(cls, root: Path | str) -> Dataset:
        """Read `samples.jsonl` and check that every file it names is there; read `templates.txt`.

        Raises:
            DataError: there is no such folder or file, a line is malformed (the message names file and
                line), a picture or sound is missing, there is no sample at all, or a template has no
                `{label}`.
        """
        root = Path(root).resolve()
        numbered = read_lines(root)
        samples = _parsed(root, numbered)
        paths = [path for sample in samples for path in sample.files.values()]
        if not all(map(os.path.isfile, paths)):  # gone since it was parsed
            _parsed.cache_clear()
            samples = _parsed(root, numbered)
        return cls(root, samples, _templates(root / TEMPLATES_FILE))


def _templates(path: Path) -> tuple[str, ...]:
    if not path.exists():
        return (DEFAULT_TEMPLATE,)
    try:
        return read_templates(path)
    except InputError as error:
        raise DataError(str(error)) from error


@lru_cache(maxsize=4)
def _parsed(root: Path, numbered: tuple[tuple[int, str], ...]) -> tuple[Sample, ...]:
    """The samples, parsed once a process for the same lines: most stages of an export ask for them."""
    return tuple(_parse(root, f"{root / SAMPLES_FILE}:{at}", line) for at, line in numbered)


def read_lines(root: Path) -> tuple[tuple[int, str], ...]:
    """The lines of `samples.jsonl` that hold a sample, each with its number; a byte order mark is left out.

    Raises:
        DataError: there is no such file, it cannot be read, or no line holds anything.
    """
    listing = root / SAMPLES_FILE
    if not listing.is_file():
        raise DataError(f"{root} is not a dataset folder: it has no {SAMPLES_FILE}")
    try:
        lines = listing.read_text(encoding="utf-8-sig").split("\n")  # JSON may hold other line ends
    except UnicodeDecodeError as error:
        raise DataError(f"{listing}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    except OSError as error:
        raise DataError(f"{listing} cannot be read: {error.strerror or error}") from error
    numbered = tuple((number, line) for number, line in enumerate(lines, start=1) if line.strip())
    if not numbered:
        raise DataError(f"{listing}: no samples in it")
    return numbered


class Question(NamedTuple):
    """A question about a picture.

    Attributes:
        sample: index of its sample in the dataset.
        text: the question.
        answer: the right answer.
        type: what kind of question it is; empty if unknown.
    """

    sample: int
    text: str
    answer: str
    type: str


def questions_of(dataset: Dataset) -> tuple[Question, ...]:
    """All questions of a dataset, sample by sample.

    Raises:
        DataError: an entry of `qa` has no question, or no answer.
    """
    found = []
    for index, sample in enumerate(dataset.samples):
        for qa in sample.qa:
            values = [qa.get(key, "") for key in ("question", "answer", "type")]
            if not all(isinstance(value, str) for value in values) or not all(v.strip() for v in values[:2]):
                raise DataError(f"{sample.file}: an entry of `qa` needs a question and an answer, as strings")
            found.append(Question(index, *values))
    return tuple(found)


def write_samples(root: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write `samples.jsonl`, one JSON object a line, keys in the order given."""
    with (root / SAMPLES_FILE).open("w", encoding="utf-8", newline="\n") as out:
        for row in rows:
            out.write(json.dumps(row, ensure_ascii=False, separators=(", ", ": ")) + "\n")


def _parse(root: Path, where: str, line: str) -> Sample:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg} at column {error.colno})") from error
    except (ValueError, RecursionError) as error:  # thousands of digits, or deeper than Python goes
        raise DataError(f"{where}: JSON that cannot be read ({error})") from error
    kinds = [each for each in _MEDIA if isinstance(row, dict) and row.get(each.value) is not None]
    if not kinds or not all(isinstance(row[each.value], str) for each in kinds):
        raise DataError(f"{where}: a sample is an object with at least an `image` path or an `audio` path")
    files = {each: _file(root, row[each.value], f"{where}: {each.value}") for each in kinds}
    for key in _LISTS_OF_TEXT:
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise DataError(f"{where}: `{key}` must be a list of strings")
        if not all(item.strip() for item in value):
            raise DataError(f"{where}: `{key}` holds an empty text")
    if row.get("negative_kinds") and len(row["negative_kinds"]) != len(row.get("negatives", [])):
        raise DataError(f"{where}: `negative_kinds` must name a kind for each of `negatives`, or be left out")
    label = row.get("label")
    if label is not None and not (isinstance(label, str) and label.strip()):
        raise DataError(f"{where}: `label` must be a string that is not empty")
    for key in ("objects", "qa"):
        value = row.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise DataError(f"{where}: `{key}` must be a list of objects")
    return Sample(
        files=files,
        captions=tuple(row.get("captions", [])),
        negatives=tuple(row.get("negatives", [])),
        negative_kinds=tuple(row.get("negative_kinds", [])),
        label=label,
        objects=tuple(row.get("objects", [])),
        qa=tuple(row.get("qa", [])),
    )


def _file(root: Path, written: str, where: str) -> Path:
    """The file that a sample names; what is written must stay in the folder, a link in it need not."""
    plain = os.path.normpath(os.path.join(root, written))  # noqa: PTH118 - a tenth of the time of a Path
    if plain.startswith(os.path.join(root, "")) and os.path.isfile(plain):  # noqa: PTH113, PTH118
        return Path(plain)
    what = f"{where} {quoted(written)}"
    try:
        path = Path(plain)
        if not path.is_relative_to(root):  # an absolute path may come to the folder by a link
            path = path.parent.resolve() / path.name
        if not path.is_relative_to(root):
            raise DataError(f"{what} lies outside the folder")
        if path.is_file():
            return path
        if path.is_symlink():
            raise DataError(f"{what} is a link to a file that is not there; fetch it first")
        raise DataError(f"{what} {'is not a regular file' if path.exists() else 'does not exist'}")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error  # an OSError's text quotes the whole path
        raise DataError(f"{what} cannot be a file: {reason}") from error
