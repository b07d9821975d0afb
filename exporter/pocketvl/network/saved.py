"""Reading a folder that a result was saved in: what is wrong with it is one DataError."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pocketvl.errors import DataError


@contextmanager
def reading(folder: Path, what: str) -> Iterator[None]:
    """Context that turns any error into a DataError: the folder does not hold `what`."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # safetensors has an error of its own
        raise DataError(f"{folder} does not hold {what}: {error}") from error


def read_versioned(path: Path, version: int) -> Any:
    """A JSON document of one schema_version.

    Raises:
        DataError: it is of another one.
    """
    document: Any = json.loads(path.read_text(encoding="utf-8"))
    if document["schema_version"] != version:
        raise DataError(f"{path} is of version {document['schema_version']}")
    return document
