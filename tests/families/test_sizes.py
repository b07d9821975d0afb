"""Sizes that no machine can hold are refused at once, whichever of a folder's files asks for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.folders.files import COMPRESSION_FILE
from tests.families.tiny import make_tiny_clip
from tests.families.tiny_dual import make_tiny_dual
from tests.families.vilt_folder import make_vilt_folder

MAKERS = {"clip": make_tiny_clip, "dual": make_tiny_dual, "vilt": make_vilt_folder}
HUGE = (2**20, 2**31 - 1, 2**53 + 1, 2**80)
# Integers of a config.json on which no shape depends.
FREE = {
    *("bos_token_id", "eos_token_id", "pad_token_id", "max_image_length", "num_images"),
    *("text_config.projection_dim", "vision_config.projection_dim", "vision_config.hidden_size"),
}


def integers(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all integers in JSON."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(item, (dict, list)):
            yield from integers(item, (*path, key))
        elif isinstance(item, int) and not isinstance(item, bool):
            yield (*path, key)


def changed(value: Any, path: tuple[Any, ...], to: int) -> Any:
    """A copy with another integer at a path."""
    copy: Any = json.loads(json.dumps(value))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return copy


def refusal(folder: Path) -> str:
    try:
        open_checkpoint(folder)
    except SourceError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("family", MAKERS)
def test_sizes_that_the_weights_do_not_have_are_refused_before_a_model_is_built(
    family: str, tmp_path: Path
) -> None:
    folder = MAKERS[family](tmp_path / family)
    path = folder / "config.json"
    config = json.loads(path.read_text())
    paths = [*integers(config), ("num_labels",)]
    paths += [(name, "num_labels") for name in ("text_config", "vision_config") if name in config]
    asked = 0
    for where in paths:
        name = ".".join(map(str, where))
        if where[0] in ("label2id", "id2label") or FREE & {name, str(where[-1])}:
            continue
        for value in HUGE:
            path.write_text(json.dumps(changed(config, where, value)))
            said = refusal(folder)
            assert said, f"{name} = {value} is taken"
            assert "\n" not in said
            assert len(said) < 600
            asked += 1
    assert asked > 40
    path.write_text(json.dumps(config))
    open_checkpoint(folder)


@pytest.mark.parametrize(
    "compression",
    [
        {"linears": {"text_projection": {"inputs": 2**40, "outputs": 2**40}}},
        {"linears": {"text_projection": {"inputs": 2**20, "outputs": 2**20, "rank": 2**20}}},
        {"linears": {"text_projection": {"inputs": 32, "outputs": 24, "rank": 2**31}}},
        {"linears": {}, "channels": {"vision_model.post_layernorm": 2**45}},
        {
            "linears": {},
            "convolutions": {
                "vision_model.embeddings.patch_embedding": {"inputs": 3, "outputs": 2**50}
            },
        },
    ],
)  # fmt: skip
def test_so_are_those_of_a_compressed_checkpoint(compression: dict[str, Any], tmp_path: Path) -> None:
    folder = make_tiny_clip(tmp_path)
    (folder / COMPRESSION_FILE).write_text(json.dumps({"schema_version": 1, **compression}))
    with pytest.raises(SourceError) as caught:
        open_checkpoint(folder)
    assert len(str(caught.value)) < 600
