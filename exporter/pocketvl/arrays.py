"""Arrays that are larger than memory, in .npy files."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pocketvl_runtime.disk import NoSpaceError


def open_array(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> Any:
    """Open a .npy file to be written through memory; one that is missing is made, all zeros.

    Room on the disk is taken at once: where there is none, a later assignment would end the process without
    an exception (SIGBUS).

    Args:
        path: the file.
        dtype: of the array.
        shape: of the array.

    Returns:
        A numpy memmap.

    Raises:
        NoSpaceError: the disk has not.
        OSError: it cannot be written for another reason.
    """
    is_new = not path.exists()
    try:
        array = np.lib.format.open_memmap(path, mode="w+" if is_new else "r+", dtype=dtype, shape=shape)
        _reserve(path)
    except OSError:
        if is_new:
            path.unlink(missing_ok=True)  # else the next one would take it for whole
        raise
    return array


def _reserve(path: Path) -> None:
    with path.open("r+b") as stream:
        status = os.fstat(stream.fileno())
        try:
            # asked first, since the system would fill the disk before it gives up
            if status.st_size - 512 * status.st_blocks > shutil.disk_usage(path).free:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.posix_fallocate(stream.fileno(), 0, status.st_size)
        except OSError as error:
            raise NoSpaceError(error, path, status.st_size) from error
