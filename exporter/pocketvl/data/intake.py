"""Takes what an importer reads into dataset folders: pictures as they are, checked, divided into splits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from pocketvl.data.dataset import TEMPLATES_FILE, write_samples
from pocketvl.data.importers.base import CALIBRATION, TEST, TRAIN, VALIDATION, Source, SourceSample
from pocketvl.data.splits import Part, divide
from pocketvl.errors import DataError
from pocketvl.threads import in_threads
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.files import read_file
from pocketvl_runtime.image import open_image
from pocketvl_runtime.image_limits import MAX_FILE_BYTES
from pocketvl_runtime.progress import Progress

IMPORT_FILE = "import.json"
"""Beside the dataset folders: what was imported, and what was not."""
_IMAGES = "images"
_AT_ONCE = 64  # pictures in memory
_NAME_CHARS = 24  # of a SHA-256: 96 bits
_SUFFIXES = {
    b"\xff\xd8": ".jpg",
    b"\x89PNG": ".png",
    b"GIF8": ".gif",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"\0\0\0\x0cjP": ".jp2",
    b"\xff\x4f\xff\x51": ".jp2",
    b"P": ".ppm",
}


@dataclass(frozen=True)
class IntakeSettings:
    """How a source becomes dataset folders.

    Attributes:
        parts: the splits; none: those that the source has, or else one folder.
        ignore_splits: divide by `parts` alone, whatever splits the source has.
        link: hard links to the source's files in place of copies.
        strict: fail at the first picture that cannot be used.
        templates: what labels stand in, for `templates.txt` of each folder; none: the default one.
    """

    parts: tuple[Part, ...] = ()
    ignore_splits: bool = False
    link: bool = False
    strict: bool = False
    templates: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitReport:
    """A dataset folder that was written: how many samples, and how many of them have captions and a label."""

    samples: int
    captioned: int
    labelled: int


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        splits: by folder; "" for the one where there are no splits.
        skipped: pictures that could not be used, "name: why".
        merged: samples that are part of another one of the same picture.
        overlapping: samples left out since the source has their picture in another split, too.
        left_out: samples that no split asked for.
    """

    splits: Mapping[str, SplitReport]
    skipped: tuple[str, ...] = ()
    merged: int = 0
    overlapping: int = 0
    left_out: int = 0

    @property
    def samples(self) -> int:
        """In all splits."""
        return sum(split.samples for split in self.splits.values())


@dataclass
class _Row:
    """A sample that has been taken in."""

    digest: str
    image: str
    source: str
    captions: dict[str, None]
    label: str | None
    split: str | None

    def document(self) -> dict[str, Any]:
        """As samples.jsonl holds it."""
        row: dict[str, Any] = {"image": f"{_IMAGES}/{self.image}"}
        if self.captions:
            row["captions"] = list(self.captions)
        if self.label is not None:
            row["label"] = self.label
        return {**row, "source": self.source}


@dataclass
class _Taken:
    """All that has been taken in."""

    rows: list[_Row] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    merged: int = 0
    known: dict[tuple[str, str | None, str | None], _Row] = field(default_factory=dict)
    images: set[str] = field(default_factory=set)


def write_datasets(
    out: Path, source: Source, settings: IntakeSettings, progress: Progress | None = None
) -> ImportReport:
    """Write a source as dataset folders into the existing folder `out`.

    Pictures stay encoded as they are and are called by their SHA-256; equal ones with the same label become
    one sample with the captions of all. A picture is taken where the runtime can decode it.

    Args:
        out: where samples.jsonl and images/ go, or a folder of such for each split; and IMPORT_FILE.
        source: what is imported.
        settings: how.
        progress: called after every few pictures.

    Raises:
        DataError: nothing can be used, something cannot and `strict` is set, or the splits cannot be made.
        OSError: `out` cannot be written.
    """
    pool = out / _IMAGES
    pool.mkdir()
    taken, done = _Taken(), 0
    for few in _chunks(source.samples):
        with in_threads(_checked, few) as checked:
            for sample, each in zip(few, checked, strict=True):
                _take(pool, sample, each, taken, settings)
                done += 1
        if progress is not None:
            progress(done, max(source.count, done), "importing pictures")
    if not taken.rows:
        first = f": {taken.skipped[0]}" if taken.skipped else ""
        raise DataError(f"there is no picture that can be used{first}")
    rows, folder_of = _divided(taken.rows, settings)
    folders: dict[str, list[_Row]] = {name: [] for name in sorted(set(folder_of.values()))}
    for row in rows:
        if row.digest in folder_of:
            folders[folder_of[row.digest]].append(row)
    for name, chosen in folders.items():
        _write_split(out, name, chosen)
        if settings.templates:
            text = "\n".join(settings.templates) + "\n"
            (out / name / TEMPLATES_FILE).write_text(text, encoding="utf-8")
    _drop_unused(pool, taken.images if "" in folders else set())
    report = ImportReport(
        {name: _split_report(chosen) for name, chosen in folders.items()},
        tuple(taken.skipped),
        taken.merged,
        len(taken.rows) - len(rows),
        len(rows) - sum(map(len, folders.values())),
    )
    text = json.dumps({"version": 1, **asdict(report)}, ensure_ascii=False, indent=1)
    (out / IMPORT_FILE).write_text(text + "\n", encoding="utf-8")
    return report


