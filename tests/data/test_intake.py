"""Splits never overlap, the same input gives the same bytes, and nothing half is left behind."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from pocketvl import api
from pocketvl.cli import cli
from pocketvl.data.dataset import Dataset
from pocketvl.data.splits import Part, divide, parse_splits
from pocketvl.errors import DataError, StageError
from pocketvl.tasks.contrastive import ContrastiveTask
from pocketvl.tasks.embedding import ImageEmbeddingTask, TextEmbeddingTask
from pocketvl_runtime.errors import InputError
from tests.data.sources import picture, rows, tree, write

DIGESTS = [hashlib.sha256(str(k).encode()).hexdigest() for k in range(1000)]


def animals(folder: Path, count: int = 12) -> Path:
    for k in range(count):
        write(folder / ("cat" if k % 2 else "dog") / f"{k:04}.jpg", picture(k))
    return folder


@pytest.mark.parametrize(
    "text",
    ["", "test", "test=0", "test=-1", "test=1.5", "test=0.0", "../test=5", "test=5,test=6", "a=0.6,b=0.6",
     "a=rest,b=rest", "a=5,", "=5", "test=1e3", "test=nan"],
)  # fmt: skip
def test_what_is_no_split_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="--split"):
        parse_splits(text)


def test_counts_are_exact_and_shares_near() -> None:
    found = divide(DIGESTS, parse_splits("train=rest,calibration=100,test=0.2"))
    sizes = {name: list(found.values()).count(name) for name in ("train", "calibration", "test")}
    assert found.keys() == set(DIGESTS)
    assert sizes["calibration"] == 100
    assert 140 < sizes["test"] < 220  # of 900; four standard deviations are 48


def test_a_split_does_not_depend_on_the_order_of_pictures() -> None:
    parts = parse_splits("a=300,b=0.5")
    assert divide(DIGESTS, parts) == divide(DIGESTS[::-1], parts)


def test_pictures_stay_in_their_split_when_others_come() -> None:
    parts = parse_splits("train=0.7,calibration=0.1,test=0.2")
    few, many = divide(DIGESTS[:300], parts), divide(DIGESTS, parts)
    assert all(many[digest] == name for digest, name in few.items())
    assert many.keys() == set(DIGESTS)


def test_what_no_part_takes_is_left_out() -> None:
    found = divide(DIGESTS, (Part("test", share=0.3),))
    assert 240 < len(found) < 360


def test_too_few_pictures_are_named() -> None:
    with pytest.raises(DataError, match="test=20 is more than the 12"):
        divide(DIGESTS[:12], parse_splits("test=20"))
    with pytest.raises(DataError, match="leave none for train"):
        divide(DIGESTS[:12], parse_splits("test=12,train=rest"))


def test_each_split_is_a_dataset_and_none_share_a_picture(tmp_path: Path) -> None:
    source = animals(tmp_path / "in", 60)
    for k in range(0, 60, 7):  # equal pictures under other names
        shutil.copy(next(source.rglob(f"{k:04}.jpg")), source / "cat" / f"copy-{k}.jpg")
    report = api.import_data("folders", source, tmp_path / "out", split="train=rest,calibration=10,test=0.3")
    folders = {name: {row["image"] for row in rows(tmp_path / "out" / name)} for name in report.splits}
    assert sorted(folders) == ["calibration", "test", "train"]
    assert len(folders["calibration"]) == 10
    assert sum(map(len, folders.values())) == len(set().union(*folders.values())) == 60
    for name in folders:
        dataset = Dataset.open(tmp_path / "out" / name)
        ContrastiveTask.check(dataset)
        ContrastiveTask.check_calibration(dataset)
        assert len(list((dataset.root / "images").iterdir())) == len(folders[name])
    assert not (tmp_path / "out" / "images").exists()


def test_equal_pictures_become_one_sample_with_all_captions(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / "in" / f"{name}.jpg", picture(1))
    table = write(tmp_path / "in" / "captions.txt", "image,caption\na.jpg,one\nb.jpg,two\nb.jpg,one\n")
    report = api.import_data("flickr", table, tmp_path / "out")
    (row,) = rows(tmp_path / "out")
    assert row["captions"] == ["one", "two"]
    assert report.merged == 1


def test_equal_pictures_with_two_labels_stay_two_samples_in_one_split(tmp_path: Path) -> None:
    source = animals(tmp_path / "in", 20)
    for name in ("cat", "dog"):
        write(source / name / "same.jpg", picture(99))
    api.import_data("folders", source, tmp_path / "out", split="train=0.5,test=rest")
    inside = [
        [row["label"] for row in rows(tmp_path / "out" / name) if row["image"] == picture(99)]
        for name in ("train", "test")
    ]
    assert sorted(inside) == [[], ["cat", "dog"]]


def test_a_picture_of_two_official_splits_is_judged_with_and_not_trained_on(tmp_path: Path) -> None:
    for name, number in (("train/cat/1", 1), ("train/dog/2", 2), ("test/cat/3", 3), ("test/dog/4", 2)):
        write(tmp_path / "in" / f"{name}.jpg", picture(number))
    report = api.import_data("folders", tmp_path / "in", tmp_path / "out")
    assert [row["image"] for row in rows(tmp_path / "out" / "train")] == [picture(1)]
    assert [row["image"] for row in rows(tmp_path / "out" / "test")] == [picture(3), picture(2)]
    assert report.overlapping == 1


def test_other_splits_are_taken_off_the_official_training_split(tmp_path: Path) -> None:
    for k in range(20):
        write(tmp_path / "in" / ("test" if k < 5 else "train") / "cat" / f"{k}.jpg", picture(k))
    api.import_data("folders", tmp_path / "in", tmp_path / "out", split="calibration=4")
    sizes = {name: len(rows(tmp_path / "out" / name)) for name in ("train", "calibration", "test")}
    assert sizes == {"train": 11, "calibration": 4, "test": 5}
    again = api.import_data("folders", tmp_path / "in", tmp_path / "o", split="train=rest,calibration=4")
    assert {name: split.samples for name, split in again.splits.items()} == sizes
    with pytest.raises(DataError, match="a split test of its own"):
        api.import_data("folders", tmp_path / "in", tmp_path / "out", split="test=4")
    anew = api.import_data("folders", tmp_path / "in", tmp_path / "new", split="test=4", ignore_splits=True)
    assert (anew.samples, anew.left_out) == (4, 16)


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = animals(tmp_path / "in")
    for name in ("one", "two"):
        api.import_data("folders", source, tmp_path / name, split="train=rest,test=3")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_templates_go_into_every_split(tmp_path: Path) -> None:
    source, templates = animals(tmp_path / "in"), ("a {label}", "one {label}")
    api.import_data("folders", source, tmp_path / "out", split="train=rest,test=3", templates=templates)
    for name in ("train", "test"):
        assert Dataset.open(tmp_path / "out" / name).templates == templates
    with pytest.raises(InputError, match="no {label} in it"):
        api.import_data("folders", source, tmp_path / "out", templates=["a cat"])


def test_pictures_are_linked_where_it_is_asked_for(tmp_path: Path) -> None:
    source = animals(tmp_path / "in", 2)
    for link in (True, False):
        api.import_data("folders", source, tmp_path / str(link), link=link)
        found = {path.stat().st_ino for path in (tmp_path / str(link) / "images").iterdir()}
        assert (found == {path.stat().st_ino for path in source.rglob("*.jpg")}) == link


def test_only_an_own_folder_is_replaced(tmp_path: Path) -> None:
    source, out = animals(tmp_path / "in", 2), tmp_path / "out"
    api.import_data("folders", source, out)
    write(source / "cat" / "more.jpg", picture(50))
    api.import_data("folders", source, out)
    assert len(rows(out)) == 3
    write(out / "mine.txt", "")
    with pytest.raises(StageError, match=r"mine\.txt"):
        api.import_data("folders", source, out)
    with pytest.raises(DataError, match="lies in"):
        api.import_data("folders", source, source / "out")


SLOW = """
import sys, time
from pocketvl.data import intake
from pocketvl.cli import cli
take = intake._take
def slowly(*words):
    take(*words)
    print("took", flush=True)
    time.sleep(0.2)
