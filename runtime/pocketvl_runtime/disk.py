"""What the system says when it refuses to write, and whether a full disk is behind an error."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_FULL = (errno.ENOSPC, errno.EDQUOT)
_SAID = re.compile(r"No space left on device|Disk quota exceeded|os error (?:28|122)\b")
_NEARLY_FULL_BYTES = 1 << 20


class NoSpaceError(OSError):
    """A disk has not the room for a file.

    Attributes:
        needed_bytes: how large the file is.
    """

    def __init__(self, error: OSError, path: Path, needed_bytes: int) -> None:
        super().__init__(error.errno, error.strerror, str(path))
        self.needed_bytes = needed_bytes


def reason(error: OSError) -> str:
    """What the system says, without the place; of files that could not be copied, of the first."""
    if isinstance(error, shutil.Error):
        return _first(error)[1]
    return error.strerror or str(error)


def full_disk(error: BaseException, *folders: Path) -> str | None:
    """Says which disk is full, where that is what an error comes of; None where it is not.

    Not every library says so: some have errors of their own, some count the bytes they could write. So texts
    are searched too, and disks looked at.

    Args:
        error: with all that it comes of.
        folders: where something may have been written, the likeliest first.

    Returns:
        A part of a line: which folder's disk, how much is left, and how much was needed if that is known.
    """
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, OSError) and (_code(cause) in _FULL):
            needed = cause.needed_bytes if isinstance(cause, NoSpaceError) else None
            return _told(_named(_place(cause), folders), needed)
    there = [folder for folder in map(_existing, folders) if folder is not None]
    fullest = min(there, key=_free_bytes, default=None)
    if any(_SAID.search(str(cause)) for cause in causes):
        return _told(fullest, None)
    if fullest is not None and _free_bytes(fullest) < _NEARLY_FULL_BYTES:
        return _told(fullest, None)
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _first(error: shutil.Error) -> tuple[str, str]:
    """Where the first file of a copy was to go, and what the system said; its own text lists every file."""
    entries = error.args[0] if error.args else ""
    if not isinstance(entries, list) or not entries:
        return "", str(error)
    _, target, said = entries[0]
    return str(target), re.sub(r"^\[Errno \d+\] ([^:]*).*", r"\1", str(said), flags=re.DOTALL)


def _code(error: OSError) -> int | None:
    if isinstance(error, shutil.Error):
        said = _first(error)[1]
        return errno.ENOSPC if _SAID.search(said) else None
    return error.errno


def _place(error: OSError) -> Path | None:
    name = _first(error)[0] if isinstance(error, shutil.Error) else error.filename
    return Path(name) if isinstance(name, str) and name else None


def _named(place: Path | None, folders: tuple[Path, ...]) -> Path | None:
    """Of folders that the user knows the one on the disk of `place`, else the nearest that there is."""
    near = None if place is None else _existing(place)
    known = [folder for folder in map(_existing, folders) if folder is not None]
    if near is None:
        return min(known, key=_free_bytes, default=None)
    return next((folder for folder in known if folder.stat().st_dev == near.stat().st_dev), near)


def _existing(path: Path) -> Path | None:
    return next((at for at in (path, *path.parents) if at.is_dir()), None)


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _told(folder: Path | None, needed_bytes: int | None) -> str:
    if folder is None:
        return "no space left on device"
    needed = "" if needed_bytes is None else f", {needed_bytes / 1e6:.1f} MB needed"
    return (
        f"no space left on the disk of {folder.absolute()} ({_free_bytes(folder) / 1e6:.1f} MB free{needed})"
    )
