"""The dataset folder: what is written comes back, and what is wrong is named by file and line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import DataError


def folder(root: Path, *rows: dict[str, Any]) -> Path:
    Image.new("RGB", (4, 4)).save(root / "a.png")
    write_samples(root, ({"image": "a.png", **row} for row in rows))
    return root


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    odd = "line\u2028separator, next\u0085line, \u00e9, \U0001f600"
    row = {"captions": [odd, "b"], "negatives": ["c"], "negative_kinds": ["colour"], "label": "x"}
    (sample,) = Dataset.open(folder(tmp_path, row)).samples
    assert sample.captions == (odd, "b")
    assert (sample.negatives, sample.negative_kinds, sample.label) == (("c",), ("colour",), "x")


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"captions": "a"}, "`captions` must be a list"),
        ({"captions": ["a", " "]}, "`captions` holds an empty text"),
        ({"label": ""}, "`label` must be a string that is not empty"),
        ({"negatives": ["a", "b"], "negative_kinds": ["colour"]}, "a kind for each"),
        ({"image": "../a.png"}, "outside"),
        ({"image": "b.png"}, "does not exist"),
        ({"qa": [1]}, "`qa` must be a list of objects"),
    ],
)
def test_a_bad_sample_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as raised:
        Dataset.open(folder(tmp_path, {"captions": ["fine"]}, row))
    assert "samples.jsonl:2" in str(raised.value)
