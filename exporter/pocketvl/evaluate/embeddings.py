"""The embeddings of a dataset's pictures and texts, in memory and in a file."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import DataError


@dataclass(frozen=True, eq=False)
class Embeddings:
    """What one model made of a dataset.

    Attributes:
        image: float32 [N, D], one row a sample, in the dataset's order.
        text: float32 [M, D], one row a distinct text.
        texts: the M texts, in the order of the rows.
    """

    image: NDArray[np.float32]
    text: NDArray[np.float32]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.image.ndim != 2 or self.text.ndim != 2 or self.image.shape[1] != self.text.shape[1]:
            raise DataError(f"embeddings of shapes {self.image.shape} and {self.text.shape} do not fit")
        if len(self.texts) != len(self.text) or len(set(self.texts)) != len(self.texts):
            raise DataError(f"{len(self.text)} text embeddings need as many distinct texts")


def save_embeddings(path: Path, embeddings: Embeddings) -> None:
    """Writes an .npz with `image`, `text` (float32) and `texts` (a JSON list as UTF-8 bytes)."""
    texts = np.frombuffer(json.dumps(list(embeddings.texts)).encode(), dtype=np.uint8)
    with path.open("wb") as out:
        np.savez(out, image=embeddings.image, text=embeddings.text, texts=texts)


def load_embeddings(path: Path) -> Embeddings:
    """Reads what `save_embeddings` wrote.

    Raises:
        DataError: the file is missing, damaged or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            image, text = stored["image"], stored["text"]
            texts = json.loads(stored["texts"].tobytes())
    except (OSError, KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a file of embeddings ({error}); delete it and run again") from error
    if image.dtype != np.float32 or text.dtype != np.float32:
        raise DataError(f"{path}: embeddings are {image.dtype} and {text.dtype} where float32 is expected")
    return Embeddings(image, text, tuple(texts))
