"""Every key of a processor file means what transformers makes of it, or is refused by name."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl.errors import SourceError
from pocketvl.families.folders.image_processor import CLIP_PROCESSOR, read_preprocess
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.manifest import Resize
from tests.pillow import rows_first

SIDE = 32
ABSENT = ...
SINGLE, COMBINED = "preprocessor_config.json", "processor_config.json"
SQUARE = {"height": SIDE, "width": SIDE}
BASE = {"image_processor_type": CLIP_PROCESSOR, "size": {"shortest_edge": 36}, "crop_size": SQUARE}
ANY = (None, True, False)
SIZES = (
    *(SIDE, 40, [34, 50], [33, 40, 7], {"shortest_edge": 35}, {"height": 40, "width": 36}),
    {"shortest_edge": 33, "longest_edge": None},
)
OTHER_SIZES: tuple[Any, ...] = (
    *(None, 0, -1, 16, True, "big", 32.5, [], [36], [36, 0], {}, {"shortest_edge": 33.0}, {"edge": 36}),
    *({"shortest_edge": None}, {"height": 40}, {"height": 40, "width": None}, {"longest_edge": 40}),
    *({"shortest_edge": 33, "longest_edge": 40}, {"max_height": 40, "max_width": 40}),
    *({"shortest_edge": 33, "height": None}, {"min_pixels": 9, "max_pixels": 2000}),
)
OTHER_CROPS: tuple[Any, ...] = (
    *(None, 0, 24, 32.0, "all", [SIDE], {"shortest_edge": SIDE}, {"height": SIDE}),
    *({"height": 32, "width": 24}, {"height": SIDE, "width": None}, {"height": 48, "width": 48}),
)
# By key of the class: the values that are supported, and those that are refused, each put into BASE.
VALUES: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "do_convert_rgb": ((True,), (None, False, "yes", 1)),
    "do_resize": ((True,), (None, False, 0)),
    "size": (SIZES, OTHER_SIZES),
    "default_to_square": (ANY, ()),
    "crop_size": ((SIDE, [SIDE, SIDE], [SIDE, SIDE, 1], SQUARE), OTHER_CROPS),
    "resample": ((1, 2, 3, 4, 5), (None, 0, 6, 3.0, "bicubic", True)),
    "do_center_crop": ((True,), (None, False, "no")),
    "do_rescale": (ANY, ("yes", 1)),
    "rescale_factor": ((1 / 255, 0.5, 1, 2), (None, 0, -1, "1/255", True, float("nan"), float("inf"))),
    "do_normalize": (ANY, ("yes", 0)),
    "image_mean": (([0.1, 0.2, 0.3], [0, 0, 0], 0.5, 0, -1), (None, [0.5], [0.5] * 4, "half", [None] * 3)),
    "image_std": (([0.1, 0.2, 0.3], 0.5, 2), (None, [0.5], [1, 0, 1], 0, -1, [], {"red": 1})),
    "do_pad": ((None, False, True), ("yes",)),
    "pad_size": ((None, SQUARE, 64, [1, 2]), ("big", [1], {"edge": 1})),
    "data_format": ((None, "channels_first", "channels_last"), ()),
    "input_data_format": ((None, "channels_first", "channels_last"), ()),
    "device": ((None, "cpu", "cuda"), ()),
    "return_tensors": ((None, "pt", "np"), ()),
    "disable_grouping": (ANY, ()),
    "image_seq_length": ((None, 5), ()),
}  # fmt: skip
# Keys that the class does not list, yet transformers reads or sets.
VALUES_BESIDE: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "use_square_size": (ANY, ()),
    "crop_pct": ((None, 0.9), ()),
    "max_pixels": ((7,), ()),
    "processor_class": ((None, "CLIPProcessor"), ()),
    "_valid_processor_keys": ((["images"],), ()),
    "feature_extractor_type": ((None, "CLIPFeatureExtractor"), ()),
    "image_processor_type": (
        (None, CLIP_PROCESSOR, f"{CLIP_PROCESSOR}Fast", f"{CLIP_PROCESSOR}Pil", "CLIPFeatureExtractor"),
        ("ViTImageProcessor", "CLIPImageProcessorSlow", "", 3),
    ),
}


def folder_with(folder: Path, config: dict[str, Any], name: str = SINGLE) -> Path:
    """A model folder as far as preprocessing goes."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text('{"model_type": "clip"}')
    (folder / name).write_text(
        json.dumps({key: value for key, value in config.items() if value is not ABSENT})
    )
    return folder