def _chunks(samples: Iterator[SourceSample]) -> Iterator[list[SourceSample]]:
    while few := list(islice(samples, _AT_ONCE)):
        yield few


@dataclass(frozen=True)
class _Checked:
    """A picture that was looked at."""

    data: bytes = b""
    digest: str = ""
    problem: str = ""


def _checked(sample: SourceSample) -> _Checked:
    """A picture's bytes and their SHA-256, or why it cannot be used."""
    if sample.picture is None:
        return _Checked(problem=sample.problem)
    try:
        data = (
            sample.picture if isinstance(sample.picture, bytes) else read_file(sample.picture, MAX_FILE_BYTES)
        )
        open_image(data)
    except (OSError, ValueError) as error:
        return _Checked(problem=f"cannot be read: {getattr(error, 'strerror', None) or error}")
    except InputError as error:
        return _Checked(problem=str(error).removeprefix("the picture: "))
    return _Checked(data, hashlib.sha256(data).hexdigest())


def _take(
    pool: Path, sample: SourceSample, checked: _Checked, taken: _Taken, settings: IntakeSettings
) -> None:
    """Put a picture into `pool` and its sample among those taken, or name it among those skipped."""
    if checked.problem:
        line = f"{sample.name}: {checked.problem}"
        if settings.strict:
            raise DataError(f"{line}; leave out --strict to skip such pictures")
        taken.skipped.append(line)
        return
    key = (checked.digest, sample.label, sample.split)
    same = taken.known.get(key)
    if same is not None:
        same.captions |= dict.fromkeys(sample.captions)
        taken.merged += 1
        return
    image = checked.digest[:_NAME_CHARS] + _suffix(checked.data)
    if image not in taken.images:
        taken.images.add(image)
        _put(pool / image, sample.picture, checked.data, settings.link)
    row = _Row(checked.digest, image, sample.name, dict.fromkeys(sample.captions), sample.label, sample.split)
    taken.known[key] = row
    taken.rows.append(row)


def _put(target: Path, picture: bytes | Path | None, data: bytes, link: bool) -> None:
    if link and isinstance(picture, Path):
        try:
            os.link(picture.resolve(), target)
        except OSError as error:
            raise DataError(
                f"{picture} cannot be hard-linked ({error.strerror or error}); leave out --link"
            ) from error
    else:
        target.write_bytes(data)


def _suffix(data: bytes) -> str:
    found = next((suffix for start, suffix in _SUFFIXES.items() if data.startswith(start)), None)
    return found or (".avif" if data[8:11] == b"avi" else ".heic")


def _divided(rows: list[_Row], settings: IntakeSettings) -> tuple[list[_Row], dict[str, str]]:
    """The samples that stand in their own split, and by digest the folder of each picture that is in one."""
    digests = dict.fromkeys(row.digest for row in rows)
    said = {row.split for row in rows if row.split is not None}
    if settings.ignore_splits or not said:
        return rows, divide(digests, settings.parts) if settings.parts else dict.fromkeys(digests, "")
    # Where a source has no test split, its validation split is what models are judged on.
    folder = {TRAIN: TRAIN, VALIDATION: CALIBRATION if TEST in said else TEST, TEST: TEST}
    official: dict[str, str] = {}
    for row in rows:
        if row.split is not None:  # a picture that is in several is judged with, not trained on
            names = [folder[row.split], official.get(row.digest, TRAIN)]
            official[row.digest] = min(names, key=(TEST, CALIBRATION, TRAIN).index)
    kept = [row for row in rows if row.split is None or folder[row.split] == official[row.digest]]
    return kept, _with_parts(digests, official, settings.parts)


def _with_parts(digests: Iterable[str], official: dict[str, str], parts: tuple[Part, ...]) -> dict[str, str]:
    """Official splits, and others that are taken off `train` and off what is in no split."""
    names = set(official.values())
    asked = tuple(part for part in parts if part.name not in names or part == Part(TRAIN))
    if len(asked) < len(parts):
        own = next(part.name for part in parts if part not in asked)
        raise DataError(
            f"--split: the source has a split {own} of its own; leave it out, or divide all of it anew "
            "(--ignore-splits)"
        )
    if not asked:
        return official
    free = [digest for digest in digests if official.get(digest, TRAIN) == TRAIN]
    return {**official, **divide(free, asked)}


def _write_split(out: Path, name: str, rows: list[_Row]) -> None:
    """Write samples.jsonl of a split, and move its pictures there."""
    folder = out / name if name else out
    if name:
        (folder / _IMAGES).mkdir(parents=True)
        for image in dict.fromkeys(row.image for row in rows):
            (out / _IMAGES / image).rename(folder / _IMAGES / image)
    write_samples(folder, (row.document() for row in rows))


def _drop_unused(pool: Path, used: set[str]) -> None:
    """Remove pictures that are in no split, and the folder that they were taken into."""
    for path in list(pool.iterdir()):
        if path.name not in used:
            path.unlink()
    if not used:
        pool.rmdir()


def _split_report(rows: list[_Row]) -> SplitReport:
    captioned = sum(bool(row.captions) for row in rows)
    return SplitReport(len(rows), captioned, sum(row.label is not None for row in rows))
