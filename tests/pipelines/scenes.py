"""A few scenes with captions that use few tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pocketvl.data.dataset import write_samples
from pocketvl.tabletop.folder import write_tabletop

_SCENES = 6


def write_scenes(folder: Path, captions: Sequence[str] = ()) -> Path:
    """Six scenes in a new folder, each with one caption: of those given, or its own first one."""
    folder.mkdir()
    write_tabletop(folder, 21, _SCENES, size=40)
    rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    chosen = captions or [row["captions"][0] for row in rows]
    write_samples(
        folder, [{"image": row["image"], "captions": [text]} for row, text in zip(rows, chosen, strict=True)]
    )
    return folder
