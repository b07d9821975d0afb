"""Each format, as it is passed around: pictures byte for byte, captions, labels and official splits."""

from __future__ import annotations

import base64
import json
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from pocketvl import api
from pocketvl.data.importers import IMPORTERS
from pocketvl.data_commands import FORMATS
from pocketvl.errors import DataError
from tests.data.sources import BROKEN, picture, rows, write, write_tar

CIFAR = Path(__file__).parents[3] / "shared" / "data" / "cifar10_train_12k.zip"


def test_the_command_offers_every_format() -> None:
    assert tuple(IMPORTERS) == FORMATS


@pytest.mark.parametrize("archived", [False, True])
def test_class_folders_give_labels(archived: bool, tmp_path: Path) -> None:
    source = tmp_path / "animals"
    for number, name in enumerate(("cat/1.jpg", "cat/more/2.PNG", "sea_lion/1.jpg")):
        write(source / name, picture(number, "PNG" if name.endswith("PNG") else "JPEG"))
    write(source / "cat" / "notes.txt", "no picture")
    write(source / "__MACOSX" / "cat" / "._1.jpg", "no picture either")
    if archived:
        with zipfile.ZipFile(tmp_path / "animals.zip", "w") as archive:
            for path in sorted(source.rglob("*")):
                archive.write(path, path.relative_to(tmp_path))
        source = tmp_path / "animals.zip"
    report = api.import_data("folders", source, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert [row["label"] for row in found] == ["cat", "cat", "sea lion"]
    assert [row["image"] for row in found] == [picture(0), picture(1, "PNG"), picture(2)]
    assert report.splits[""].labelled == 3
    assert not report.skipped


def test_class_folders_may_be_numbers_that_a_file_names(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / "in" / f"n0{number}" / "a.jpg", picture(number))
    names = {"n00": "tench", "n01": "goldfish"}
    api.import_data("folders", tmp_path / "in", tmp_path / "out", class_names=names)
    assert [row["label"] for row in rows(tmp_path / "out")] == ["tench", "goldfish"]


def test_splits_of_class_folders_are_kept(tmp_path: Path) -> None:
    for number, name in enumerate(("train/cat/1", "train/dog/2", "val/cat/3", "test/dog/4")):
        write(tmp_path / "in" / "set" / f"{name}.jpg", picture(number))
    report = api.import_data("folders", tmp_path / "in", tmp_path / "out")
    assert {name: split.samples for name, split in report.splits.items()} == {
        "calibration": 1,
        "test": 1,
        "train": 2,
    }
    assert [row["label"] for row in rows(tmp_path / "out" / "train")] == ["cat", "dog"]


def test_one_folder_of_pictures_is_no_class(tmp_path: Path) -> None:
    write(tmp_path / "in" / "1.jpg", picture(1))
    with pytest.raises(DataError, match="import plain photos by `photos`"):
        api.import_data("folders", tmp_path / "in", tmp_path / "out")
    write(tmp_path / "in" / "cat" / "2.jpg", picture(2))
    report = api.import_data("folders", tmp_path / "in", tmp_path / "out")
    assert report.skipped == ("1.jpg: is in no folder of a class",)


def coco(folder: Path, split: str, first: int, names: str = "captions_{}2017.json") -> Path:
    """Two pictures with two captions and one."""
    for number in (first, first + 1):
        write(folder / f"{split}2017" / f"{number:03}.jpg", picture(number))
    images = [{"id": 7 + number, "file_name": f"{number:03}.jpg"} for number in (first, first + 1)]
    captions = [(7 + first, "one"), (8 + first, " other "), (7 + first, "two"), (7 + first, "one")]
    document = {"images": images, "annotations": [{"image_id": i, "caption": c} for i, c in captions]}
    return write(folder / "annotations" / names.format(split), json.dumps(document))


def test_coco_captions_are_gathered_by_picture(tmp_path: Path) -> None:
    source = coco(tmp_path, "val", 3)
    api.import_data("coco", source, tmp_path / "out")
    assert [(row["captions"], row["image"]) for row in rows(tmp_path / "out")] == [
        (["one", "two"], picture(3)),
        (["other"], picture(4)),
    ]


def test_a_folder_of_coco_has_the_splits_of_its_files(tmp_path: Path) -> None:
    """Without a test split of its own, which COCO gives no captions of, validation is what judges."""
    coco(tmp_path / "coco", "train", 1)
    coco(tmp_path / "coco", "val", 3)
    api.import_data("coco", tmp_path / "coco", tmp_path / "out")
    assert [row["image"] for row in rows(tmp_path / "out" / "train")] == [picture(1), picture(2)]
    assert [row["image"] for row in rows(tmp_path / "out" / "test")] == [picture(3), picture(4)]


def test_karpathys_splits_are_read(tmp_path: Path) -> None:
    images = [
        {"filepath": "val2014", "filename": f"{k}.jpg", "split": split, "sentences": [{"raw": f"text {k}"}]}
        for k, split in enumerate(("train", "restval", "val", "test"))
    ]
    for k in range(4):
        write(tmp_path / "images" / "val2014" / f"{k}.jpg", picture(k))
    source = write(tmp_path / "dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))
    report = api.import_data("coco", source, tmp_path / "out")
    assert {name: split.samples for name, split in report.splits.items()} == {
        "calibration": 1,
        "test": 1,
        "train": 2,
    }
    assert rows(tmp_path / "out" / "test")[0]["captions"] == ["text 3"]


FLICKR = {
    "captions.txt": 'image,caption\n1.jpg,"A dog , running ."\n1.jpg,"A ""dog"" ."\n2.jpg,Two men .\n',
    "results.csv": "image_name| comment_number| comment\n1.jpg| 0| A dog , running .\n"
    '1.jpg| 1| A "dog" .\n2.jpg| 4   Two men .\n',  # as row 2199200615.jpg of the original
    "results.token": '1.jpg#0\tA dog , running .\n1.jpg#1\tA "dog" .\n2.jpg#0\tTwo men .\n',
    "flickr_annotations_30k.csv": "raw,sentids,split,filename,img_id\n"
    '"[""A dog , running ."", ""A \\""dog\\"" .""]","[0, 1]",train,1.jpg,0\n'
    '"[\'Two men .\']","[5]",test,2.jpg,1\n',
}


@pytest.mark.parametrize("name", FLICKR)
def test_flickr_tables_are_read(name: str, tmp_path: Path) -> None:
    for k in (1, 2):
        write(tmp_path / "flickr30k_images" / f"{k}.jpg", picture(k))
    api.import_data("flickr", write(tmp_path / name, FLICKR[name]), tmp_path / "out", split="")
    folders = [tmp_path / "out" / each for each in (("train", "test") if "raw" in FLICKR[name] else ("",))]
    found = [row for folder in folders for row in rows(folder)]
    assert [(row["image"], row["captions"]) for row in found] == [
        (picture(1), ["A dog , running .", 'A "dog" .']),
        (picture(2), ["Two men ."]),
    ]


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        ("a,b\n1,2\n", "names no column of pictures"),
        ("image,caption\n1.jpg\n", ":2: 1 columns where 2 are needed"),
        ("image,caption\n", "there are no rows"),
        ("", "names no column"),
        ("1.jpg#0\ta\nodd\n", ":2: not of the form"),
    ],
)
def test_other_tables_are_named(table: str, complaint: str, tmp_path: Path) -> None:
    write(tmp_path / "1.jpg", picture(1))
    with pytest.raises(DataError, match=complaint):
        api.import_data("flickr", write(tmp_path / "t.csv", table), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_shards_are_read_sample_by_sample(tmp_path: Path) -> None:
    shards = tmp_path / "shards"
    told = json.dumps({"caption": "by json", "label": 1}).encode()
    write_tar(
        shards / "train-000.tar",
        {
            "a/0001.jpg": picture(1),
            "a/0001.txt": b"a text\n",
            "a/0001.cls": b"0",
            "a/0002.json": told,
            "a/0002.png": picture(2, "PNG"),
            "a/0003.txt": b"no picture",
            "README": b"",
        },
    )
    write_tar(shards / "test-000.tar.gz", {"b.jpg": picture(3), "b.cls": b"1"})
    names = {"0": "cat", "1": "dog"}
    report = api.import_data("webdataset", shards, tmp_path / "out", class_names=names)
    first, second = rows(tmp_path / "out" / "train")
    assert (first["image"], first["captions"], first["label"]) == (picture(1), ["a text"], "cat")
    assert (second["image"], second["captions"], second["label"]) == (picture(2, "PNG"), ["by json"], "dog")
    assert [row["label"] for row in rows(tmp_path / "out" / "test")] == ["dog"]
    assert [line.partition(":")[0] for line in report.skipped] == ["train-000.tar/a/0003"]


def test_a_cut_shard_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", {f"{k}.jpg": picture(k) for k in range(4)})
    whole = shard.read_bytes()
    for length in (2000, 2048, 100, 0):
        shard.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"0\.tar cannot be read as a tar file|no picture"):
            api.import_data("webdataset", shard, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["0.tar"]


def test_parquet_of_datasets_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="pyarrow (pocketvl[parquet]) is not installed")
    from pyarrow import parquet

    write(tmp_path / "data" / "beside.jpg", picture(2))
    features = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    for name, numbers in (("train-00000-of-00001", (1, 2)), ("test-00000-of-00001", (3,))):
        images = [
            {"bytes": None, "path": "beside.jpg"} if k == 2 else {"bytes": picture(k), "path": f"{k}.jpg"}
            for k in numbers
        ]
        columns = {
            "image": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "caption": [[f"text {k}", "more"] for k in numbers],
            "label": pa.array([k % 2 if k < 3 else -1 for k in numbers], pa.int64()),
            "other": [0.5] * len(numbers),
        }
        table = pa.table(columns).replace_schema_metadata({"huggingface": json.dumps(features)})
        parquet.write_table(table, tmp_path / "data" / f"{name}.parquet")
    api.import_data("parquet", tmp_path / "data", tmp_path / "out")
    first, second = rows(tmp_path / "out" / "train")
    assert (first["image"], first["captions"], first["label"]) == (picture(1), ["text 1", "more"], "dog")
    assert (second["image"], second["label"]) == (picture(2), "cat")
    (third,) = rows(tmp_path / "out" / "test")
    assert "label" not in third
    with pytest.raises(DataError, match="no column 'photo'"):
        api.import_data("parquet", tmp_path / "data", tmp_path / "o", columns={"image": "photo"})
    broken = write(tmp_path / "broken.parquet", b"PAR1 and nothing")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        api.import_data("parquet", broken, tmp_path / "o")


