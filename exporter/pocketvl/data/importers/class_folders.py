"""Folders of pictures, one a class: `cat/1.jpg`, or `train/cat/1.jpg`; in a folder or in a .zip."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from pocketvl.data.importers.base import (
    ReadOptions,
    Source,
    SourceSample,
    is_picture,
    label_of,
    official_split,
)
from pocketvl.errors import DataError
from pocketvl_runtime.image_limits import MAX_FILE_BYTES


def read_class_folders(source: Path, options: ReadOptions) -> Source:
    """Pictures whose folder's name is their label, `_` read as a space; outer folders may be splits.

    Raises:
        DataError: the source cannot be read, or has no picture in a folder.
    """
    names, picture = open_files(source)
    outer = _outer_folders(names)
    inner = [name.parts[outer:] for name in names]
    splits = [official_split(parts[0]) if len(parts) > 2 else None for parts in inner]
    if any(split is None for split in splits):
        splits = [None] * len(names)
    if all(len(parts) < 2 for parts in inner):
        raise DataError(f"{source}: no picture is in a folder of a class; import plain photos by `photos`")

    def samples() -> Iterator[SourceSample]:
        for name, parts, split in zip(names, inner, splits, strict=True):
            if len(parts) < 2:
                yield SourceSample(name.as_posix(), None, problem="is in no folder of a class")
                continue
            folder = parts[0] if split is None else parts[1]
            label = options.class_names.get(folder, folder.replace("_", " "))
            problem = "cannot be read out of the archive"
            yield SourceSample(name.as_posix(), picture(name), (), label_of(label, {}), split, problem)

    return Source(len(names), samples())


def open_files(source: Path) -> tuple[list[PurePosixPath], Callable[[PurePosixPath], bytes | Path | None]]:
    """The pictures in a folder or a .zip, sorted by name, and what gives one of them.

    Raises:
        DataError: the source cannot be read, or has no picture.
    """
    if source.is_dir():
        paths = (PurePosixPath(path.relative_to(source)) for path in source.rglob("*"))
        names = sorted(name for name in paths if is_picture(name) and (source / name).is_file())
        picture: Callable[[PurePosixPath], bytes | Path | None] = source.joinpath
    elif zipfile.is_zipfile(source):
        archive = zipfile.ZipFile(source)
        members = {PurePosixPath(each.filename): each for each in archive.infolist() if not each.is_dir()}
        names = sorted(filter(is_picture, members))

        def picture(name: PurePosixPath) -> bytes | Path | None:
            if members[name].file_size > MAX_FILE_BYTES:
                return None
            try:
                return archive.read(members[name])
            except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, EOFError, ValueError):
                return None  # damaged, encrypted, or compressed as Python does not know
    else:
        raise DataError(f"{source} is neither a folder nor a .zip")
    if not names:
        raise DataError(f"{source}: there are no pictures in it")
    return names, picture


def _outer_folders(names: Sequence[PurePosixPath]) -> int:
    """How many folders stand around all classes and splits, as `dataset/` does in `dataset/cat/1.jpg`."""
    outer = 0
    while all(len(name.parts) > outer + 2 for name in names):
        firsts = {name.parts[outer] for name in names}
        if len(firsts) > 1 or official_split(*firsts) is not None:
            break
        outer += 1
    return outer
