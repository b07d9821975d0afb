"""CLIPs of other activations, grids, widths and ends of texts are as transformers computes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import CLIPConfig, CLIPModel

from pocketvl.families import open_checkpoint
from pocketvl_runtime.text import Tokenizer
from tests.families.cases import CASES, Inputs
from tests.families.drawn import draw_, write_json
from tests.families.tiny import EOS, make_tiny_clip

CLIP_TOKENIZER = Path(__file__).parents[3] / "shared" / "data" / "clip_tokenizer"
VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "OpenAI's, quick_gelu": ({}, {}, 24),
    "LAION's converted, gelu": ({"hidden_act": "gelu"}, {"hidden_act": "gelu"}, 24),
    "a text encoder of another width and depth": (
        {"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 3, "intermediate_size": 80},
        {},
        24,
    ),
    "a projection as wide as the encoders": ({}, {}, 32),
    "a projection wider than either": ({}, {}, 56),
    "patches of 14 pixels": ({}, {"patch_size": 14, "image_size": 56}, 24),
    "patches of 14 pixels, pictures of 336": ({}, {"patch_size": 14, "image_size": 336}, 24),
    "an epsilon of 1e-6": ({"layer_norm_eps": 1e-6}, {"layer_norm_eps": 1e-6}, 24),
}
(CLIP,) = (case for case in CASES if case.name == "clip")


def make(
    folder: Path, text: dict[str, Any], vision: dict[str, Any], dim: int, tokenizer: Path | None = None
) -> Path:
    """A tiny CLIP folder of another configuration; with another tokenizer, whose eos is 49,407."""
    make_tiny_clip(folder)
    if tokenizer is not None:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(tokenizer / name, folder / name)
        text = {"vocab_size": 49408, "eos_token_id": 49407, "bos_token_id": 49406, **text}
    stored = json.loads((folder / "config.json").read_text())
    config = CLIPConfig(
        text_config={**stored["text_config"], **text, "projection_dim": dim},
        vision_config={**stored["vision_config"], **vision, "projection_dim": dim},
        projection_dim=dim,
    )
    model = CLIPModel(config)
    draw_(model, seed=5, outlier=8.0)
    model.save_pretrained(folder)
    side = {**stored["vision_config"], **vision}["image_size"]
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    sizes = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    write_json(folder / "preprocessor_config.json", {**processor, **sizes})
    return folder


def assert_equals_transformers(folder: Path, texts: list[str]) -> None:
    opened = open_checkpoint(folder)
    side = opened.preprocess.height
    pixels = np.random.default_rng(0).integers(0, 256, (len(texts), side, side, 3), np.uint8)
    ids = Tokenizer(opened.tokenizer_json, opened.tokenizer).encode(texts).ids
    inputs: Inputs = {"pixels": pixels, "ids": ids}
    wanted = CLIP.reference(folder, opened.contract, inputs)
    for name, component in opened.components.items():
        with torch.no_grad():
            found = component.module(torch.from_numpy(inputs[component.inputs[0].name])).numpy()
        np.testing.assert_allclose(found, wanted[f"{name}.embedding"], atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_clip_gives_what_transformers_gives(name: str, tmp_path: Path) -> None:
    text, vision, dim = VARIANTS[name]
    assert_equals_transformers(
        make(tmp_path / "clip", text, vision, dim), ["a red circle", "two cats", f"a {EOS} b"]
    )


@pytest.mark.skipif(not CLIP_TOKENIZER.is_dir(), reason="no CLIP tokenizer beside the checkout")
@pytest.mark.parametrize("eos", [49407, 2])
def test_clips_own_tokenizer_and_both_ends_of_texts(eos: int, tmp_path: Path) -> None:
    folder = make(tmp_path / "clip", {"eos_token_id": eos}, {}, 24, CLIP_TOKENIZER)
    assert_equals_transformers(folder, ["a photo of a cat", "\u732b \U0001f600", "long " * 30])
