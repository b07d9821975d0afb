"""Shards of webdataset: tar files in which the members of a sample share the name before the first dot.

Read by `tarfile`: what the webdataset library adds (streams, shuffling) is of no use here, where every sample
is read once and in order.
Source of the format: Aizman et al., 2019, "High Performance I/O For Large Scale Deep Learning"
(arXiv 2001.01858).
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pocketvl.data.importers.base import (
    PICTURE_SUFFIXES,
    ReadOptions,
    Source,
    SourceSample,
    files_in,
    label_of,
    splits_of_files,
    texts_of,
)
from pocketvl.errors import DataError
from pocketvl_runtime.image_limits import MAX_FILE_BYTES

_SHARDS = (".tar", ".tar.gz", ".tgz")
_TEXTS = ("txt", "caption", "text")
_CLASSES = ("cls", "cls.txt")
_MAX_TEXT_BYTES = 1_000_000


def read_webdataset(source: Path, options: ReadOptions) -> Source:
    """Samples of all shards, in order: a picture, and what .txt, .json and .cls say of it.

    Raises:
        DataError: there is no shard, or one cannot be read.
    """
    shards = files_in(source, _SHARDS, "shard")
    splits = splits_of_files(shards)
    count = sum(_count(shard) for shard in shards)

    def samples() -> Iterator[SourceSample]:
        for shard, split in zip(shards, splits, strict=True):
            for key, members in _grouped(shard):
                yield _sample(f"{shard.name}/{key}", members, split, options)

    return Source(count, samples())


@contextmanager
def _opened(shard: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(shard) as archive:
            yield archive
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{shard} cannot be read as a tar file: {error}") from error


def _count(shard: Path) -> int:
    if shard.suffix == ".tar" and shard.stat().st_size % tarfile.BLOCKSIZE:  # tarfile would not say so
        raise DataError(f"{shard} cannot be read as a tar file: it is cut off")
    with _opened(shard) as archive:
        names = [_parts(each.name) for each in archive if each.isfile()]
    keys = [parts[0] for parts in names if parts is not None]
    return sum(1 for k, key in enumerate(keys) if not k or keys[k - 1] != key)


def _parts(name: str) -> tuple[str, str] | None:
    """A member's key and extension; None for files that are of no sample, as hidden ones."""
    path = PurePosixPath(name)
    stem, _, extension = path.name.partition(".")
    if not stem or not extension:
        return None
    return (path.parent / stem).as_posix(), extension.lower()


def _grouped(shard: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Members that follow each other with the same key."""
    with _opened(shard) as archive:
        last, members = "", {}  # type: tuple[str, dict[str, bytes]]
        for each in archive:
            parts = _parts(each.name) if each.isfile() else None
            if parts is None:
                continue
            key, extension = parts
            if key != last and last:
                yield last, members
                members = {}
            last = key
            most = MAX_FILE_BYTES if f".{extension}" in PICTURE_SUFFIXES else _MAX_TEXT_BYTES
            stream = archive.extractfile(each)
            if stream is not None and each.size <= most:
                members[extension] = stream.read()
        if last:
            yield last, members


def _sample(name: str, members: dict[str, bytes], split: str | None, options: ReadOptions) -> SourceSample:
    picture = next((data for extension, data in members.items() if f".{extension}" in PICTURE_SUFFIXES), None)
    told = _told(members.get("json", b""))
    texts = [members[each].decode(errors="replace") for each in _TEXTS if each in members]
    written = [told[key] for key in (options.caption_column or "caption", "captions", "text") if key in told]
    classes = [members[each].decode(errors="replace") for each in _CLASSES if each in members]
    label = classes[0] if classes else told.get(options.label_column or "label", told.get("class_name"))
    return SourceSample(
        name,
        picture,
        texts_of(*(texts or written)),
        label_of(label, options.class_names),
        split,
        "has no picture, or too large a one",
    )


def _told(data: bytes) -> dict[str, object]:
    """What a sample's .json says; nothing where it is no object."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
