"""Edits of a folder's JSON files, by which tests try what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

Edit = Callable[[Path], None]


def set_in(name: str, *path: str, to: object) -> Edit:
    """Sets a value of a JSON file by the keys that lead to it."""

    def apply(folder: Path) -> None:
        stored = json.loads((folder / name).read_text(encoding="utf-8"))
        part = stored
        for key in path[:-1]:
            part = part[key]
        part[path[-1]] = to
        (folder / name).write_text(json.dumps(stored), encoding="utf-8")

    return apply
