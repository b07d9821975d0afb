"""Checkpoint folders: a Checkpoint that answers as transformers does, or a SourceError."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoTokenizer, CLIPModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from pocketvl.errors import SourceError
from pocketvl.families import open_checkpoint
from pocketvl.families.checkpoint import Checkpoint
from pocketvl_runtime.image import load_pixels
from pocketvl_runtime.text import Tokenizer
from tests.families.tiny import make_tiny_clip
from tests.fuzz.mutations import HOSTILE, Extra, hostile_json
from tests.fuzz.target import Case, Finding, refusal
from tests.pillow import rows_first
from tests.runtime.bundles import picture

_TEXT = "a photo of a red circle left of a small blue square"
_LEAST_COSINE = 0.9999
_NUMBERS = (*(v for v in HOSTILE if isinstance(v, int | float)), "1", None)
_CONFIG_EXTRA: Extra = {
    "hidden_size": _NUMBERS,
    "num_hidden_layers": (1, 3, *_NUMBERS),
    "num_attention_heads": (1, 3, 4, *_NUMBERS),
    "intermediate_size": _NUMBERS,
    "projection_dim": _NUMBERS,
    "vocab_size": _NUMBERS,
    "max_position_embeddings": (8, 77, *_NUMBERS),
    "eos_token_id": (2, [2, 3], 49407, *_NUMBERS),
    "pad_token_id": _NUMBERS,
    "image_size": (40, [32, 32], *_NUMBERS),
    "patch_size": (4, 7, 33, [8, 8], *_NUMBERS),
    "num_channels": (1, 4, *_NUMBERS),
    "hidden_act": ("gelu", "relu", "quick_gelu", "none", "silu", "", None, 1),
    "layer_norm_eps": (1e-12, 0.1, *_NUMBERS),
    "attention_dropout": (0.5, 1.5, *_NUMBERS),
    "logit_scale_init_value": _NUMBERS,
    "model_type": ("clip", "vilt", "siglip", "CLIP", "", 1, ["clip"]),
    "dtype": ("float16", "float32", "int8", "", 3),
    "torch_dtype": ("float16", "bfloat16", "none"),
    "text_config": ({}, None, [], "x"),
    "vision_config": ({}, None, {"model_type": "vilt"}),
    "text_config_dict": ({"hidden_act": "gelu"}, None, {"eos_token_id": 3}),
    "vision_config_dict": ({"hidden_act": "gelu"}, {"image_size": 64}),
    "quantization_config": ({}, {"quant_method": "bitsandbytes"}, {"quant_method": "none"}),
    "auto_map": ({"AutoModel": "evil.Model"},),
    "attn_implementation": ("sdpa", "flash_attention_2", "none"),
    "tie_word_embeddings": (True, False),
    "use_return_dict": (False, None),
    "architectures": (["Other"], None, 1),
}
_PROCESSOR_EXTRA: Extra = {
    "size": (
        32,
        40,
        {"height": 32, "width": 32},
        {"height": 40, "width": 32},
        {"longest_edge": 32},
        None,
        [32, 32],
    ),
    "crop_size": (32, 24, {"height": 32, "width": 32}, {"shortest_edge": 32}, None, [32, 32]),
    "resample": (0, 1, 2, 3, 4, 5, "bicubic", None, *_NUMBERS),
    "do_resize": (False, None, 0, 1, "true"),
    "do_center_crop": (False, None, 0),
    "do_rescale": (False, None, 0),
    "do_normalize": (False, None, 0),
    "do_convert_rgb": (False, None),
    "do_pad": (True, False),
    "pad_size": ({"height": 40, "width": 40},),
    "rescale_factor": (1, 0.5, 1 / 127.5, *_NUMBERS),
    "image_mean": (0.5, [0.5] * 3, [0.5], None, [0, 0, 0], [1e300] * 3),
    "image_std": (0.5, [0.5] * 3, None, [0, 0, 0], [-1, 1, 1], [1e-320] * 3),
    "image_processor_type": (
        "CLIPImageProcessorPil",
        "CLIPImageProcessorFast",
        "ViTImageProcessor",
        None,
        "",
    ),
    "feature_extractor_type": ("CLIPFeatureExtractor", "ViTFeatureExtractor"),
    "default_to_square": (True, False),
    "crop_pct": (0.9, None),
    "input_data_format": ("channels_first",),
    "do_flip_channel_order": (True,),
    "processor_class": ("CLIPProcessor", "X"),
}
_TOKENIZER_EXTRA: Extra = {
    "model_max_length": (3, 8, 16, 77, 1e30, *_NUMBERS),
    "pad_token": ("<|endoftext|>", "<|startoftext|>", "a", "[PAD]", {"content": "a"}, {}, None, 1),
    "eos_token": ("a", {"content": "<|startoftext|>"}, None),
    "bos_token": ("a", None),
    "padding_side": ("left", "right", ""),
    "truncation_side": ("left", "right"),
    "add_bos_token": (False, True),
    "add_eos_token": (False, True),
    "do_lower_case": (True, False),
    "tokenizer_class": ("CLIPTokenizer", "CLIPTokenizerFast", "BertTokenizer", "None", None, 1),
    "added_tokens_decoder": ({"5": {"content": "red", "special": True}}, {}, []),
    "clean_up_tokenization_spaces": (True,),
    "auto_map": ({"AutoTokenizer": ["evil.T", None]},),
}
_EXTRA: dict[str, Extra] = {
    "config.json": _CONFIG_EXTRA,
    "preprocessor_config.json": _PROCESSOR_EXTRA,
    "processor_config.json": {"image_processor": ({}, None, [], {"size": 32}), **_PROCESSOR_EXTRA},
    "tokenizer_config.json": _TOKENIZER_EXTRA,
}


class Checkpoints:
    """`open_checkpoint` on a tiny CLIP folder in which one JSON file is not as it should be."""

    name = "checkpoints"

    def __init__(self, folder: Path) -> None:
        """Args: folder: to work in."""
        self._whole = make_tiny_clip(folder / "whole")
        self._copy = Path(shutil.copytree(self._whole, folder / "clip"))
        self._values: dict[str, Any] = {
            path.name: json.loads(path.read_text()) for path in self._whole.glob("*.json")
        }
        processor = self._values["preprocessor_config.json"]
        self._values["processor_config.json"] = {
            "image_processor": processor,
            "processor_class": "CLIPProcessor",
        }
        self._image = picture((45, 37))

    def make(self, rng: random.Random) -> Case:
        """One changed file; processor_config.json is there only where it is the one."""
        name = rng.choice(sorted(_EXTRA))
        content, what = hostile_json(rng, self._values[name], _EXTRA[name])
        return Case(f"{name}: {what}", {name: content}, rng.random() < 0.5)

    def check(self, case: Case) -> str:
        """Opens the folder; where transformers opens it too, both must embed alike."""
        torch.set_num_threads(1)  # this process was forked, and its other threads were not
        for path in [*self._copy.glob("*.json")]:
            path.unlink()
        for path in self._whole.glob("*.json"):
            shutil.copy(path, self._copy)
        ((name, content),) = case.files.items()
        (self._copy / name).write_bytes(content)
        if name == "processor_config.json" and case.options:
            (self._copy / "preprocessor_config.json").unlink()
        try:
            source = open_checkpoint(self._copy)
        except SourceError as error:
            return refusal(error)
        return self._compare(source)

    def _compare(self, source: Checkpoint) -> str:
        try:
            expected = _transformers(self._copy, self._image, source.tokenizer.max_length)
        except Exception:
            return "a source that transformers does not open"
        for what, ours, theirs in zip(("picture", "text"), _ours(source, self._image), expected, strict=True):
            if ours.shape != theirs.shape:
                raise Finding(f"{what}: another shape than transformers'", f"{ours.shape}, {theirs.shape}")
            cosine = float(ours @ theirs / (np.linalg.norm(ours) * np.linalg.norm(theirs)))
            if not cosine > _LEAST_COSINE and np.isfinite(theirs).all():
                raise Finding(f"{what}: another embedding than transformers'", f"cosine {cosine:.4f}")
        return "a source like transformers'"


@torch.no_grad()
def _ours(source: Checkpoint, image: Image.Image) -> tuple[NDArray[Any], NDArray[Any]]:
    pixels = torch.from_numpy(load_pixels(image, source.preprocess))[None]
    ids = Tokenizer(source.tokenizer_json, source.tokenizer).encode([_TEXT]).ids
    return source.component("image_encoder").module(pixels)[0].numpy(), source.component(
        "text_encoder"
    ).module(torch.from_numpy(ids))[0].numpy()


@torch.no_grad()
def _transformers(folder: Path, image: Image.Image, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    model = CLIPModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with rows_first():
        seen = CLIPImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    read = tokenizer([_TEXT], padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    picture = model.get_image_features(seen["pixel_values"]).pooler_output[0]
    # without the mask: padding comes after what is pooled, and ours has none
    return picture.numpy(), model.get_text_features(read["input_ids"]).pooler_output[0].numpy()
