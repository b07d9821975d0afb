"""Puts a finished folder where an older one stands, in one step.

Linux can exchange two names at once (`renameat2`, RENAME_EXCHANGE). Elsewhere two renames do it; killed
between them, the old folder stands whole beside its place as `.NAME.pocketvl-previous` and the next call puts
it back.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.stage.record import Written, check_owned
from pocketvl.stage.scratch import reclaim, scratch_folder
from pocketvl_runtime.disk import full_disk, reason

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def check_replaceable(destination: Path, written: Written, keep: Collection[str] = ()) -> None:
    """Say early whether `publish` and `replace_dir` would refuse a destination.

    Args:
        destination: where a folder is to go. Missing and empty are fine.
        written: tells what pocketvl wrote into an existing folder there; all else in it is never lost.
        keep: files of anybody that `publish` carries over.

    Raises:
        StageError: something else stands there, and would be lost; the message names it.
    """
    target = destination.resolve()
    if not target.exists():
        return
    if not target.is_dir():
        raise StageError(
            f"{destination} exists and is not a folder; name another place or remove it yourself"
        )
    try:
        check_owned(target, written, keep)
    except OSError as error:
        raise StageError(f"cannot read {destination}: {error.strerror or error}") from error


def replace_dir(new: Path, destination: Path, written: Written, keep: Collection[str] = ()) -> None:
    """Move the folder `new` to `destination`; what stood there is deleted after it has been replaced.

    Whenever the process is killed, `destination` is the old folder or the new one, whole.

    Args:
        new: the finished folder, on the same file system; gone afterwards.
        destination: where it goes; a link is followed.
        written: tells what pocketvl wrote into an existing folder there; all else in it is never lost.
        keep: files of anybody that `new` holds already.

    Raises:
        StageError: what stands there is not ours, one folder lies in the other, or the system refuses.
    """
    target = destination.resolve()
    with _refusals(destination):
        _put_back(target)
        check_replaceable(destination, written, keep)
        if target.is_relative_to(new.resolve()) or new.resolve().is_relative_to(target):
            raise StageError(f"{new} and {destination} lie in each other")
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            exchange(new, target)
            _drop_old(new, destination)
        else:
            new.rename(target)
        sync_folder(target.parent)


def publish(result: Path, destination: Path, written: Written, keep: Collection[str] = ()) -> None:
    """Copy a finished folder to where the user wants it, in one step; see `replace_dir`.

    Does nothing where the two hold the same.

    Args:
        result: the folder to copy; stays as it is.
        destination: where the copy goes.
        written: tells what pocketvl wrote into an existing folder there; all else in it is never lost.
        keep: names of files of anybody that go on standing there.

    Raises:
        StageError: as `replace_dir`, or the copy cannot be written.
    """
    target = destination.resolve()
    with _refusals(destination):
        if _is_same(result, target, keep):
            return clean_up(destination)
        check_replaceable(destination, written, keep)
        with scratch_beside(destination) as copy:
            shutil.copytree(result, copy, copy_function=shutil.copyfile, dirs_exist_ok=True)
            for name in keep:
                if (target / name).is_file():
                    (copy / name).parent.mkdir(exist_ok=True)
                    shutil.copyfile(target / name, copy / name)
            sync_tree(copy)
            return replace_dir(copy, destination, written, keep)


def _is_same(result: Path, target: Path, keep: Collection[str]) -> bool:
    """Whether a folder holds what another one does, files that are kept aside."""
    names, there = (
        {path.relative_to(at).as_posix() for path in at.rglob("*") if path.is_file()}
        for at in (result, target)
    )
    if names != {name for name in there if name in names or name not in keep}:
        return False
    return all(
        (result / name).stat().st_size == (target / name).stat().st_size
        and (result / name).read_bytes() == (target / name).read_bytes()
        for name in names.difference(keep)
    )


@contextmanager
def scratch_beside(destination: Path) -> Iterator[Path]:
    """An empty folder on the file system of a destination, for `replace_dir`; what is left of it is removed.

    Raises:
        OSError: the folder around the destination cannot be written.
    """
    target = destination.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    clean_up(destination)
    with scratch_folder(target.parent, _scratch_prefix(target)) as scratch:
        folder = scratch / target.name
        folder.mkdir()
        yield folder


def clean_up(destination: Path) -> None:
    """Remove what a `publish` to `destination` that was killed left beside it."""
    target = destination.resolve()
    reclaim(target.parent, _scratch_prefix(target))


def _scratch_prefix(target: Path) -> str:
    return f".{target.name}.new-"


def exchange(one: Path, other: Path) -> None:
    """Swap the folders behind two existing names, at once where the system can.

    Raises:
        OSError: the system refuses; both are as they were.
    """
    if sys.platform == "linux":
        rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
        if rename is not None:
            if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
                return
            code = ctypes.get_errno()
            if code not in _CANNOT_EXCHANGE:
                raise OSError(code, os.strerror(code), str(other))
    _exchange_by_renames(one, other)


def sync_tree(folder: Path) -> None:
    """Flushes every file and folder below `folder`, and itself, to disk."""
    for at, _, names in os.walk(folder):
        for name in names:
            handle = os.open(Path(at) / name, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        sync_folder(Path(at))


def sync_folder(folder: Path) -> None:
    """Flushes a folder's own entries to disk, where the file system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _exchange_by_renames(one: Path, other: Path) -> None:
    previous = _previous(other)
    other.rename(previous)
    try:
        one.rename(other)
    except OSError:
        previous.rename(other)
        raise
    previous.rename(one)


def _drop_old(old: Path, destination: Path) -> None:
    try:
        shutil.rmtree(old)
    except OSError as error:
        raise StageError(
            f"{destination} is replaced, but the old one could not be deleted from {old}"
        ) from error


def _previous(target: Path) -> Path:
    return target.with_name(f".{target.name}.pocketvl-previous")


def _put_back(target: Path) -> None:
    """Undoes an exchange by renames that was killed halfway."""
    previous = _previous(target)
    if not previous.exists():
        return
    if target.exists():
        shutil.rmtree(previous)
    else:
        previous.rename(target)


@contextmanager
def _refusals(destination: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = full_disk(error, destination.resolve().parent)
        advice = "; free some space or name another place" if full else ""
        raise StageError(f"cannot write {destination}: {full or reason(error)}{advice}") from error
