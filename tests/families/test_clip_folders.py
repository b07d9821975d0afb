"""Folders as people have them: other ways to write preprocessing, and what is wrong in one clear line."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl_runtime.manifest import Resize, ResizeMode
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import IMAGE_SIZE, make_tiny_clip

OLD_NAME = "CLIPFeatureExtractor"
SQUARE = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}


def change(path: Path, **values: Any) -> None:
    """Writes keys into a JSON file; a value of ... removes the key."""
    stored = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in stored.items() if value is not ...}))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_clip(tmp_path / "tiny")


@pytest.mark.parametrize(
    ("values", "mode", "cropped"),
    [
        ({"size": IMAGE_SIZE, "crop_size": IMAGE_SIZE}, ResizeMode.SHORTEST_EDGE, True),
        ({"size": {"shortest_edge": 40}}, ResizeMode.SHORTEST_EDGE, True),
        ({"size": {"shortest_edge": IMAGE_SIZE, "longest_edge": None}}, ResizeMode.SHORTEST_EDGE, True),
        ({"size": SQUARE, "do_center_crop": False}, ResizeMode.EXACT, False),
        ({"size": {"height": 40, "width": 36}}, ResizeMode.EXACT, True),
        ({"image_processor_type": "CLIPImageProcessorFast"}, ResizeMode.SHORTEST_EDGE, True),
        ({"image_processor_type": ..., "feature_extractor_type": OLD_NAME}, ResizeMode.SHORTEST_EDGE, True),
    ],
)  # fmt: skip
def test_ways_to_write_sizes(folder: Path, values: dict[str, Any], mode: ResizeMode, cropped: bool) -> None:
    change(folder / "preprocessor_config.json", **values)
    spec = open_checkpoint(folder).preprocess
    resize, *crops = spec.steps
    assert isinstance(resize, Resize)
    assert resize.mode is mode
    assert (spec.height, spec.width) == (IMAGE_SIZE, IMAGE_SIZE)
    assert bool(crops) is cropped
    if isinstance(values.get("size"), dict) and "width" in values["size"]:
        assert (resize.height, resize.width) == (values["size"]["height"], values["size"]["width"])


def test_without_rescale_and_normalize_the_pixels_go_in_as_they_are(folder: Path) -> None:
    change(folder / "preprocessor_config.json", do_rescale=False, do_normalize=False)
    spec = open_checkpoint(folder).preprocess.normalized_in_graph
    assert (spec.rescale, spec.mean, spec.std) == (1.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_without_a_preprocessor_config_clips_defaults_are_taken_and_said(folder: Path) -> None:
    expected = open_checkpoint(folder)
    (folder / "preprocessor_config.json").unlink()
    source = open_checkpoint(folder)
    assert source.preprocess == expected.preprocess
    assert source.space() == expected.space()
    (note,) = source.contract.notes
    assert "preprocessor_config.json" in note


def test_processor_config_of_newer_transformers_is_read(folder: Path) -> None:
    stored = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    nested = {**stored, "image_mean": [0.1, 0.2, 0.3]}
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": nested}))
    source = open_checkpoint(folder)
    assert source.preprocess.normalized_in_graph.mean == (0.1, 0.2, 0.3)
    assert source.contract.notes == ()


def test_byte_order_marks_and_windows_line_ends_change_nothing(folder: Path) -> None:
    expected = open_checkpoint(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "part.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for path in folder.glob("*.json"):
        path.write_bytes(codecs.BOM_UTF8 + path.read_bytes().replace(b"\n", b"\r\n"))
    source = open_checkpoint(folder)
    assert source.preprocess == expected.preprocess
    assert source.tokenizer == expected.tokenizer
    # what goes into the bundle, for readers that know no byte order mark
    assert json.loads(source.tokenizer_json.decode("utf-8")) == json.loads(expected.tokenizer_json)
    texts = ["a photo of a red circle", "caf\u00e9"]
    found, wanted = (
        Tokenizer(each.tokenizer_json, each.tokenizer).encode(texts) for each in (source, expected)
    )
    np.testing.assert_array_equal(found.ids, wanted.ids)


def test_legacy_pooling_that_need_not_hit_the_eos_is_noted(tmp_path: Path) -> None:
    make_tiny_clip(tmp_path, legacy_eos=True)
    stored = json.loads((tmp_path / "tokenizer.json").read_text())
    added = {"content": "<extra>", "id": 382, "special": False, "single_word": False}
    stored["added_tokens"].append({**added, "lstrip": False, "rstrip": False, "normalized": False})
    (tmp_path / "tokenizer.json").write_text(json.dumps(stored))
    config = json.loads((tmp_path / "config.json").read_text())
    config["text_config"]["vocab_size"] = 383
    (tmp_path / "config.json").write_text(json.dumps(config))
    weights = load_file(tmp_path / "model.safetensors")
    name = "text_model.embeddings.token_embedding.weight"
    weights[name] = torch.cat([weights[name], weights[name][:1]])
    save_file(weights, tmp_path / "model.safetensors")
    (note,) = open_checkpoint(tmp_path).contract.notes
    assert "highest id" in note


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, content: str) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_text(content)

    return apply


def changed(name: str, **values: Any) -> Callable[[Path], None]:
    return lambda folder: change(folder / name, **values)


def preprocessor(**values: Any) -> Callable[[Path], None]:
    return changed("preprocessor_config.json", **values)


def config(section: str = "", **values: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        stored = json.loads((folder / "config.json").read_text())
        (stored[section] if section else stored).update(values)
        (folder / "config.json").write_text(json.dumps(stored))

    return apply


def weights(edited: dict[str, torch.Tensor]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file({**tensors, **edited}, folder / "model.safetensors")

    return apply


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"not loaded anyway")


def sharded(weight_map: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return apply


PROJECTION = "visual_projection.weight"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (remove("config.json"), "config.json"),
        (remove("model.safetensors"), "model.safetensors"),
        (remove("tokenizer.json"), "tokenizer.json"),
        (pickled, "pytorch_model.bin is not loaded"),
        (write("config.json", "{"), "not valid JSON"),
        (write("config.json", "[1]"), "not a JSON object"),
        (write("config.json", "[" * 100_000), "not valid JSON"),
        (write("tokenizer.json", "{}"), "not a tokenizer"),
        (write("tokenizer_config.json", "{"), "not valid JSON"),
        (write("preprocessor_config.json", "nope"), "not valid JSON"),
        (write("model.safetensors", "nope"), "not a readable safetensors"),
        (write("compression.json", "{}"), "compression.json is of version None"),
        (config(model_type="bert"), r"'bert' is not known \(known: blip"),
        (config(model_type=["clip"]), "is not known"),
        (config("text_config", num_attention_heads=5), "attention heads"),
        (config("text_config", hidden_size="wide"), "hidden_size"),
        (config("text_config", hidden_act="none such"), "no CLIP model can be built"),
        (config("text_config", vocab_size=300), "vocab_size is 300"),
        (config("text_config", eos_token_id=7), "pools at eos_token_id 7"),
        (config("text_config", eos_token_id=[7, 8]), "eos_token_id"),
        (config("text_config", max_position_embeddings=8), "position_embedding"),
        (config("vision_config", image_size=[32, 32]), "image_size"),
        (config("vision_config", image_size=64), "image_size is 64"),
        (config("vision_config", num_channels=1), "num_channels"),
        (config("vision_config", intermediate_size=48), "config.json asks for"),
        (config("vision_config", num_hidden_layers=1), "hold unknown .*layers.1"),
        (config("vision_config", num_hidden_layers=3), "lack .*layers.2"),
        (weights({PROJECTION: torch.full((24, 32), torch.nan)}), PROJECTION),
        (weights({PROJECTION: torch.ones(24, 32, dtype=torch.int8)}), PROJECTION),
        (weights({"logit_scale": torch.tensor(99.0)}), "logit_scale"),
        (sharded({PROJECTION: "../part.safetensors"}), "not a plain file name"),
        (sharded({PROJECTION: "gone.safetensors"}), "has no gone.safetensors"),
        (sharded({"no.such": "part.safetensors"}), "no shard holds, no.such"),
        (sharded([1]), "no weight_map"),
        (preprocessor(resample=0), "resample is 0"),
        (preprocessor(do_resize=False), "do_resize"),
        (preprocessor(do_center_crop=False), "differ in size"),
        (preprocessor(do_center_crop="yes"), "neither true nor false"),
        (preprocessor(size={"longest_edge": 32}), "longest_edge"),
        (preprocessor(size=16), "crop_size 32 x 32 is larger"),
        (preprocessor(size=-1), "size is .*-1"),
        (preprocessor(crop_size={"height": 24, "width": 24}), "24 x 24"),
        (preprocessor(image_std=[1, 0, 1]), "image_std"),
        (preprocessor(image_mean="half"), "image_mean"),
        (preprocessor(image_mean=[float("nan"), 0, 0]), "image_mean"),
        (preprocessor(rescale_factor=0), "rescale_factor"),
        (preprocessor(image_processor_type="ViTImageProcessor"), "ViTImageProcessor"),
        (changed("tokenizer_config.json", pad_token="<none>"), "<none>"),
        (changed("tokenizer_config.json", model_max_length=2), "2 tokens"),
        (changed("tokenizer_config.json", model_max_length="long"), "model_max_length"),
        (changed("tokenizer.json", post_processor=None), "post_processor"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_one_clear_line(folder: Path, spoil: Callable[[Path], None], says: str) -> None:
    spoil(folder)
    with pytest.raises(SourceError, match=says) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not exist"):
        open_checkpoint(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(SourceError, match="not a folder"):
        open_checkpoint(tmp_path / "file")
