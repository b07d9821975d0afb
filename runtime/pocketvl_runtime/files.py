"""Reading files that somebody else may have made: regular ones only, and never more than was agreed on."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


def regular_size(path: Path) -> int:
    """The size in bytes of a regular file; a device or a pipe may never end.

    Raises:
        OSError: it cannot be read or is something else.
        ValueError: the path is none.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return status.st_size


def read_file(path: Path, most_bytes: int) -> bytes:
    """Reads a regular file of at most `most_bytes`.

    Raises:
        OSError: it cannot be read, is something else, or is larger.
        ValueError: the path is none.
    """
    size = regular_size(path)
    if size > most_bytes:
        raise OSError(errno.EFBIG, f"{size} bytes, and at most {most_bytes} are read", str(path))
    with path.open("rb") as stored:
        return stored.read(size)
