"""Photos of a folder or a .zip, of which nothing is known."""

from __future__ import annotations

from pathlib import Path

from pocketvl.data.importers.base import ReadOptions, Source, SourceSample
from pocketvl.data.importers.class_folders import open_files


def read_photos(source: Path, options: ReadOptions) -> Source:
    """Every picture below a folder, sorted by path, without captions or labels.

    Raises:
        DataError: the source cannot be read, or has no picture.
    """
    names, picture = open_files(source)
    problem = "cannot be read out of the archive"
    samples = (SourceSample(name.as_posix(), picture(name), problem=problem) for name in names)
    return Source(len(names), samples)
