"""A tiny seeded VisionTextDualEncoder folder: a ConvNeXt and a BERT, as `save_pretrained` writes them."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn
from transformers import VisionTextDualEncoderConfig, VisionTextDualEncoderModel

from pocketvl.tabletop.tokenizer import PAD_ID, build_tokenizer, save_tokenizer

IMAGE_SIZE = 32
TEXT_LENGTH = 16
EMBEDDING_DIM = 24
VOCABULARY = 380

_CORPUS = [
    "a photo of a red circle left of a small blue square",
    "a large striped green triangle above a dotted yellow star",
    "a picture of two cats, a dog and one car on the street",
    "what colour is the thing below the white cross?",
]


def make_tiny_dual(folder: Path, seed: int = 0, *, dtype: torch.dtype = torch.float32) -> Path:
    """Writes a whole folder: 32 x 32 pictures, stages of 16 and 24 channels, two layers of 32, T = 16.

    Args:
        folder: where to write; made if it does not exist.
        seed: of the weights; the tokenizer is the same for every seed.
        dtype: of the stored weights.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vision = {
        "model_type": "convnext",
        "hidden_sizes": [16, 24],
        "depths": [2, 2],
        "num_stages": 2,
        "hidden_size": 24,
        "image_size": IMAGE_SIZE,
        "patch_size": 4,
        "layer_scale_init_value": 0.5,
        "layer_norm_eps": 1e-6,
    }
    text = {
        "model_type": "bert",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": TEXT_LENGTH,
        "pad_token_id": PAD_ID,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    config = VisionTextDualEncoderConfig(vision_config=vision, text_config=text, projection_dim=EMBEDDING_DIM)
    model = VisionTextDualEncoderModel(config)
    _randomize_(model, seed)
    nn.Module.to(model, dtype)
    model.save_pretrained(folder)
    save_tokenizer(build_tokenizer(_CORPUS, VOCABULARY), folder, TEXT_LENGTH)
    preprocessor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": IMAGE_SIZE},
        "crop_size": {"height": IMAGE_SIZE, "width": IMAGE_SIZE},
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor, indent=2) + "\n")
    return folder


def _randomize_(model: nn.Module, seed: int) -> None:
    """Gives every parameter, biases, norms and layer scales included, a value that matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name == "logit_scale":
                parameter.fill_(2.5)
            elif "norm" in name.lower() and name.endswith("weight"):
                parameter.copy_(1 + 0.1 * noise)
            elif "layer_scale" in name:
                parameter.copy_(0.5 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            elif "text_model.embeddings" in name:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise / parameter[0].numel() ** 0.5)
