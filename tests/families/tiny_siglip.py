"""Tiny seeded SigLIP 2 folders, with a Gemma tokenizer, as `save_pretrained` would write real ones."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import nn
from transformers import Siglip2Config, Siglip2Model, SiglipConfig, SiglipModel

IMAGE_SIZE, PATCH_SIZE, HIDDEN, TEXT_LENGTH = 32, 8, 32, 16
PAD, EOS = "<pad>", "<eos>"

_CORPUS = [
    "a photo of a red circle left of a small blue square",
    "a large striped green triangle above a dotted yellow star",
    "a picture of two cats, a dog and one car on the street",
    "what colour is the thing below the white cross?",
]


def gemma_tokenizer(vocabulary: int = 380) -> Tokenizer:
    """A byte-fallback BPE as Gemma's, whose texts end with <eos>."""
    specials = [PAD, EOS, "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "\u2581")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=specials, show_progress=False)
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {EOS}", special_tokens=[(EOS, 1)])
    return tokenizer


def make_tiny_siglip(folder: Path, seed: int = 0, *, patches: int | None = None, grid: int = 4) -> Path:
    """Writes a whole folder: two layers of 32, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        patches: positions of a NaFlex model ("siglip2"); None for pictures of 32 x 32 ("siglip").
        grid: patches a side of a square picture, by the image processor of a NaFlex model.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = gemma_tokenizer()
    shared = {
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    ends = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2}
    text = {
        **shared,
        **ends,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": TEXT_LENGTH,
    }
    model: nn.Module
    if patches is None:
        vision = {**shared, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
        model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    else:
        vision = {**shared, "num_patches": patches, "patch_size": PATCH_SIZE}
        model = Siglip2Model(Siglip2Config(text_config=text, vision_config=vision))
    _randomize_(model, seed)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "GemmaTokenizer", "padding_side": "right", "model_max_length": TEXT_LENGTH}
    config |= {"pad_token": PAD, "eos_token": EOS, "bos_token": "<bos>", "unk_token": "<unk>"}
    _write_json(folder / "tokenizer_config.json", {**config, "add_bos_token": False, "add_eos_token": True})
    sizes: dict[str, object] = {"size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE}}
    if patches is not None:
        sizes = {"patch_size": PATCH_SIZE, "max_num_patches": grid * grid}
    half = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2}
    kind = f"Siglip{'' if patches is None else '2'}ImageProcessor"
    _write_json(folder / "preprocessor_config.json", {"image_processor_type": kind, **sizes, **half})
    return folder


def _randomize_(model: nn.Module, seed: int) -> None:
    """Gives every parameter, biases and LayerNorms included, a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name in ("logit_scale", "logit_bias"):
                parameter.fill_(1.5 if name == "logit_scale" else -2.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embedding" in name and "patch" not in name:
                parameter.copy_(0.5 * noise)
            elif name.endswith("probe"):
                parameter.copy_(noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)


def _write_json(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
