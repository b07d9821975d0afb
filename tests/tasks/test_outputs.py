from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pocketvl.errors import DataError
from pocketvl.tasks.outputs import Outputs, load_outputs, save_outputs

IMAGE, TEXT = "image_encoder.embedding", "text_encoder.embedding"


def test_saved_outputs_come_back_the_same(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = ("a cat", "with\x00nul and trailing\x00", "émoji 🐈")
    arrays = {
        IMAGE: rng.normal(size=(5, 4)).astype(np.float32),
        TEXT: rng.normal(size=(3, 4)).astype(np.float32),
    }
    save_outputs(tmp_path / "o.npz", Outputs(arrays, texts))
    loaded = load_outputs(tmp_path / "o.npz")
    assert loaded.texts == texts
    assert list(loaded.arrays) == [IMAGE, TEXT]
    assert all(loaded[port].tobytes() == rows.tobytes() for port, rows in arrays.items())
    assert loaded.most is None
    save_outputs(tmp_path / "part.npz", Outputs(arrays, texts, most=5))
    part = load_outputs(tmp_path / "part.npz")
    assert (part.most, part.texts, list(part.arrays)) == (5, texts, [IMAGE, TEXT])


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04 cut off"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"bad\.npz"):
        load_outputs(path)
    with pytest.raises(DataError, match=r"missing\.npz"):
        load_outputs(tmp_path / "missing.npz")


def test_another_dtype_or_a_missing_part_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "part.npz", image=np.zeros((2, 2), dtype=np.float32))
    with pytest.raises(DataError, match="not a file of a model's outputs"):
        load_outputs(tmp_path / "part.npz")
    save_outputs(tmp_path / "wide.npz", Outputs({IMAGE: np.zeros((2, 2))}, ()))  # type: ignore[dict-item]
    with pytest.raises(DataError, match="image_encoder.embedding is float64"):
        load_outputs(tmp_path / "wide.npz")


def test_a_port_that_is_not_there_is_named() -> None:
    with pytest.raises(DataError, match="no outputs of fusion.logits, only of image_encoder.embedding"):
        Outputs({IMAGE: np.zeros((1, 2), np.float32)}, ())["fusion.logits"]
