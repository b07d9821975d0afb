"""A tiny seeded CLIPModel folder, written as `save_pretrained` would write a real one."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors, trainers
from tokenizers.models import BPE
from torch import nn
from transformers import CLIPConfig, CLIPModel

IMAGE_SIZE = 32
PATCH_SIZE = 8
HIDDEN = 32
TEXT_LENGTH = 16
EMBEDDING_DIM = 24
BOS, EOS = "<|startoftext|>", "<|endoftext|>"

_CORPUS = [
    "a photo of a red circle left of a small blue square",
    "a large striped green triangle above a dotted yellow star",
    "a picture of two cats, a dog and one car on the street",
    "what colour is the thing below the white cross?",
    "the scene holds a purple ring, an orange heart and a cyan diamond",
]


def _tokenizer() -> Tokenizer:
    """A byte-level BPE tokenizer with CLIP's special tokens; the highest id is the eos."""
    tokenizer = Tokenizer(BPE(unk_token=EOS))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=380,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    tokenizer.add_special_tokens([BOS, EOS])
    ids = {token: tokenizer.token_to_id(token) for token in (BOS, EOS)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}", special_tokens=[(BOS, ids[BOS]), (EOS, ids[EOS])]
    )
    return tokenizer


def _randomize_(model: CLIPModel, seed: int) -> None:
    """Gives every parameter, biases and LayerNorms included, a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                parameter.fill_(2.5)
            elif "norm" in name and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "embedding" in name:
                parameter.copy_(0.5 * noise)
            else:
                fan_in = parameter[0].numel()
                parameter.copy_(noise / fan_in**0.5)


def make_tiny_clip(
    folder: Path,
    seed: int = 0,
    *,
    legacy_eos: bool = False,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "5GB",
) -> Path:
    """Writes a whole Hugging Face CLIP folder: 32 x 32 pictures, patches of 8, two layers of 32, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        legacy_eos: write `eos_token_id` 2, as CLIP configs once did: text is then pooled at the highest id.
        dtype: of the stored weights.
        max_shard_size: smaller than the weights ("40KB") for a checkpoint in several files.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer()
    shared = {
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": EMBEDDING_DIM,
    }
    text = {
        **shared,
        "vocab_size": tokenizer.get_vocab_size(),
        "max_position_embeddings": TEXT_LENGTH,
        "bos_token_id": tokenizer.token_to_id(BOS),
        "eos_token_id": 2 if legacy_eos else tokenizer.token_to_id(EOS),
        "pad_token_id": tokenizer.token_to_id(EOS),
    }
    vision = {**shared, "image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=EMBEDDING_DIM))
    _randomize_(model, seed)
    nn.Module.to(model, dtype)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": TEXT_LENGTH,
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": EOS,
            "unk_token": EOS,
        },
    )
    _write_json(
        folder / "preprocessor_config.json",
        {
            "image_processor_type": "CLIPImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": IMAGE_SIZE},
            "resample": 3,
            "do_center_crop": True,
            "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "do_convert_rgb": True,
        },
    )
    return folder


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")
