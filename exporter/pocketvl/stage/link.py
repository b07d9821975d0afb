"""One file in several results of a cache, which are never changed once they are sealed."""

from __future__ import annotations

import shutil
from pathlib import Path


def link_or_copy(source: Path | str, target: Path | str) -> None:
    """Put a file of a sealed result into another result as a hard link, or as a copy where none can be made.

    For results of one cache alone: whoever may change one of the names would change what the other holds.

    Args:
        source: a file of a sealed result.
        target: where it goes, in the folder that a stage writes; must not exist.

    Raises:
        OSError: the file cannot be written, or something stands at `target`.
    """
    try:
        Path(target).hardlink_to(source)
    except FileExistsError:
        raise
    except OSError:  # another file system, one without hard links, or too many of them
        shutil.copyfile(source, target)
