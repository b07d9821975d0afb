"""Which columns of a table are pictures, captions and labels, as Hugging Face's `datasets` keeps them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketvl.data.importers.base import ReadOptions, SourceSample, inside, label_of, official_split, texts_of
from pocketvl.errors import DataError
from pocketvl_runtime.errors import quoted

_IMAGES = ("image", "img", "picture", "jpg", "png", "file_name", "filename", "image_path")
_CAPTIONS = ("captions", "caption", "sentences", "sentence", "text", "raw", "description")
_LABELS = ("label", "labels", "fine_label", "class", "category", "class_name")


@dataclass(frozen=True)
class Columns:
    """The columns that are read; None where a table has none."""

    image: str
    caption: str | None
    label: str | None
    split: str | None

    @classmethod
    def of(cls, where: str, names: Collection[str], options: ReadOptions) -> Columns:
        """Those that were asked for, or else those of the usual names.

        Raises:
            DataError: there is no column of pictures, or none that was asked for.
        """
        image = _chosen(where, names, options.image_column, _IMAGES)
        if image is None:
            raise DataError(f"{where}: no column of pictures among {_listed(names)}; name --image-column")
        caption = _chosen(where, names, options.caption_column, _CAPTIONS)
        label = _chosen(where, names, options.label_column, _LABELS)
        return cls(image, caption, label, "split" if "split" in names else None)

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [each for each in (self.image, self.caption, self.label, self.split) if each is not None]

    def sample(
        self,
        where: str,
        row: Mapping[str, Any],
        folder: Path,
        split: str | None,
        class_names: Mapping[str, str],
    ) -> SourceSample:
        """A row's sample.

        Args:
            where: file and row, by which it is called.
            row: its values by column.
            folder: what paths of pictures are relative to.
            split: of the file.
            class_names: labels by class number or name.
        """
        found = _picture(where, row.get(self.image), folder)
        own = row.get(self.split) if self.split else None
        return SourceSample(
            found.name,
            found.picture,
            texts_of(row.get(self.caption)) if self.caption else (),
            label_of(row.get(self.label), class_names) if self.label else None,
            official_split(own) if isinstance(own, str) else split,
            found.problem,
        )


def _picture(where: str, value: object, folder: Path) -> SourceSample:
    """A picture: a path, bytes, or `{"bytes", "path"}`; in JSON, bytes are base64."""
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if isinstance(data, str):
            try:
                data = base64.b64decode(data, validate=True)
            except (binascii.Error, ValueError):
                return SourceSample(where, None, problem="has bytes that are not base64")
        value = path if data is None else data
    if isinstance(value, bytes):
        return SourceSample(where, value)
    return inside(folder, value) if isinstance(value, str) and value else SourceSample(where, None)


def _chosen(where: str, names: Collection[str], asked: str | None, usual: tuple[str, ...]) -> str | None:
    if asked is not None and asked not in names:
        raise DataError(f"{where}: no column {quoted(asked)} among {_listed(names)}")
    return asked or next((each for each in usual if each in names), None)


def _listed(names: Collection[str]) -> str:
    return quoted(", ".join(list(names)[:12]))
