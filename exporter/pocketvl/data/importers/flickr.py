"""Caption tables of Flickr8k and Flickr30k, as they are passed around.

`image,caption` (captions.txt); `image_name| comment_number| comment` (results.csv), of which one row lacks a
delimiter; Karpathy's split as CSV (`raw` a list of captions, `split`, `filename`); and the original,
`NAME.jpg#0`, a tab and a caption in each line (results_20130124.token).
Source of the splits: Karpathy and Fei-Fei, 2015 (arXiv 1412.2306).
"""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from pocketvl.data.importers.base import (
    ReadOptions,
    Source,
    SourceSample,
    image_folder,
    inside,
    official_split,
    read_text,
    texts_of,
)
from pocketvl.errors import DataError

_TOKEN = re.compile(r"^([^\t]+)#\d+\t(.*)$")
_NUMBERED = re.compile(r"^\s*\d+\s+(.*)$")
_NAMES, _COMMENTS = ("image", "image_name", "filename", "file_name"), ("caption", "comment", "raw")
_FOLDERS = (
    "",
    "Images",
    "images",
    "flickr30k_images",
    "flickr30k-images",
    "flickr30k_images/flickr30k_images",
    "Flicker8k_Dataset",
)


def read_flickr(source: Path, options: ReadOptions) -> Source:
    """Pictures in the order of their first row, each with its captions.

    Raises:
        DataError: the file is no such table, or there is no folder of pictures.
    """
    captions: dict[str, list[str]] = {}
    splits: dict[str, str | None] = {}
    for name, texts, split in _rows(source, read_text(source)):
        captions.setdefault(name, []).extend(texts)
        splits[name] = split
    if not captions:
        raise DataError(f"{source}: there are no rows in it")
    folder = image_folder(
        source, options.images, [source.parent / each for each in _FOLDERS], next(iter(captions))
    )

    def samples() -> Iterator[SourceSample]:
        for name, texts in captions.items():
            found = inside(folder, name)
            yield SourceSample(
                found.name, found.picture, texts_of(texts), split=splits[name], problem=found.problem
            )

    return Source(len(captions), samples())


def _rows(source: Path, text: str) -> Iterator[tuple[str, list[str], str | None]]:
    """Name, captions and split of each row."""
    lines = text.splitlines()
    if lines and _TOKEN.match(lines[0]):
        for number, line in enumerate(lines, start=1):
            found = _TOKEN.match(line)
            if found is None and line.strip():
                raise DataError(f"{source}:{number}: not of the form NAME.jpg#0, a tab and a caption")
            if found is not None:
                yield found[1], [found[2]], None
        return
    delimiter = "|" if lines and "|" in lines[0] else ","
    header = [name.strip().lower() for name in lines[0].split(delimiter)] if lines else []
    name_at, text_at = _column(header, _NAMES), _column(header, _COMMENTS)
    if name_at is None or text_at is None:
        raise DataError(
            f"{source}: its first line names no column of pictures ({', '.join(_NAMES)}) or of captions "
            f"({', '.join(_COMMENTS)})"
        )
    yield from _table(source, text, delimiter, name_at, text_at, _column(header, ("split",)))


def _table(
    source: Path, text: str, delimiter: str, name_at: int, text_at: int, split_at: int | None
) -> Iterator[tuple[str, list[str], str | None]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    rows = io.StringIO(text, newline="")
    if delimiter == "|":  # whose comments hold single quotes
        reader = csv.reader(rows, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(rows)
    columns = len(next(reader))
    try:
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            if delimiter == "|" and len(row) == columns - 1 and (mended := _NUMBERED.match(row[-1])):
                row = [*row, mended[1]]  # the one row without a delimiter after its number
            if len(row) < columns:
                raise DataError(f"{source}:{reader.line_num}: {len(row)} columns where {columns} are needed")
            found = delimiter.join(row[text_at:]) if text_at == columns - 1 else row[text_at]
            split = official_split(row[split_at]) if split_at is not None else None
            yield row[name_at].strip(), _listed(found), split
    except csv.Error as error:
        raise DataError(f"{source}:{reader.line_num}: not CSV ({error})") from error


def _column(header: list[str], names: tuple[str, ...]) -> int | None:
    return next((header.index(name) for name in names if name in header), None)


def _listed(text: str) -> list[str]:
    """A caption, or those of a list written as JSON or as Python writes it."""
    if text.lstrip().startswith("["):
        for read in (json.loads, ast.literal_eval):
            try:
                found = read(text.strip())
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(found, list):
                return [each for each in found if isinstance(each, str)]
    return [text]
