"""Pillow as it resized before version 13, for what others make of a picture with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from PIL import Image


@contextmanager
def rows_first() -> Iterator[None]:
    """Lets `Image.resize` go along rows first, as docs/BUNDLE.md says; Pillow 13 may begin with columns."""
    one_call = Image.Image.resize

    def resize(
        image: Image.Image, size: tuple[int, int], resample: Any = None, *others: Any, **more: Any
    ) -> Image.Image:
        assert not others
        assert not any(more.values())
        rows = one_call(image, (size[0], image.height), resample)
        return one_call(rows, (size[0], size[1]), resample)

    with patch.object(Image.Image, "resize", resize):
        yield
