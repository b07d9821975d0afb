"""SHA-256 digests of files and folders, cached by `stat`.

A remembered digest is used only while device, inode, size, mtime and ctime are all unchanged, and is
remembered only of a file that had been left alone for `SETTLED_NS` when it was read: a file changed twice
within one tick of the file system's clock would otherwise look unchanged.

Files of results are never changed, but linked into other results, which changes their ctime. So this process
remembers what it has read of them without it, whatever they are called.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.stage.scratch import SCRATCH, scratch_folder

SETTLED_NS = 2_000_000_000
MEMO_LIMIT = 50_000

_Mark = tuple[int, int, int, int, int]

_of_results: dict[tuple[int, ...], str] = {}
"""SHA-256 of files of results, by their mark without ctime."""


@dataclass(frozen=True)
class FileDigest:
    """The content of one file.

    Attributes:
        sha256: hexadecimal digest of its bytes.
        size_bytes: how many bytes they are.
    """

    sha256: str
    size_bytes: int


class Contents:
    """Reads digests of files and folders.

    Args:
        memo: file that keeps digests between runs; None to read every byte every time. A memo that is missing
            or damaged only costs time.
    """

    def __init__(self, memo: Path | None = None) -> None:
        self._memo = memo
        self._known: dict[str, tuple[_Mark, str]] = {} if memo is None else _read_memo(memo)
        self._used: set[str] = set()
        self._changed = False

    def file(self, path: Path) -> FileDigest:
        """Digest of one file (a symbolic link counts as what it points to).

        Raises:
            StageError: it is missing, unreadable or no regular file.
        """
        return self._file(str(path), str(path.absolute()))

    def _file(self, path: str, name: str, of_result: bool = False) -> FileDigest:
        """Args: path: of a file. name: by which it is remembered. (Paths would be slow, by the thousand.)"""
        try:
            before = os.stat(path)  # noqa: PTH116
            if not stat.S_ISREG(before.st_mode):
                raise StageError(f"{path} is neither a file nor a folder")
            mark = _mark(before)
            known = self._known.get(name)
            if known is not None and known[0] == mark:
                self._used.add(name)
                return FileDigest(known[1], before.st_size)
            sha256, after = (_of_results.get(mark[:-1]) if of_result else None), before
            if sha256 is None:
                with open(path, "rb") as stream:
                    sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
                    after = os.fstat(stream.fileno())
        except OSError as error:
            raise StageError(f"cannot read {path}: {error.strerror or error}") from error
        is_unchanged, changed_ns = _mark(after) == mark, max(after.st_mtime_ns, after.st_ctime_ns)
        if self._memo is not None and is_unchanged and _is_settled(changed_ns):
            self._known[name] = (mark, sha256)
            self._used.add(name)
            self._changed = True
        if of_result and is_unchanged and _is_settled(after.st_mtime_ns):
            _of_results[mark[:-1]] = sha256
        return FileDigest(sha256, after.st_size)

    def files(self, folder: Path, of_result: bool = False) -> dict[str, FileDigest]:
        """Digests of every file below `folder`, keyed by relative POSIX path, sorted.

        Args:
            folder: which.
            of_result: whether it is a result, or is to be one: then files that this process has read, under
                whatever name, are not read again.

        Raises:
            StageError: something below cannot be read, or a link leads back up.
        """
        root = folder.absolute()
        return {
            name: self._file(f"{folder}/{name}", f"{root}/{name}", of_result) for name in list_files(folder)
        }

    def of(self, path: Path) -> str:
        """Digest of a file's bytes, or of a folder's file names and bytes; its own name does not count.

        Raises:
            StageError: it does not exist or cannot be read.
        """
        if path.is_dir():
            return digest_of(self.files(path))
        if not path.exists():
            raise StageError(f"{path} does not exist")
        return self.file(path).sha256

    def save(self) -> None:
        """Write the memo, if it learned anything; failing to is not an error, for it only saves time."""
        if self._memo is None or not self._changed:
            return
        if len(self._known) > MEMO_LIMIT:
            self._known = {name: entry for name, entry in self._known.items() if name in self._used}
        rows = {name: [*mark, sha256] for name, (mark, sha256) in self._known.items()}
        with suppress(OSError):
            with scratch_folder(self._memo.parent, SCRATCH) as scratch:
                temporary = scratch / self._memo.name
                temporary.write_text(
                    json.dumps({"format": 1, "files": rows}, separators=(",", ":")), encoding="ascii"
                )
                temporary.replace(self._memo)
            self._changed = False


def digest_of(files: dict[str, FileDigest]) -> str:
    """One digest over names and contents.

    Args:
        files: digest of each file by relative POSIX path.
    """
    total = hashlib.sha256()
    for name in sorted(files):
        total.update(f"{json.dumps(name)} {files[name].sha256}\n".encode("ascii"))
    return total.hexdigest()


def list_files(folder: Path) -> list[str]:
    """Relative POSIX paths of every file below `folder`, sorted; links are followed.

    Raises:
        StageError: `folder` cannot be listed, or a link below it leads back to a folder above itself.
    """
    try:
        return sorted(_walk(folder, "", ()))
    except OSError as error:
        raise StageError(f"cannot read {error.filename or folder}: {error.strerror or error}") from error


def _walk(folder: Path, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterable[str]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise StageError(f"{folder} is a link to a folder that it lies in")
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir():
                yield from _walk(Path(entry.path), f"{prefix}{entry.name}/", (*above, here))
            else:
                yield prefix + entry.name


def _mark(status: os.stat_result) -> _Mark:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _is_settled(changed_ns: int) -> bool:
    return time.time_ns() - changed_ns > SETTLED_NS


def _read_memo(memo: Path) -> dict[str, tuple[_Mark, str]]:
    try:
        document = json.loads(memo.read_bytes())
        if document["format"] != 1:
            return {}
        rows: dict[str, list[int | str]] = document["files"]
        known: dict[str, tuple[_Mark, str]] = {}
        for name, row in rows.items():
            device, inode, size, mtime, ctime, sha256 = row
            mark = (int(device), int(inode), int(size), int(mtime), int(ctime))
            known[name] = (mark, str(sha256))
        return known
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
