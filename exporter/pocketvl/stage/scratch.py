"""Temporary folders that know whether their owner still lives.

Beside each folder stands a lock file that its process holds with `flock`. The kernel lets go of it however
that process ends, `kill -9` included; so a lock that can be had belongs to the dead, and what it guards may
go.
"""

from __future__ import annotations

import fcntl
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

SCRATCH = ".tmp-"
_LOCK = ".lock"


@contextmanager
def scratch_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """Make an empty folder inside `parent`, and remove it and what is left in it at the end.

    Args:
        parent: existing folder; the scratch folder is on its file system.
        prefix: how the folder's name begins; `reclaim` finds it by that.

    Raises:
        OSError: `parent` cannot be written.
    """
    folder, handle = _claim(parent, prefix)
    try:
        folder.mkdir()
        yield folder
    finally:
        _remove(folder)
        os.close(handle)


def reclaim(parent: Path, prefix: str) -> None:
    """Remove scratch folders of processes that are gone; those in use stay.

    Args:
        parent: where the folders are.
        prefix: the one they were made with.
    """
    for lock in sorted(parent.glob(f"{glob.escape(prefix)}*{_LOCK}")):
        with suppress(OSError):
            handle = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_at(handle, lock):
                    _remove(lock.with_suffix(""))
            finally:
                os.close(handle)


def claim_folder(folder: Path) -> int:
    """Make a folder if it is missing, and wait until no other process claims it.

    Returns:
        A handle: the folder is this process's until it is closed.

    Raises:
        OSError: it cannot be made.
    """
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with suppress(FileNotFoundError):
            handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(handle, fcntl.LOCK_EX)
            if _is_at(handle, folder):  # else its owner removed it
                return handle
            os.close(handle)


def _claim(parent: Path, prefix: str) -> tuple[Path, int]:
    while True:
        folder = parent / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
        lock = _lock_of(folder)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(handle, lock):  # else another process reclaimed it between the two calls
                return folder, handle
        os.close(handle)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    if not folder.exists():  # else the lock file stays, for the next `reclaim` to try again
        _lock_of(folder).unlink(missing_ok=True)


def _lock_of(folder: Path) -> Path:
    return folder.with_name(folder.name + _LOCK)


def _is_at(handle: int, path: Path) -> bool:
    try:
        there = path.stat()
    except FileNotFoundError:
        return False
    here = os.fstat(handle)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)
