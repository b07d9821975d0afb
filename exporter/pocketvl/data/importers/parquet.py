"""Parquet files of Hugging Face's `datasets`: pictures as bytes, classes as numbers with names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketvl.data.importers.base import ReadOptions, Source, SourceSample, files_in, splits_of_files
from pocketvl.data.importers.columns import Columns
from pocketvl.errors import DataError

_BATCH = 64


def read_parquet(source: Path, options: ReadOptions) -> Source:
    """Rows of all files in order; the split is what a file's name says, `train-00000-of-00001.parquet`.

    Raises:
        DataError: pyarrow is not installed, a file cannot be read, or it has no column of pictures.
    """
    _pyarrow()
    files = files_in(source, (".parquet",), "parquet file")
    splits = splits_of_files(files)
    planned = []
    for path in files:
        with _opened(path) as table:
            columns = Columns.of(path.name, table.schema_arrow.names, options)
            names = options.class_names or _class_names(table.schema_arrow.metadata, columns.label)
            planned.append((path, table.metadata.num_rows, columns, names))

    def samples() -> Iterator[SourceSample]:
        for (path, _, columns, names), split in zip(planned, splits, strict=True):
            with _opened(path) as table:
                number = 0
                for batch in table.iter_batches(_BATCH, columns=columns.names):
                    for row in batch.to_pylist():
                        number += 1
                        yield columns.sample(f"{path.name}:{number}", row, path.parent, split, names)

    return Source(sum(rows for _, rows, _, _ in planned), samples())


def _pyarrow() -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError("parquet files are read by pyarrow: pip install pocketvl[parquet]") from error
    return parquet


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    import pyarrow

    try:
        with _pyarrow().ParquetFile(path) as table:
            yield table
    except (OSError, pyarrow.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise DataError(f"{path} cannot be read as parquet: {reason}") from error


def _class_names(metadata: dict[bytes, bytes] | None, column: str | None) -> dict[str, str]:
    """The names of a ClassLabel's numbers, which `datasets` writes into the schema."""
    try:
        names = json.loads((metadata or {})[b"huggingface"])["info"]["features"][column]["names"]
        return {str(number): str(name) for number, name in enumerate(names)}
    except (KeyError, TypeError, ValueError):
        return {}
