"""LoRA adapters are merged into their base, and are nothing without it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from pocketvl import api
from pocketvl.errors import SourceError
from tests.families.hub import fill_cache
from tests.families.tiny import make_tiny_clip

QUERY = "text_model.encoder.layers.0.self_attn.q_proj"
VALUE = "vision_model.encoder.layers.1.self_attn.v_proj"
PATCHES = "vision_model.embeddings.patch_embedding"
CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "base_model_name_or_path": "base",
    "r": 4,
    "lora_alpha": 6,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}


def products(ranks: dict[str, int], base: Path) -> dict[str, torch.Tensor]:
    generator, found = torch.Generator().manual_seed(3), {}
    weights = load_file(base / "model.safetensors")
    for module, rank in ranks.items():
        shape = weights[f"{module}.weight"].shape
        down, up = (rank, *shape[1:]), (shape[0], rank, *(1 for _ in shape[2:]))
        for letter, size in (("A", down), ("B", up)):
            name = f"base_model.model.{module}.lora_{letter}.weight"
            found[name] = torch.randn(size, generator=generator)
    return found


def adapter(tmp_path: Path, ranks: dict[str, int] | None = None, **config: Any) -> Path:
    """An adapter beside its base."""
    base = make_tiny_clip(tmp_path / "base")
    folder = tmp_path / "adapter"
    folder.mkdir()
    ranks = ranks or {QUERY: 4, VALUE: 4, PATCHES: 4}
    save_file(products(ranks, base), folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}))
    return folder


def opened(folder: Path | str, tmp_path: Path, **options: Any) -> dict[str, torch.Tensor]:
    merged = api.fetch_checkpoint(folder, cache=tmp_path / "cache", **options)
    return dict(api.load_checkpoint(merged).model.state_dict())


@pytest.mark.parametrize(
    ("config", "ranks", "scales"),
    [
        ({}, {QUERY: 4, VALUE: 4, PATCHES: 4}, {QUERY: 1.5, VALUE: 1.5, PATCHES: 1.5}),
        ({"use_rslora": True}, {QUERY: 4}, {QUERY: 3.0}),
        ({"rank_pattern": {"v_proj": 2}}, {QUERY: 4, VALUE: 2}, {QUERY: 1.5, VALUE: 3.0}),
        (
            {"rank_pattern": {"1.self_attn.v_proj": 2}, "alpha_pattern": {".*v_proj": 5}, "use_rslora": True},
            {QUERY: 4, VALUE: 2},
            {QUERY: 3.0, VALUE: 5 / math.sqrt(2)},
        ),
        ({"rank_pattern": {"proj": 2}}, {QUERY: 4}, {QUERY: 1.5}),  # a part of a name is no name
    ],
)  # fmt: skip
def test_weights_are_the_bases_and_the_scaled_products(
    config: dict[str, Any], ranks: dict[str, int], scales: dict[str, float], tmp_path: Path
) -> None:
    folder = adapter(tmp_path, ranks, **config)
    before, found = load_file(tmp_path / "base" / "model.safetensors"), opened(folder, tmp_path)
    parts = load_file(folder / "adapter_model.safetensors")
    for name, value in found.items():
        module = name.removesuffix(".weight")
        wanted = before[name]
        if name.endswith(".weight") and module in scales:
            down, up = (parts[f"base_model.model.{module}.lora_{letter}.weight"] for letter in "AB")
            wanted = wanted + scales[module] * torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1)).view(
                wanted.shape
            )
            assert not torch.allclose(wanted, before[name])
        torch.testing.assert_close(value, wanted)


def test_a_merged_checkpoint_has_its_adapters_name_and_is_merged_once(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    first, second = (api.fetch_checkpoint(folder, cache=tmp_path / "cache") for _ in range(2))
    assert first == second
    assert api.load_checkpoint(first).contract.name == "adapter"
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, "lora_alpha": 8}))
    assert api.fetch_checkpoint(folder, cache=tmp_path / "cache") != first


def test_modules_that_were_trained_whole_take_the_place_of_the_bases(tmp_path: Path) -> None:
    folder = adapter(tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    weights["base_model.model.visual_projection.weight"] = torch.ones(24, 32)
    save_file(weights, folder / "adapter_model.safetensors")
    assert torch.equal(opened(folder, tmp_path)["visual_projection.weight"], torch.ones(24, 32))


def test_a_base_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = adapter(tmp_path, base_model_name_or_path="some-org/base-clip")
    hub = tmp_path / "hub"
    hub.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub))
    with pytest.raises(
        SourceError, match="is an adapter, and its base hf:some-org/base-clip is not in"
    ) as caught:
        opened(folder, tmp_path, offline=True)
    assert "\n" not in str(caught.value)
    fill_cache(hub, "some-org/base-clip", tmp_path / "base")
    fill_cache(hub, "me/lora", folder)
    found = opened("hf:me/lora", tmp_path, offline=True)
    assert not torch.equal(
        found[f"{QUERY}.weight"], load_file(tmp_path / "base" / "model.safetensors")[f"{QUERY}.weight"]
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"base_model_name_or_path": None}, "names no base_model_name_or_path"),
        ({"base_model_name_or_path": "/no/such/folder"}, "its base /no/such/folder is not here"),
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; only LORA"),
        ({"use_dora": True}, "use_dora is True; merge it with PEFT"),
        ({"r": 0}, "r is 0, not a positive number"),
        ({"r": 8}, "is not of rank 8"),
        ({"rank_pattern": [1]}, "rank_pattern is"),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern: '.' is no pattern"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_one_line(config: dict[str, Any], says: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path, **config)
    with pytest.raises(SourceError, match=says) as caught:
        opened(folder, tmp_path)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("base_model.model.no.such.lora_A.weight", (4, 32), "has no no.such.weight"),
        (f"base_model.model.{QUERY}.lora_A.weight", (4, 31), "do not fit the base's"),
        ("base_model.model.other.weight", (4, 31), r"other.weight \[4, 31\] is no tensor of"),
    ],
)
def test_tensors_of_another_base_are_named(
    name: str, size: tuple[int, int], says: str, tmp_path: Path
) -> None:
    folder = adapter(tmp_path)
    weights = load_file(folder / "adapter_model.safetensors")
    weights[name] = torch.ones(size)
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(SourceError, match=says):
        opened(folder, tmp_path)
