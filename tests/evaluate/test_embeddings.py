from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.evaluate.embeddings import Embeddings, load_embeddings, save_embeddings


def test_saved_embeddings_come_back_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ("a cat", "with\x00nul and trailing\x00", "émoji 🐈")
    stored = Embeddings(
        rng.normal(size=(5, 4)).astype(np.float32), rng.normal(size=(3, 4)).astype(np.float32), texts
    )
    save_embeddings(tmp_path / "e.npz", stored)
    loaded = load_embeddings(tmp_path / "e.npz")
    assert loaded.texts == texts
    assert loaded.image.tobytes() == stored.image.tobytes()
    assert loaded.text.tobytes() == stored.text.tobytes()


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.npz"):
        load_embeddings(path)
    with pytest.raises(DataError, match=r"missing\.npz"):
        load_embeddings(tmp_path / "missing.npz")


def test_another_dtype_or_a_missing_part_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", image=np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(DataError, match="embeddings"):
        load_embeddings(tmp_path / "part.npz")
    wide = Embeddings(np.zeros((2, 2)), np.zeros((1, 2)), ("a",))  # type: ignore[arg-type]
    save_embeddings(tmp_path / "wide.npz", wide)
    with pytest.raises(DataError, match="float64"):
        load_embeddings(tmp_path / "wide.npz")


def test_shapes_and_texts_must_fit() -> None:
    image, text = np.zeros((2, 3), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)
    with pytest.raises(DataError, match="distinct"):
        Embeddings(image, text, ("a", "a"))
    with pytest.raises(DataError, match="fit"):
        Embeddings(image, text[:, :2], ("a", "b"))
