"""COCO's caption files, and Karpathy's in their place.

A source is a JSON file, or a folder of COCO as it is unpacked: annotations/captions_train2017.json and the
like, with the pictures in train2017/.
Source of the format: Chen et al., 2015, "Microsoft COCO Captions" (arXiv 1504.00325).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pocketvl.data.importers.base import (
    ReadOptions,
    Source,
    SourceSample,
    image_folder,
    inside,
    official_split,
    read_json,
    split_of_file,
    splits_of_files,
    texts_of,
)
from pocketvl.errors import DataError


def read_coco(source: Path, options: ReadOptions) -> Source:
    """Pictures in the order of `images`, each with its captions.

    Raises:
        DataError: a file is no such JSON, or there is no folder of pictures.
    """
    if source.is_dir():
        files = sorted([*source.glob("captions_*.json"), *source.glob("annotations/captions_*.json")])
        if not files:
            raise DataError(f"{source}: there is no annotations/captions_*.json in it")
    else:
        files = [source]
    splits = splits_of_files(files) if len(files) > 1 else (None,)
    parts = [_pictures(path, split, options.images) for path, split in zip(files, splits, strict=True)]
    samples = [sample for part in parts for sample in part]
    return Source(len(samples), iter(samples))


def _pictures(path: Path, split: str | None, images: Path | None) -> Iterator[SourceSample]:
    document = read_json(path)
    rows = document.get("images") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        raise DataError(f"{path}: captions of COCO have a list of `images`, and this has none")
    names = [_name(path, row) for row in rows]
    folder = image_folder(path, images, _candidates(path), names[0])
    captions = _captions(path, document)
    for row, name in zip(rows, names, strict=True):
        found = inside(folder, name)
        texts = texts_of(row.get("sentences")) or texts_of(*captions.get(row.get("id"), ()))
        own = row.get("split")
        yield SourceSample(
            found.name,
            found.picture,
            texts,
            split=official_split(own) if isinstance(own, str) else split,
            problem=found.problem,
        )


def _name(path: Path, row: dict[str, Any]) -> str:
    """COCO's `file_name`; Karpathy's `filename`, in `filepath` where he names one."""
    name = row.get("file_name", row.get("filename"))
    if not isinstance(name, str):
        raise DataError(f"{path}: an entry of `images` has no file_name")
    return f"{row['filepath']}/{name}" if isinstance(row.get("filepath"), str) else name


def _captions(path: Path, document: dict[str, Any]) -> dict[Any, list[str]]:
    found: dict[Any, list[str]] = {}
    rows = document.get("annotations", [])
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, dict) or not isinstance(row.get("image_id"), int | str):
            raise DataError(f"{path}: an entry of `annotations` has no image_id")
        if isinstance(row.get("caption"), str):
            found.setdefault(row["image_id"], []).append(row["caption"])
    return found


def _candidates(path: Path) -> list[Path]:
    """captions_train2017.json: pictures in train2017/ beside it or beside its folder, or in images/."""
    stem = path.stem.removeprefix("captions_")
    around = (path.parent, path.parent.parent)
    return [folder / name for folder in around for name in (stem, f"images/{stem}", "images", "")] + (
        [path.parent / str(split_of_file(path))] if split_of_file(path) else []
    )
