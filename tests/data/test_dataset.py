"""The dataset folder: what is written comes back, and what is wrong is named by file and line."""

from __future__ import annotations

import codecs
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.errors import DataError
from pocketvl_runtime.image import open_image
from pocketvl_runtime.manifest import Modality
from tests.runtime.sounds import tone, wav_bytes


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
        ({"image": "images/../../a.png"}, "outside"),
        ({"image": "/etc/hostname"}, "outside"),
        ({"image": "a" * 5000}, "cannot be a file: File name too long"),
        ({"image": "a/" * 5000}, "image .{,100} cannot be a file"),
        ({"image": "a.png/b.png"}, "does not exist"),
        ({"image": "."}, "not a regular file"),
        ({"image": "b.png"}, "does not exist"),
        ({"qa": [1]}, "`qa` must be a list of objects"),
    ],
)
def test_a_bad_sample_is_named_by_its_line(tmp_path: Path, row: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as raised:
        Dataset.open(folder(tmp_path, {"captions": ["fine"]}, row))
    assert "samples.jsonl:2" in str(raised.value)
    assert len(str(raised.value)) < 300 + len(str(tmp_path))


def test_templates_of_labels_may_stand_in_the_folder(tmp_path: Path) -> None:
    root = folder(tmp_path, {"label": "cat"})
    assert Dataset.open(root).templates == ("a photo of a {label}",)
    (root / "templates.txt").write_bytes(codecs.BOM_UTF8 + b"a {label}\r\n\n one {label} \na {label}\n")
    assert Dataset.open(root).templates == ("a {label}", "one {label}")
    for text, complaint in (("a cat\n", "no {label} in it"), ("\n", "0 templates"), ("\xff", "not UTF-8")):
        (root / "templates.txt").write_bytes(text.encode("latin-1"))
        with pytest.raises(DataError, match=complaint):
            Dataset.open(root)


@pytest.mark.parametrize("start", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_files_written_on_windows_are_read(start: bytes, end: str, tmp_path: Path) -> None:
    folder(tmp_path, {"captions": ["caf\u00e9"]}, {"label": "x"})
    listing = tmp_path / "samples.jsonl"
    listing.write_bytes(start + listing.read_text("utf-8").replace("\n", end).encode())
    first, second = Dataset.open(tmp_path).samples
    assert (first.captions, second.label) == (("caf\u00e9",), "x")


def test_links_are_followed_wherever_they_lead(tmp_path: Path) -> None:
    """As DVC, git-annex and the hub's cache leave them: links into a store outside the folder."""
    store, root = tmp_path / "store", tmp_path / "data"
    (store / "images").mkdir(parents=True)
    root.mkdir()
    folder(store, {}).joinpath("a.png").rename(store / "0f3a")
    Image.new("RGB", (4, 4)).save(store / "images" / "b.png")
    write_samples(store, [{"image": name} for name in ("a.png", "images/b.png", f"{tmp_path}/way/a.png")])
    (root / "samples.jsonl").symlink_to(store / "samples.jsonl")
    (root / "a.png").symlink_to("../store/0f3a")
    (root / "images").symlink_to(store / "images")
    (tmp_path / "way").symlink_to(root)
    dataset = Dataset.open(tmp_path / "way")
    assert [sample.image.name for sample in dataset.samples] == ["a.png", "b.png", "a.png"]
    assert all(sample.image.is_relative_to(dataset.root) for sample in dataset.samples)
    assert all(open_image(sample.image).size == (4, 4) for sample in dataset.samples)


def test_a_link_to_nothing_and_a_pipe_are_named(tmp_path: Path) -> None:
    folder(tmp_path, {"image": "gone.png"})
    (tmp_path / "gone.png").symlink_to(tmp_path / ".git" / "annex" / "objects" / "gone.png")
    with pytest.raises(DataError, match=r"samples\.jsonl:1: image 'gone.png' is a link .*fetch it"):
        Dataset.open(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "gone.png").unlink()
    (tmp_path / "gone.png").symlink_to(tmp_path / "pipe")
    with pytest.raises(DataError, match="fetch it|not a regular file"):
        Dataset.open(tmp_path)
    folder(tmp_path, {"image": "pipe"})
    with pytest.raises(DataError, match="'pipe' is not a regular file"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"image": "a.png", "objects": [{"size": ' + "1" * 5000 + "}]}", '{"image": }']
)
def test_json_that_python_does_not_read_is_named_by_its_line(line: str, tmp_path: Path) -> None:
    folder(tmp_path, {})
    with (tmp_path / "samples.jsonl").open("a") as listing:
        listing.write(line + "\n")
    with pytest.raises(DataError, match=r"samples\.jsonl:2: .*JSON"):
        Dataset.open(tmp_path)


def test_a_sample_is_a_sound_or_a_picture_or_both(tmp_path: Path) -> None:
    folder(tmp_path, {})
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(wav_bytes(tone()))
    rows = [{"audio": "a.wav", "label": "tone"}, {"image": "a.png", "audio": "b.wav", "label": "tone"}]
    write_samples(tmp_path, rows)
    dataset = Dataset.open(tmp_path)
    assert dataset.media(Modality.AUDIO) == (tmp_path / "a.wav", tmp_path / "b.wav")
    assert dataset.samples[1].image == tmp_path / "a.png"
    with pytest.raises(
        DataError, match=r"a\.wav: this sample has no image, which the model takes; .*`image` path"
    ):
        dataset.media(Modality.IMAGE)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"label": "x"}, "at least an `image` path or an `audio` path"),
        ({"audio": 3}, "at least an `image` path or an `audio` path"),
        ({"audio": "none.wav"}, "audio 'none.wav' does not exist"),
        ({"image": "a.png", "audio": "../a.wav"}, "audio '../a.wav' lies outside the folder"),
    ],
)
def test_a_sound_that_is_not_there_is_named(row: dict[str, object], says: str, tmp_path: Path) -> None:
    folder(tmp_path, {})
    write_samples(tmp_path, [row])
    with pytest.raises(DataError, match=says):
        Dataset.open(tmp_path)