def test_without_pyarrow_parquet_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    source = write(tmp_path / "a.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"pip install pocketvl\[parquet\]"):
        api.import_data("parquet", source, tmp_path / "out")


def test_json_lines_of_datasets_are_read(tmp_path: Path) -> None:
    encoded = base64.b64encode(picture(2)).decode()
    lines = [
        {"image": {"path": "1.jpg"}, "text": "a", "label": "cat"},
        {"image": {"bytes": encoded, "path": "gone.jpg"}, "text": ["b", "c"], "label": None},
        {"image": {"bytes": "?"}, "text": "d"},
        {"image": "../1.jpg", "text": "e"},
    ]
    write(tmp_path / "in" / "1.jpg", picture(1))
    source = write(tmp_path / "in" / "rows.jsonl", "\n".join(map(json.dumps, lines)) + "\n")
    report = api.import_data("jsonl", source, tmp_path / "out")
    first, second = rows(tmp_path / "out")
    assert (first["image"], first["captions"], first["label"]) == (picture(1), ["a"], "cat")
    assert (second["image"], second["captions"]) == (picture(2), ["b", "c"])
    assert report.skipped == (
        "rows.jsonl:3: has bytes that are not base64",
        "../1.jpg: lies outside the folder of pictures",
    )


def test_metadata_beside_pictures_is_read_with_its_folders_split(tmp_path: Path) -> None:
    for k, split in enumerate(("train", "test")):
        write(tmp_path / "in" / split / "a.png", picture(k, "PNG"))
        write(tmp_path / "in" / split / "metadata.jsonl", f'{{"file_name": "a.png", "text": "no. {k}"}}\n')
    api.import_data("jsonl", tmp_path / "in", tmp_path / "out")
    assert rows(tmp_path / "out" / "test")[0]["captions"] == ["no. 1"]


def test_photos_have_nothing_but_pictures(tmp_path: Path) -> None:
    for k, name in enumerate(("b/1.jpg", "a.jpg", "b/.hidden.jpg", "c.txt")):
        write(tmp_path / "in" / name, picture(k))
    report = api.import_data("photos", tmp_path / "in", tmp_path / "out")
    assert [row["source"] for row in rows(tmp_path / "out")] == ["a.jpg", "b/1.jpg"]
    assert report.splits[""].captioned == report.splits[""].labelled == 0


def test_pictures_that_cannot_be_used_are_named_and_skipped(tmp_path: Path) -> None:
    write(tmp_path / "in" / "cat" / "0.jpg", picture(0))
    write(tmp_path / "in" / "cat" / "1.jpg", BROKEN)
    write(tmp_path / "in" / "cat" / "2.png", picture(2, "PNG")[:60])
    write(tmp_path / "in" / "cat" / "3.jpg", "text")
    report = api.import_data("folders", tmp_path / "in", tmp_path / "out")
    assert len(rows(tmp_path / "out")) == 1
    assert [line.partition(":")[0] for line in report.skipped] == ["cat/1.jpg", "cat/2.png", "cat/3.jpg"]
    written = json.loads((tmp_path / "out" / "import.json").read_text())
    assert written["skipped"] == list(report.skipped)
    with pytest.raises(DataError, match=r"cat/1\.jpg: .*; leave out --strict"):
        api.import_data("folders", tmp_path / "in", tmp_path / "strict", strict=True)
    assert not (tmp_path / "strict").exists()


def test_a_damaged_zip_skips_what_is_damaged(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "in.zip", "w") as archive:
        for k in range(3):
            archive.writestr(f"cat/{k}.jpg", picture(k))
    whole = (tmp_path / "in.zip").read_bytes()
    at = whole.index(picture(1))
    (tmp_path / "in.zip").write_bytes(whole[: at + 90] + b"\0\0\0\0" + whole[at + 94 :])
    report = api.import_data("folders", tmp_path / "in.zip", tmp_path / "out")
    assert report.skipped == ("cat/1.jpg: cannot be read out of the archive",)
    assert [row["image"] for row in rows(tmp_path / "out")] == [picture(0), picture(2)]


@pytest.mark.skipif(not CIFAR.is_file(), reason="the photographs are not beside the checkout")
def test_a_zip_of_real_photographs_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(CIFAR) as archive, zipfile.ZipFile(tmp_path / "few.zip", "w") as few:
        for name in sorted(archive.namelist())[::400]:
            few.writestr(name, archive.read(name))
    report = api.import_data("folders", tmp_path / "few.zip", tmp_path / "out", strict=True)
    found = rows(tmp_path / "out")
    assert report.samples == len(found) >= 30
    assert len({row["label"] for row in found}) == 10
    assert Image.open(tmp_path / "out" / "images" / next((tmp_path / "out" / "images").iterdir())).size == (
        32,
        32,
    )