def pictures() -> list[Image.Image]:
    """Wide, high, square, tiny, very long, odd sides."""
    numbers = np.random.default_rng(0)
    sizes = ((50, 33), (33, 71), (32, 32), (3, 2), (200, 9), (36, 36), (37, 64))
    return [
        Image.fromarray(numbers.integers(0, 256, (height, width, 3), np.uint8)) for width, height in sizes
    ]


def transformers_answers(folder: Path) -> list[NDArray[np.floating]] | None:
    """Pixel values [3, SIDE, SIDE] of each picture; None where transformers has none for all."""
    try:
        processor = CLIPImageProcessorPil.from_pretrained(folder)
        with rows_first():
            found = [processor(images=each, return_tensors="np")["pixel_values"][0] for each in pictures()]
    except Exception:
        return None
    return found if all(each.shape == (3, SIDE, SIDE) for each in found) else None


def answers(folder: Path) -> list[NDArray[np.floating]]:
    """The same by what was read, with the runtime's pixels."""
    spec, _ = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    pixels = [load_pixels(each, spec).astype(np.float64) for each in pictures()]
    norm = spec.normalized_in_graph
    return [((each * norm.rescale - norm.mean) / norm.std).transpose(2, 0, 1) for each in pixels]


def check_same(folder: Path) -> None:
    expected = transformers_answers(folder)
    assert expected is not None
    for mine, theirs in zip(answers(folder), expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_every_key_of_the_class_has_values_here() -> None:
    assert set(VALUES) == set(CLIPImageProcessorPil.valid_kwargs.__annotations__)


@pytest.mark.parametrize("key", [*VALUES, *VALUES_BESIDE])
def test_what_is_supported_gives_transformers_pixels(key: str, tmp_path: Path) -> None:
    supported, _ = (VALUES | VALUES_BESIDE)[key]
    absent = () if key == "crop_size" else (ABSENT,)  # 224 x 224, which the model does not take
    for number, value in enumerate((*absent, *supported)):
        check_same(folder_with(tmp_path / str(number), {**BASE, key: value}))


@pytest.mark.parametrize("key", [*VALUES, *VALUES_BESIDE])
def test_what_is_not_supported_is_refused_by_name(key: str, tmp_path: Path) -> None:
    _, refused = (VALUES | VALUES_BESIDE)[key]
    absent = (ABSENT,) if key == "crop_size" else ()
    for number, value in enumerate((*absent, *refused)):
        folder = folder_with(tmp_path / str(number), {**BASE, key: value})
        with pytest.raises(SourceError) as caught:
            read_preprocess(folder, SIDE, CLIP_PROCESSOR)
        assert key in str(caught.value).removeprefix(str(folder)), value
        assert str(folder / SINGLE) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", range(120))
def test_keys_together_mean_what_they_mean_to_transformers(seed: int, tmp_path: Path) -> None:
    """Refused, or the same pixels; by whatever transformers makes no picture of this size is refused."""
    numbers = random.Random(seed)
    config: dict[str, Any] = dict(BASE)
    for key in numbers.sample([*VALUES, "use_square_size"], 5):
        supported, refused = (VALUES | VALUES_BESIDE)[key]
        # mostly what is supported, or nearly everything would be refused
        config[key] = numbers.choice((*supported, ABSENT) if numbers.random() < 0.9 else refused or supported)
    if numbers.random() < 0.2:
        config.update(do_center_crop=False, size=numbers.choice((SQUARE, SIDE, [SIDE, SIDE])))
    folder = folder_with(tmp_path, config)
    try:
        read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    except SourceError as error:
        assert any(key in str(error).removeprefix(str(folder)) for key in config)
    else:
        check_same(folder)


@pytest.mark.parametrize(
    "config",
    [
        {"do_center_crop": False, "size": SQUARE},
        {"do_center_crop": None, "size": [SIDE, SIDE], "crop_size": None},
        {"do_center_crop": False, "size": SIDE, "default_to_square": True},
        {"do_rescale": False, "do_normalize": False, "image_mean": None, "rescale_factor": None},
        {"do_rescale": False, "image_mean": 127.5, "image_std": 127.5},
        {"do_normalize": None, "image_std": 0},
    ],
)  # fmt: skip
def test_whole_files_that_are_supported(config: dict[str, Any], tmp_path: Path) -> None:
    check_same(folder_with(tmp_path, {**BASE, **config}))


def test_a_square_size_comes_from_the_class_and_not_from_the_file(tmp_path: Path) -> None:
    folder = folder_with(
        tmp_path, {"use_square_size": True, "size": 40, "image_processor_type": CLIP_PROCESSOR}
    )
    spec, _ = read_preprocess(folder, 224, CLIP_PROCESSOR)
    resize = spec.steps[0]
    assert isinstance(resize, Resize)
    assert (resize.height, resize.width) == (224, 224)


def test_a_key_that_would_replace_a_part_of_the_class_is_refused(tmp_path: Path) -> None:
    """transformers sets every key of a file as an attribute: `resize` would be no method any more."""
    parts = [
        name for name in dir(CLIPImageProcessorPil) if name not in VALUES and name != "model_input_names"
    ]
    for name in (*parts, "self"):
        with pytest.raises(SourceError, match=rf"{SINGLE}: {name} is 7"):
            read_preprocess(folder_with(tmp_path, {**BASE, name: 7}), SIDE, CLIP_PROCESSOR)


def test_a_key_without_effect_is_told(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {**BASE, "crop_pct": 0.9, "processor_class": "CLIPProcessor"})
    _, (note,) = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    assert "crop_pct" in note
    assert SINGLE in note


def test_code_of_its_own_is_told(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {**BASE, "auto_map": {"AutoImageProcessor": "mine.Mine"}})
    _, (note,) = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    assert "auto_map" in note


OTHER = {**BASE, "image_mean": 0.5, "image_std": [0.5] * 3}


def test_of_two_files_the_one_counts_that_transformers_reads(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, BASE)
    folder_with(folder, {"image_processor": OTHER, "processor_class": "CLIPProcessor"}, COMBINED)
    check_same(folder)
    spec, (note,) = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    assert spec.normalized_in_graph.mean == (0.5, 0.5, 0.5)
    assert all(said in note for said in (SINGLE, COMBINED, "image_mean, image_std"))


@pytest.mark.parametrize("combined", [{}, {"image_processor": None}, {"processor_class": "CLIPProcessor"}])
def test_a_processor_config_without_an_image_processor_does_not_count(
    combined: dict[str, Any], tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, OTHER)
    folder_with(folder, combined, COMBINED)
    check_same(folder)
    spec, notes = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    assert spec.normalized_in_graph.mean == (0.5, 0.5, 0.5)
    assert notes == ()


def test_two_files_that_mean_the_same_need_no_note(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {**OTHER, "size": 36, "image_processor_type": ABSENT, "do_resize": True})
    folder_with(folder, {"image_processor": {**OTHER, "image_mean": [0.5] * 3, "image_std": 0.5}}, COMBINED)
    assert read_preprocess(folder, SIDE, CLIP_PROCESSOR)[1] == ()


def test_a_broken_file_that_does_not_count_is_told_and_one_that_does_is_refused(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, {"image_processor": BASE}, COMBINED)
    (folder / SINGLE).write_text("{")
    check_same(folder)
    _, (note,) = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    assert SINGLE in note
    folder_with(folder, {"image_processor": [BASE]}, COMBINED)
    with pytest.raises(SourceError, match=f"{COMBINED}: image_processor is"):
        read_preprocess(folder, SIDE, CLIP_PROCESSOR)


@pytest.mark.parametrize(
    ("stored", "config", "says"),
    [
        ({"image_processor_type": ABSENT}, {}, "names no image_processor_type"),
        ({"image_processor_type": "ConvNextImageProcessor"}, {}, "ConvNextImageProcessor"),
        (
            {"image_processor_type": ABSENT},
            {"image_processor_type": "ViTImageProcessor"},
            "ViTImageProcessor",
        ),
    ],
)
def test_where_no_file_names_clips_processor_another_model_is_refused(
    stored: dict[str, Any], config: dict[str, Any], says: str, tmp_path: Path
) -> None:
    folder = folder_with(tmp_path, {**BASE, **stored})
    (folder / "config.json").write_text(json.dumps({"model_type": "vision-text-dual-encoder", **config}))
    with pytest.raises(SourceError, match=says):
        read_preprocess(folder, SIDE)
    (folder / SINGLE).unlink()
    with pytest.raises(SourceError, match=f"neither {COMBINED} nor {SINGLE}"):
        read_preprocess(folder, SIDE)


@pytest.mark.parametrize("name", [SINGLE, COMBINED])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(name: str, tmp_path: Path) -> None:
    folder = folder_with(tmp_path, OTHER if name == SINGLE else {"image_processor": OTHER}, name)
    plain = read_preprocess(folder, SIDE, CLIP_PROCESSOR)
    text = json.dumps(json.loads((folder / name).read_text()), indent=1).replace("\n", "\r\n")
    (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_preprocess(folder, SIDE, CLIP_PROCESSOR) == plain
