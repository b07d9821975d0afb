"""The cache on disk: one sealed folder per result, found by what it was made from.

    CACHE/digests.json              what files held when last read
    CACHE/STAGE/KEY/sealed.json     what the result was made from, and every file in it with size and sha256
    CACHE/STAGE/KEY/result/         the result; missing where it was dropped
    CACHE/STAGE/.tmp-*              being written; never looked at as a result
    CACHE/STAGE/KEY.work/           what a stage that resumes has done so far
    CACHE/matplotlib/, torchinductor/   what these libraries keep, which the command would not have at home

A result appears under its key by one rename, after its bytes are on the disk. One whose files are not what
the seal says is treated as if it were not there. Results that hold the same file may share it, by hard links
(`link.py`), which is why none is ever written to again; what users get is a copy (`publish`). Whoever reads
or writes results holds a shared lock on CACHE, so that none is dropped meanwhile.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.stage.contents import Contents, FileDigest, digest_of
from pocketvl.stage.replace import exchange, sync_folder, sync_tree
from pocketvl.stage.scratch import SCRATCH, claim_folder, reclaim, scratch_folder
from pocketvl_runtime.disk import full_disk, reason

SEAL_FORMAT = 1
_SEAL = "sealed.json"
_RESULT = "result"


@dataclass(frozen=True)
class Sealed:
    """A finished result in the cache.

    Attributes:
        folder: where its files are; to be read only.
        digest: sha256 over the names and contents of its files.
        ingredients: JSON of what it was made from, the same on every machine where these are the same.
        is_dropped: whether its files are gone, and have to be made again for whoever reads them.
    """

    folder: Path
    digest: str
    ingredients: dict[str, object]
    is_dropped: bool = False


def key_of(ingredients: dict[str, object]) -> str:
    """The key that a result made from `ingredients` has: sha256 of their canonical JSON."""
    return hashlib.sha256(_canonical(ingredients)).hexdigest()


class Store:
    """Sealed results below one folder.

    Args:
        root: the cache folder; made if missing.
        verify: read every byte of inputs and cached results again instead of trusting unchanged file times.

    Raises:
        StageError: the folder cannot be made or written.
    """

    def __init__(self, root: Path, *, verify: bool = False) -> None:
        self.root = root
        self.contents = Contents(None if verify else root / "digests.json")
        self._verify = verify
        with cache_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            # one that was killed after it sealed its result leaves scratch that no later draft meets
            for folder in (root, *(each for each in root.iterdir() if each.is_dir())):
                reclaim(folder, SCRATCH)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Context in which no other process drops results."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def drop(self, results: Iterable[tuple[str, dict[str, object]]]) -> None:
        """Remove the files of results, unless another process uses the cache.

        Args:
            results: of each the name of its stage, and what it was made from.
        """
        with suppress(BlockingIOError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for stage, ingredients in results:
                shutil.rmtree(self._entry(stage, ingredients) / _RESULT, ignore_errors=True)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with cache_errors(self.root):
            handle = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(handle, how)
            yield
        finally:
            os.close(handle)

    def find(self, stage: str, ingredients: dict[str, object]) -> Sealed | None:
        """The sealed, undamaged result made from `ingredients`, if there is one; it may have been dropped."""
        return self._read(self._entry(stage, ingredients), ingredients)

    @contextmanager
    def draft(self, stage: str) -> Iterator[Path]:
        """An empty folder to write a result into; whatever is not sealed at the end is removed."""
        parent = self.root / stage
        with cache_errors(parent):
            parent.mkdir(exist_ok=True)
            reclaim(parent, SCRATCH)
            with scratch_folder(parent, SCRATCH) as scratch:
                result = scratch / _RESULT
                result.mkdir()
                yield result

    def work_of(self, stage: str, ingredients: dict[str, object]) -> Path:
        """Where `work_folder` is; for processes that work in it together with the one that claimed it."""
        return self._entry(stage, ingredients).with_suffix(".work")

    @contextmanager
    def work_folder(self, stage: str, ingredients: dict[str, object]) -> Iterator[Path]:
        """Where a stage that resumes keeps what it has done so far: made if missing.

        Inside, the folder is this process's alone; where another one works in it, that one is waited for.
        """
        folder = self.work_of(stage, ingredients)
        with cache_errors(folder):
            handle = claim_folder(folder)
        try:
            yield folder
        finally:
            os.close(handle)

    def drop_work(self, stage: str, ingredients: dict[str, object]) -> None:
        """Remove what a stage that resumes kept, now that its result is sealed."""
        shutil.rmtree(self.work_of(stage, ingredients), ignore_errors=True)

    def seal(self, stage: str, ingredients: dict[str, object], result: Path) -> Sealed:
        """Seal a draft as a result.

        Where another process sealed the same result meanwhile, that one stands and the draft is dropped.

        Args:
            stage: name of the stage.
            ingredients: what the result was made from.
            result: the folder that `draft` gave.

        Raises:
            StageError: the draft is empty, or holds links or special files.
            OSError: it cannot be written to disk.
        """
        files = _plain_files(result)
        if not files:
            raise StageError(f"{stage} wrote nothing")
        draft, entry = result.parent, self._entry(stage, ingredients)
        seal = {
            "format": SEAL_FORMAT,
            "ingredients": ingredients,
            "files": {name: {"sha256": at.sha256, "bytes": at.size_bytes} for name, at in files.items()},
            "digest": digest_of(files),
        }
        (draft / _SEAL).write_text(json.dumps(seal, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        sync_tree(draft)
        try:
            draft.rename(entry)
        except OSError:
            there = self._read(entry, ingredients)
            if there is not None and not there.is_dropped:
                return there
            if not entry.exists():
                raise
            exchange(draft, entry)  # what stood there was damaged or dropped
        sync_folder(entry.parent)
        return Sealed(entry / _RESULT, digest_of(files), ingredients)

    def _entry(self, stage: str, ingredients: dict[str, object]) -> Path:
        return self.root / stage / key_of(ingredients)

    def _read(self, entry: Path, ingredients: dict[str, object]) -> Sealed | None:
        """None where anything is missing, added, or not what the seal says."""
        try:
            seal = json.loads((entry / _SEAL).read_bytes())
            if seal["format"] != SEAL_FORMAT or _canonical(seal["ingredients"]) != _canonical(ingredients):
                return None
            files = {name: FileDigest(at["sha256"], at["bytes"]) for name, at in seal["files"].items()}
            folder = entry / _RESULT
            if not folder.exists():
                return Sealed(folder, digest_of(files), ingredients, is_dropped=True)
            sizes = {name: (folder / name).lstat().st_size for name in files}
            if any(size != files[name].size_bytes for name, size in sizes.items()):
                return None
            found = self.contents.files(folder, of_result=not self._verify)
            if found != files or digest_of(files) != seal["digest"]:
                return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, StageError):
            return None
        return Sealed(folder, digest_of(files), ingredients)


@contextmanager
def cache_errors(where: Path) -> Iterator[None]:
    """Turn an OSError about the cache into one line that says where and what to do."""
    try:
        yield
    except OSError as error:
        path = error.filename or where
        full = full_disk(error, where)
        raise StageError(
            f"cannot write the cache at {path}: {full or reason(error)}; "
            f"{'free some space or ' if full else ''}name another folder with --cache (POCKETVL_CACHE)"
        ) from error


def _canonical(document: object) -> bytes:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")


def _plain_files(folder: Path) -> dict[str, FileDigest]:
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise StageError(f"a result must hold plain files, but {path.relative_to(folder)} is a link")
    return Contents().files(folder, of_result=True)
