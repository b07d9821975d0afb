"""Small datasets as people keep them, made of pictures that are told apart by a number."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pocketvl.data.dataset import Dataset

BROKEN = b"\xff\xd8\xff\xe0 cut off"


def picture(number: int, kind: str = "JPEG") -> bytes:
    """An encoded picture of noise."""
    pixels = np.random.default_rng(number).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


def write(path: Path, data: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def rows(folder: Path) -> list[dict[str, Any]]:
    """What samples.jsonl says, with the bytes of each picture in place of its path."""
    Dataset.open(folder)
    lines = (folder / "samples.jsonl").read_text("utf-8").splitlines()
    return [{**row, "image": (folder / row["image"]).read_bytes()} for row in map(json.loads, lines)]


def tree(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