intake._take = slowly
cli(sys.argv[1:])
"""


@pytest.mark.parametrize("ended_by", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_it_leaves_the_old_folder_whole(ended_by: signal.Signals, tmp_path: Path) -> None:
    source, out = animals(tmp_path / "in"), tmp_path / "out" / "data"
    api.import_data("folders", source, out)
    before = tree(out)
    write(source / "cat" / "more.jpg", picture(50))
    words = [sys.executable, "-c", SLOW, "data", "import", "folders", str(source), "-o", str(out)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"took\n"
    os.kill(process.pid, ended_by)
    process.wait(20)
    process.stdout.close()
    assert tree(out) == before
    if ended_by is signal.SIGINT:
        assert [each.name for each in out.parent.iterdir()] == ["data"]
    api.import_data("folders", source, out)
    assert len(rows(out)) == 13
    assert [each.name for each in out.parent.iterdir()] == ["data"], "the next one cleans up"


def test_the_command_tells_what_it_did(tmp_path: Path) -> None:
    source = animals(tmp_path / "in")
    write(source / "cat" / "broken.jpg", b"\xff\xd8")
    words = [
        "data",
        "import",
        "folders",
        str(source),
        "-o",
        str(tmp_path / "out"),
        "--split",
        "test=5,train=rest",
    ]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        f"{tmp_path / 'out' / 'test'}: 5 samples, 0 with captions, 5 with a label",
        f"{tmp_path / 'out' / 'train'}: 7 samples, 0 with captions, 7 with a label",
    ]
    assert "skipped 1 pictures" in result.stderr
    assert "cat/broken.jpg: " in result.stderr
    found = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert found["splits"]["train"]["samples"] == 7


def test_photos_alone_calibrate_an_image_encoder_by_itself_and_no_text_encoder(tmp_path: Path) -> None:
    source = animals(tmp_path / "in", 3)
    result = CliRunner().invoke(cli, ["data", "import", "photos", str(source), "-o", str(tmp_path / "out")])
    assert (
        "which an image encoder by itself does not need; one that reads texts is calibrated" in result.stderr
    )
    photos = Dataset.open(tmp_path / "out")
    ImageEmbeddingTask.check_calibration(photos)
    for task in (ContrastiveTask, TextEmbeddingTask):
        with pytest.raises(DataError, match="the text tower is calibrated with captions or labels"):
            task.check_calibration(photos)
