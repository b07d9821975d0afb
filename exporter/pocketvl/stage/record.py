"""What pocketvl wrote into a folder, so that nothing else in it is ever thrown away.

A folder that a command publishes holds `.pocketvl.json`: every other file in it, with its sha256. (A bundle
has none; its manifest says the same.) Only a folder in which all that stands there is what was written may be
replaced.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.stage.contents import Contents

RECORD_FILE = ".pocketvl.json"

Written = Callable[[Path], Mapping[str, str | None] | None]
"""Tells what pocketvl wrote into a folder: sha256 by relative POSIX path, or None for a file that may have
changed since; nothing at all where it did not write the folder."""

_MOST_NAMED = 3


def write_record(folder: Path) -> None:
    """Write down every file of a folder as it is now."""
    files = {name: digest.sha256 for name, digest in Contents().files(folder).items()}
    text = json.dumps({"format": 1, "files": files}, indent=1, sort_keys=True)
    (folder / RECORD_FILE).write_text(text + "\n", encoding="utf-8")


def read_record(folder: Path) -> Mapping[str, str | None] | None:
    """What `write_record` wrote down, the record included; None where there is no such record."""
    try:
        files = json.loads((folder / RECORD_FILE).read_bytes())["files"]
        return {**{str(name): str(sha256) for name, sha256 in files.items()}, RECORD_FILE: None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def check_owned(folder: Path, written: Written, keep: Collection[str] = ()) -> None:
    """Check that replacing a folder loses nothing that pocketvl did not write.

    Args:
        folder: an existing folder.
        written: tells what pocketvl wrote there.
        keep: files of anybody that are carried over when the folder is replaced.

    Raises:
        StageError: it holds something else, a link to a folder or an empty folder included, or a file that
            has changed since; the message names what.
        OSError: it cannot be read.
    """
    entries = dict(_entries(folder, ""))
    if not entries:
        return
    known = written(folder)
    if known is None:
        raise StageError(
            f"{folder} holds something that pocketvl did not write and would lose ({_named(entries)}); "
            "name another place or empty it yourself"
        )
    theirs = {name: is_file for name, is_file in entries.items() if name not in keep}
    added = [name for name, is_file in theirs.items() if not is_file or name not in known]
    if added:
        raise StageError(
            f"{folder} holds what pocketvl did not write and would lose: {_named(added)}; "
            "move it away or name another place"
        )
    contents = Contents()
    changed = [
        name
        for name in theirs
        if known[name] is not None and contents.file(folder / name).sha256 != known[name]
    ]
    if changed:
        raise StageError(
            f"{folder} holds files that have changed since pocketvl wrote them: {_named(changed)}; "
            "move them away or name another place"
        )


def _entries(folder: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    """All that stands in a folder, and whether it is a file; folders with something in them are gone into.

    A link to a file counts as one (git-annex and DVC put them in the place of files), other links do not.
    """
    with os.scandir(folder) as found:
        for entry in sorted(found, key=lambda each: each.name):
            name = prefix + entry.name
            inside = (
                list(_entries(Path(entry.path), f"{name}/")) if entry.is_dir(follow_symlinks=False) else []
            )
            yield from inside or [(name, entry.is_file())]


def _named(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:_MOST_NAMED])
    more = len(names) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown
