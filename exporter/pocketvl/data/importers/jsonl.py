"""JSON lines of Hugging Face's `datasets`: metadata.jsonl beside pictures, or pictures in rows as base64."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketvl.data.importers.base import (
    ReadOptions,
    Source,
    SourceSample,
    files_in,
    splits_of_files,
)
from pocketvl.data.importers.columns import Columns
from pocketvl.errors import DataError
from pocketvl_runtime.errors import library_text


def read_jsonl(source: Path, options: ReadOptions) -> Source:
    """Rows of all files in order; paths of pictures are relative to their file's folder, or to `images`.

    Raises:
        DataError: a line is no JSON object, or a file has no column of pictures.
    """
    files = files_in(source, (".jsonl", ".ndjson"), "JSON lines file")
    splits = splits_of_files(files)
    count = sum(1 for path in files for _ in _lines(path))
    if not count:
        raise DataError(f"{source}: there are no rows in it")

    def samples() -> Iterator[SourceSample]:
        for path, split in zip(files, splits, strict=True):
            yield from _samples(path, split, options)

    return Source(count, samples())


def _samples(path: Path, split: str | None, options: ReadOptions) -> Iterator[SourceSample]:
    columns: Columns | None = None
    folder = path.parent if options.images is None else options.images
    for number, line in _lines(path):
        where = f"{path.name}:{number}"
        row = _object(where, line)
        columns = columns or Columns.of(where, row, options)
        yield columns.sample(where, row, folder, split, options.class_names)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that hold something, each with its number; a byte order mark is left out."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as rows:
            yield from ((number, row) for number, row in enumerate(rows, start=1) if row.strip())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _object(where: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON ({library_text(error)})") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: a row is a JSON object")
    return row
