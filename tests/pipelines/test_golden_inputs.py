"""The golden pack has every kind of input on which preprocessing tends to differ, and tells only pixels."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageChops, PngImagePlugin

from pocketvl.data.dataset import Dataset, write_samples
from pocketvl.pipelines.golden_inputs import HARD_STRINGS, golden_images, golden_texts
from pocketvl.tasks.contrastive_golden import ContrastiveGolden
from pocketvl_runtime.image import open_image
from pocketvl_runtime.text import check_texts

ORIENTATION, MAKER = 0x0112, 0x010F


def paint(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def dataset(root: Path, count: int = 8, fmt: str = "PNG", suffix: str = ".png", **options: Any) -> Dataset:
    root.mkdir()
    rows = []
    for index in range(count):
        paint(index).save(root / f"{index}{suffix}", fmt, **options)
        rows.append({"image": f"{index}{suffix}", "captions": [f"caption {index}"]})
    write_samples(root, rows)
    return Dataset.open(root)


def exif(**tags: int | str) -> Image.Exif:
    written = Image.Exif()
    for name, value in tags.items():
        written[{"orientation": ORIENTATION, "maker": MAKER}[name]] = value
    return written


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Image.Image]:
    pack = golden_images(dataset(tmp_path / "data"))
    return {name: Image.open(io.BytesIO(content)) for name, content in pack.items()}


def test_there_is_a_picture_of_every_kind(pictures: dict[str, Image.Image]) -> None:
    assert len(pictures) == 6
    opened = list(pictures.values())
    assert {image.format for image in opened} == {"JPEG", "PNG"}
    assert any(image.width > 2 * image.height for image in opened)
    assert any(image.height > image.width for image in opened)
    assert any(image.mode == "L" for image in opened)
    (alpha,) = [image for image in opened if image.mode == "RGBA"]
    assert alpha.getchannel("A").getextrema() == (0, 255)
    (turned,) = [image for image in opened if image.getexif().get(ORIENTATION, 1) != 1]
    assert turned.getexif()[ORIENTATION] == 6
    assert open_image(turned).size == (turned.height, turned.width)
    assert any(max(image.size) <= 8 and image.mode == "P" for image in opened)
    assert any(image.width * image.height > 5_000_000 for image in opened)


def test_names_say_what_the_files_are(pictures: dict[str, Image.Image]) -> None:
    for name, image in pictures.items():
        assert image.format == {".jpg": "JPEG", ".png": "PNG"}[Path(name).suffix]
    assert len({Path(name).stem for name in pictures}) == 6


def test_the_same_dataset_gives_the_same_bytes(tmp_path: Path) -> None:
    first = dataset(tmp_path / "a", fmt="JPEG", suffix=".jpg", exif=exif(maker="A phone"))
    second = dataset(tmp_path / "b", fmt="JPEG", suffix=".jpg", exif=exif(maker="A phone"))
    assert golden_images(first) == golden_images(second)


def test_a_dataset_of_one_picture_is_enough(tmp_path: Path) -> None:
    assert len(golden_images(dataset(tmp_path / "data", count=1))) == 6


@pytest.mark.parametrize(
    ("fmt", "suffix", "name"),
    [("PNG", ".png", "plain.png"), ("JPEG", ".jpeg", "plain.jpg"), ("PNG", ".jpg", "plain.png")],
)
def test_a_plain_picture_keeps_its_bytes_under_the_suffix_that_is_true(
    fmt: str, suffix: str, name: str, tmp_path: Path
) -> None:
    source = dataset(tmp_path / "data", fmt=fmt, suffix=suffix)
    pack = golden_images(source)
    assert next(iter(pack)) == name
    assert pack[name] == source.samples[0].image.read_bytes()


@pytest.mark.parametrize(
    ("fmt", "suffix", "name"),
    [
        ("WEBP", ".webp", "plain.png"),
        ("BMP", ".bmp", "plain.png"),
        ("TIFF", ".tif", "plain.png"),
        ("GIF", ".gif", "plain.png"),
    ],
)
def test_another_format_becomes_a_png_of_the_same_pixels(
    fmt: str, suffix: str, name: str, tmp_path: Path
) -> None:
    source = dataset(tmp_path / "data", fmt=fmt, suffix=suffix)
    pack = golden_images(source)
    assert next(iter(pack)) == name
    assert (
        ImageChops.difference(open_image(pack[name]), open_image(source.samples[0].image)).getbbox() is None
    )


def told_by_png() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Author", "Somebody")
    return info


@pytest.mark.parametrize(
    ("fmt", "options"),
    [
        ("JPEG", {"exif": exif(maker="A phone", orientation=6)}),
        ("JPEG", {"comment": b"Somebody"}),
        ("JPEG", {"xmp": b"<x:xmpmeta>Somebody</x:xmpmeta>"}),
        ("JPEG", {"icc_profile": b"Somebody" * 20}),
        ("PNG", {"exif": exif(maker="A phone", orientation=6)}),
        ("PNG", {"pnginfo": told_by_png()}),
        ("WEBP", {"exif": exif(maker="A phone", orientation=6), "icc_profile": b"Somebody" * 20}),
        ("TIFF", {"exif": exif(maker="A phone", orientation=6)}),
    ],
    ids=["exif", "comment", "xmp", "profile", "PNG's exif", "PNG's text", "WebP", "TIFF"],
)
def test_nothing_but_pixels_gets_in(fmt: str, options: dict[str, Any], tmp_path: Path) -> None:
    source = dataset(tmp_path / "data", fmt=fmt, suffix=f".{fmt.lower()}", **options)
    upright = open_image(source.samples[0].image)
    for name, content in golden_images(source).items():
        assert b"Somebody" not in content
        assert b"A phone" not in content
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            assert set(image.getexif()) == ({ORIENTATION} if name == "turned.jpg" else set())
            if name.startswith("plain"):
                assert name == ("plain.jpg" if fmt == "JPEG" else "plain.png")
                assert image.size == upright.size
                assert np.abs(np.asarray(image, int) - np.asarray(upright)).mean() < 4


def test_there_are_twelve_texts_that_the_runtime_takes() -> None:
    texts = golden_texts(["caption 0", "caption 1", "caption 0"])
    assert len(texts) == len(set(texts)) == 12
    assert texts[:3] == ("caption 0", "caption 1", "a photo of number 1")
    assert texts[6:] == HARD_STRINGS
    check_texts(texts)
    assert golden_texts(f"caption {k}" for k in range(20))[4:7] == ("caption 4", "caption 5", HARD_STRINGS[0])


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        (({"captions": ["b", "c"], "label": "dog"}, {"captions": ["a"]}, {"captions": ["b"]}), ("b", "a")),
        (({"label": "dog"}, {"label": "cat"}, {"label": "dog"}), ("a photo of a cat", "a photo of a dog")),
        (({},), ()),
    ],
)
def test_texts_are_a_datasets_captions_or_labels(
    rows: tuple[dict[str, Any], ...], texts: tuple[str, ...], tmp_path: Path
) -> None:
    source = dataset(tmp_path / "data")
    write_samples(source.root, [{"image": "0.png", **row} for row in rows])
    cases = ContrastiveGolden("image_encoder.embedding", "text_encoder.embedding", 1.0)
    assert cases.texts(Dataset.open(source.root)) == texts
