"""Models of published sizes: configurations, random weights with outlier channels, and what they are shown.

The weights are drawn, so that no hub is needed: biases and LayerNorms are not at their defaults, and one
channel of every LayerNorm in a layer is eight times as large as the others. The tokenizers are small ones
of the right kind; the token tables have the published number of rows. What int8 costs such a network tells
what the arithmetic does to outliers, not what it does to a trained model.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bench.peers.models import pictures_of, write_shown, write_tokenizer
from tests.families.drawn import MEAN, STD, draw_, write_json
from tests.families.heard import write_heard

CALIBRATION, JUDGED = "calibration", "judged"
SAMPLES = {CALIBRATION: 48, JUDGED: 100}
"""The gate holds int8 to less where fewer than 100 rows are compared."""
_SEEDS = {CALIBRATION: 1, JUDGED: 2}
_SOUND_RATE, _SOUND_S = 48_000, 3.0
_ATTENDED = 1.0
"""Twelve layers see the text as they are drawn: of Chinese-CLIP's texts, 18 % of an embedding's length is
what they differ by, and 16 % were attentions' outputs four times as large."""


@dataclass(frozen=True)
class RealModel:
    """A model of a published size.

    Attributes:
        name: by which it is asked for.
        published: where people find its weights.
        write: writes its checkpoint into a folder.
        hears: whether it is shown sounds.
        fits_tflite: whether a TFLite file, of at most 2 GiB, holds each of its components in fp32.
    """

    name: str
    published: str
    write: Callable[[Path], None]
    hears: bool = False
    fits_tflite: bool = True


def write_data(model: RealModel, folder: Path, photos: Path) -> None:
    """Dataset folders `calibration` and `judged`, of other pictures or sounds with a text each.

    Args:
        model: for which.
        folder: where.
        photos: a dataset folder whose pictures are taken; where there is none, tabletop scenes are.
    """
    pictures = pictures_of(photos)
    for name, seed in _SEEDS.items():
        shutil.rmtree(folder / name, ignore_errors=True)
        if model.hears:
            write_heard(folder / name, seed, SAMPLES[name], _SOUND_RATE, _SOUND_S)
        else:
            write_shown(folder / name, seed, pictures, SAMPLES[name])


# --- transformers' ------------------------------------------------------------------------------------


def _layers(width: int, layers: int, heads: int, inner: int | None = None) -> dict[str, int]:
    return {
        "hidden_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": inner or 4 * width,
    }


def _picture(processor: str, side: int, *, crop: bool = False, resample: int = 3) -> dict[str, Any]:
    square = {"height": side, "width": side}
    cropped = {"size": {"shortest_edge": side}, "do_center_crop": True, "crop_size": square}
    return {
        "image_processor_type": processor,
        **(cropped if crop else {"size": square}),
        "resample": resample,
        "image_mean": MEAN,
        "image_std": STD,
    }


def _save(model: Any, folder: Path, processor: dict[str, Any]) -> None:
    draw_(model, 0, attended=_ATTENDED)
    model.train(False).save_pretrained(folder)
    write_json(folder / "preprocessor_config.json", processor)


def _clip(text: dict[str, int], vision: dict[str, int], joint: int, folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "vocab_size": 49_408}
    _save(
        CLIPModel(CLIPConfig(text_config=ids | text, vision_config=vision, projection_dim=joint)),
        folder,
        _picture("CLIPImageProcessor", 224, crop=True),
    )
    write_tokenizer(folder, 77)


def _siglip(shape: dict[str, int], patch: int, folder: Path) -> None:
    from transformers import SiglipConfig, SiglipModel

    ids = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "vocab_size": 256_000}
    text = {**shape, **ids, "max_position_embeddings": 64, "projection_size": shape["hidden_size"]}
    vision = {**shape, "image_size": 224, "patch_size": patch}
    _save(
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)),
        folder,
        _picture("SiglipImageProcessor", 224, resample=2),
    )
    write_tokenizer(folder, 64)


def _chinese_clip(folder: Path) -> None:
    from transformers import ChineseCLIPConfig, ChineseCLIPModel

    base = _layers(768, 12, 12)
    text = {**base, "vocab_size": 21_128, "max_position_embeddings": 512, "pad_token_id": 0}
    vision = {**base, "image_size": 224, "patch_size": 16}
    config = ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=512)
    _save(ChineseCLIPModel(config), folder, _picture("ChineseCLIPImageProcessor", 224))
    _save_wordpiece(folder, 52)


def _blip(folder: Path) -> None:
    from transformers import BlipConfig, BlipForImageTextRetrieval

    base = _layers(768, 12, 12)
    text = {**base, "vocab_size": 30_524, "encoder_hidden_size": 768, "max_position_embeddings": 512}
    vision = {**base, "image_size": 384, "patch_size": 16}
    config = BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=256)
    _save(BlipForImageTextRetrieval(config), folder, _picture("BlipImageProcessor", 384))
    _save_wordpiece(folder, 35)


