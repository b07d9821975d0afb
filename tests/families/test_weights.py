"""Weights as people have them: safetensors or pickles, whole or in shards, in half precision, and damaged."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pocketvl.errors import SourceError
from pocketvl.families import check_checkpoint, open_checkpoint, read_contract
from pocketvl.families.base import example_inputs
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.folders.files import checkpoint_files
from pocketvl.families.folders.weights import check_weight_files, read_scalar
from pocketvl.network.heads import ContrastiveHead
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_siglip import make_tiny_siglip

BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"


def outputs(checkpoint: Checkpoint) -> list[np.ndarray]:
    with torch.inference_mode():
        components = checkpoint.components.values()
        return [component.module(*example_inputs(component)).numpy() for component in components]


def pickled(folder: Path, shards: int = 1) -> Path:
    """Writes a folder's weights as transformers once did."""
    weights = load_file(folder / "model.safetensors")
    weights["text_model.embeddings.position_ids"] = torch.arange(16)[None]  # as they once had
    (folder / "model.safetensors").unlink()
    if shards == 1:
        torch.save(weights, folder / BIN)
        return folder
    names, weight_map = sorted(weights), {}
    for index in range(shards):
        file = f"pytorch_model-{index + 1:05}-of-{shards:05}.bin"
        torch.save({name: weights[name] for name in names[index::shards]}, folder / file)
        weight_map.update(dict.fromkeys(names[index::shards], file))
    (folder / BIN_INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


WAYS: dict[str, Callable[[Path], Path]] = {
    "safetensors": make_tiny_clip,
    "safetensors in shards": lambda at: make_tiny_clip(at, max_shard_size="40KB"),
    "pickle": lambda at: pickled(make_tiny_clip(at)),
    "pickle in shards": lambda at: pickled(make_tiny_clip(at), 3),
}


@pytest.mark.parametrize("way", WAYS)
def test_the_same_weights_give_the_same_outputs_wherever_they_stand(way: str, tmp_path: Path) -> None:
    wanted = open_checkpoint(make_tiny_clip(tmp_path / "plain"))
    folder = WAYS[way](tmp_path / "other")
    check_weight_files(folder)
    check_checkpoint(folder)
    found = open_checkpoint(folder)
    for one, other in zip(outputs(found), outputs(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.space() == wanted.space()
    head = found.contract.head
    assert isinstance(head, ContrastiveHead)
    assert read_scalar(folder, head.scale) == found.logit_scale
    files = set(checkpoint_files(folder))
    assert {path.name for path in folder.iterdir() if path.suffix in (".bin", ".safetensors")} <= files
    assert all((each in files) for each in (BIN_INDEX,) if (folder / each).exists())
    found.save(tmp_path / "saved")  # as safetensors, whatever they were
    assert open_checkpoint(tmp_path / "saved").space() == wanted.space()


def test_pickled_weights_are_noted_and_safetensors_come_first(tmp_path: Path) -> None:
    folder = pickled(make_tiny_clip(tmp_path / "clip"))
    (note,) = open_checkpoint(folder).contract.notes
    assert "pytorch_model.bin is a pickle" in note
    assert "safetensors" in note
    make_tiny_clip(tmp_path / "other", seed=1)
    (tmp_path / "other" / "model.safetensors").rename(folder / "model.safetensors")
    opened = open_checkpoint(folder)
    assert opened.contract.notes == ()
    assert opened.space() == open_checkpoint(make_tiny_clip(tmp_path / "third", seed=1)).space()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_with_in_fp32_and_noted(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "half", dtype=dtype)
    opened = open_checkpoint(folder)
    assert {each.dtype for each in opened.model.parameters()} == {torch.float32}
    name = str(dtype).removeprefix("torch.")
    assert opened.contract.notes == (f"weights are stored in {name}, and computed with in float32",)
    full = make_tiny_clip(tmp_path / "full")
    rounded = {name: value.to(dtype).float() for name, value in load_file(full / "model.safetensors").items()}
    save_file(rounded, full / "model.safetensors", {"format": "pt"})
    for one, other in zip(outputs(opened), outputs(open_checkpoint(full)), strict=True):
        np.testing.assert_array_equal(one, other)


class Command:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def test_a_pickle_that_runs_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    folder = pickled(make_tiny_clip(tmp_path / "clip"))
    torch.save({"a": Command(tmp_path / "ran")}, folder / BIN)
    with pytest.raises(
        SourceError, match=r"pytorch_model.bin is not loaded.*asks for posix.system"
    ) as caught:
        open_checkpoint(folder)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


def cut(name: str, size: int) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:size])

    return apply


def saved(value: object) -> Callable[[Path], None]:
    return lambda folder: torch.save(value, folder / BIN)


@pytest.mark.parametrize(
    ("way", "spoil", "says"),
    [
        ("pickle", cut(BIN, -30), "not a readable PyTorch file.*cut short"),
        ("pickle", cut(BIN, 0), "not a readable PyTorch file"),
        ("pickle", saved([torch.ones(2)]), "no plain table of tensors"),
        ("pickle", saved({"state_dict": {"a": torch.ones(2)}}), "no plain table of tensors"),
        ("pickle in shards", lambda at: (at / BIN_INDEX).write_text("{}"), "no weight_map"),
        (
            "pickle in shards",
            lambda at: (at / "pytorch_model-00002-of-00003.bin").unlink(),
            "has no pytorch_model-00002-of-00003.bin, which .* names .1 of 3 shards",
        ),
        ("safetensors", cut("model.safetensors", -100), "not a readable safetensors.*cut short"),
        ("safetensors", cut("model.safetensors", 100), "not a readable safetensors"),
        ("safetensors", cut("model.safetensors", 0), "not a readable safetensors"),
    ],
)  # fmt: skip
def test_damaged_weights_are_one_line(
    way: str, spoil: Callable[[Path], object], says: str, tmp_path: Path
) -> None:
    folder = WAYS[way](tmp_path / "clip")
    spoil(folder)
    for look in (open_checkpoint, check_checkpoint):
        with pytest.raises(SourceError, match=says) as caught:
            look(folder)
        assert "\n" not in str(caught.value)


def test_what_is_wrong_with_tensors_is_named_with_shapes_without_reading_them(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    bad = dict(weights)
    bad["visual_projection.weight"] = torch.ones(24, 31)
    bad["text_projection.weight"] = torch.ones(23, 32)
    save_file(bad, folder / "model.safetensors")
    both = r"text_projection.weight is \[23, 32\], config.json asks for \[24, 32\]; visual_projection"
    with pytest.raises(SourceError, match=both):
        check_checkpoint(folder)
    del bad["logit_scale"]
    bad["extra.one"] = torch.ones(1)
    save_file(bad, folder / "model.safetensors")
    with pytest.raises(SourceError, match=r"lack logit_scale and hold unknown extra.one"):
        check_checkpoint(folder)


@pytest.mark.parametrize("patches", [None, 16, 64])
def test_the_check_by_headers_follows_a_familys_own_layout(patches: int | None, tmp_path: Path) -> None:
    folder = make_tiny_siglip(tmp_path / "siglip", patches=patches)
    check_checkpoint(folder)
    weights = load_file(folder / "model.safetensors")
    name = "vision_model.head.attention.in_proj_weight"
    weights[name] = weights[name][:, :-1].contiguous()
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(SourceError, match="attention"):
        check_checkpoint(folder)


def test_code_of_a_folder_is_never_run(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    (folder / "modeling_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    auto_map = {"AutoModel": "modeling_own.OwnModel", "AutoConfig": "modeling_own.OwnConfig"}
    path = folder / "config.json"
    config = {**json.loads(path.read_text()), "auto_map": auto_map, "trust_remote_code": True}
    path.write_text(json.dumps(config))
    wanted = open_checkpoint(make_tiny_clip(tmp_path / "plain"))
    opened = open_checkpoint(folder)
    (note,) = opened.contract.notes
    assert "modeling_own.OwnModel" in note
    assert "not run" in note
    for one, other in zip(outputs(opened), outputs(wanted), strict=True):
        np.testing.assert_array_equal(one, other)
    path.write_text(json.dumps({**config, "model_type": "own"}))
    with pytest.raises(
        SourceError, match=r"'own' is not known.*modeling_own.OwnModel.*never run.*CONTRIBUTING"
    ):
        read_contract(folder)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizers_own_code_is_never_run(tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path / "clip")
    (folder / "tokenization_own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "auto_map": {"AutoTokenizer": [None, "tokenization_own.Own"]}}))
    try:
        read_contract(folder)
    except SourceError as error:
        assert "auto_map" in str(error)
    assert not (tmp_path / "ran").exists()