def _save_wordpiece(folder: Path, length: int) -> None:
    from tests.families.wordpiece import save_wordpiece, wordpiece_tokenizer

    save_wordpiece(wordpiece_tokenizer(300), folder, length)


def _clap(folder: Path) -> None:
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel

    from tests.families.tiny_clap import save_roberta

    model = ClapModel(ClapConfig())
    norm = model.audio_model.audio_encoder.batch_norm
    with torch.no_grad():  # decibels, as of sounds
        norm.get_buffer("running_mean").copy_(torch.linspace(-25, -55, 64))
        norm.get_buffer("running_var").copy_(torch.linspace(300, 500, 64))
    draw_(model, 0, attended=_ATTENDED)
    model.train(False).save_pretrained(folder)
    save_roberta(folder, 77)
    ClapFeatureExtractor(
        feature_size=64,
        sampling_rate=_SOUND_RATE,
        hop_length=480,
        fft_window_size=1024,
        frequency_min=50,
        frequency_max=14_000,
        truncation="rand_trunc",
        padding="repeatpad",
    ).save_pretrained(folder)


# --- open_clip's --------------------------------------------------------------------------------------


def _open_clip(name: str, folder: Path) -> None:
    from tests.families.tiny_open_clip import PREPROCESS, make_tiny_open_clip

    make_tiny_open_clip(folder, model_cfg=_configuration(name), preprocess_cfg=PREPROCESS)


def _mobileclip(name: str, folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    from tests.families.tiny_fastvit import PREPROCESS, draw_fastvit_
    from tests.families.tiny_open_clip import draw_open_clip_, make_tiny_open_clip, open_clip_model

    configuration = _configuration(name)
    make_tiny_open_clip(folder, model_cfg=configuration, preprocess_cfg=PREPROCESS)
    model = open_clip_model(configuration)
    draw_open_clip_(model, 0)
    trunk = model.get_submodule("visual.trunk")
    draw_fastvit_(trunk, 0)
    _measure_statistics_(trunk, configuration["vision_cfg"]["image_size"])
    path = folder / "open_clip_model.safetensors"
    drawn = {f"visual.trunk.{key}": value.contiguous() for key, value in trunk.state_dict().items()}
    save_file(load_file(path) | drawn, path, {"format": "pt"})


def _measure_statistics_(trunk: nn.Module, side: int) -> None:
    """Batch norms' statistics as of pictures, so that what is drawn neither dies out nor grows."""
    for norm in trunk.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean of all batches
    scenes = _scenes(16, side)
    trunk.train()
    with torch.no_grad():
        for part in scenes.split(8):  # type: ignore[no-untyped-call]
            trunk(part)
    trunk.train(False)


def _scenes(count: int, side: int) -> torch.Tensor:
    """Painted scenes, float32 [count, 3, side, side] in 0 to 1."""
    from bench.clip_b32 import images

    pixels = torch.from_numpy(images(count, 3)).permute(0, 3, 1, 2).float() / 255
    return torch.nn.functional.interpolate(pixels, (side, side), mode="bilinear")


def _configuration(name: str) -> dict[str, Any]:
    from open_clip import get_model_config

    found: dict[str, Any] | None = get_model_config(name)
    assert found is not None, name
    return found


_B = _layers(768, 12, 12)
_SO400M = _layers(1152, 27, 16, 4304)
MODELS = {
    each.name: each
    for each in (
        RealModel(
            "clip-b32",
            "openai/clip-vit-base-patch32",
            partial(_clip, _layers(512, 12, 8), {**_B, "patch_size": 32}, 512),
        ),
        RealModel(
            "clip-l14",
            "openai/clip-vit-large-patch14",
            partial(_clip, _B, {**_layers(1024, 24, 16), "patch_size": 14}, 768),
        ),
        RealModel("siglip2-base", "google/siglip2-base-patch16-224", partial(_siglip, _B, 16)),
        RealModel(
            "siglip2-so400m",
            "google/siglip2-so400m-patch14-224",
            partial(_siglip, _SO400M, 14),
            fits_tflite=False,
        ),
        RealModel("mobileclip2-s0", "open_clip:MobileCLIP2-S0", partial(_mobileclip, "MobileCLIP2-S0")),
        RealModel("mobileclip2-s2", "open_clip:MobileCLIP2-S2", partial(_mobileclip, "MobileCLIP2-S2")),
        RealModel("convnext-b", "open_clip:convnext_base_w", partial(_open_clip, "convnext_base_w")),
        RealModel("blip-base", "Salesforce/blip-itm-base-coco", _blip),
        RealModel("chinese-clip", "OFA-Sys/chinese-clip-vit-base-patch16", _chinese_clip),
        RealModel("clap", "laion/clap-htsat-unfused", _clap, hears=True),
    )
}
