"""A small CLIP of photographs, to try recipes on a model unlike the demo: 32 x 32 pixels, 49,408 tokens.

    pocketvl data import folders PICTURES.zip -o DIR --split train=rest,test=2000
    python -m bench.photo_clip DIR/train --test DIR/test --tokenizer FOLDER -o CHECKPOINT [--epochs 60]
    pocketvl compress CHECKPOINT --recipe balanced --data DIR/train -o SMALLER
    pocketvl export SMALLER -o BUNDLE --data DIR/test --gate classify=2 ...      # and CHECKPOINT likewise

Trains transformers' CLIPModel from nothing on class folders: each picture against all labels, in templates
chosen at random, shown in random crops, mirrored, and mixed in pairs (Zhang et al., 2018, "mixup", arXiv
1710.09412). The tokenizer is a folder's of CLIP. Interrupted, it goes on at the last epoch.
"""

from __future__ import annotations

import argparse
import json
import shutil
from functools import partial
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from bench.photo_training import LENGTH, SIDE, TEMPLATES, read_photos, train_on_photos
from pocketvl.data.dataset import Dataset

PATCH = 4
_BATCH, _RATE = 125, 1e-3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=60)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.tokenizer)
    model = _model(tokenizer)
    train, test = (read_photos(Dataset.open(folder)) for folder in (arguments.train, arguments.test))
    texts = {
        template: tokenizer(
            [template.format(name) for name in train[2]],
            padding="max_length",
            max_length=LENGTH,
            return_tensors="pt",
        ).input_ids
        for template in TEMPLATES
    }
    train_on_photos(
        model,
        partial(_scores, model),
        torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.05),
        train,
        test,
        texts,
        batch=_BATCH,
        rate=_RATE,
        epochs=arguments.epochs,
        state=arguments.out.with_suffix(".state"),
    )
    _save(model, tokenizer, arguments.tokenizer, arguments.out)


def _model(tokenizer: PreTrainedTokenizerFast) -> CLIPModel:
    text = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": len(tokenizer),
        "max_position_embeddings": LENGTH,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.eos_token_id,
    }
    vision = {
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
    }
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=128))


def _scores(model: CLIPModel, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Scores [N, labels] of pictures, uint8 or float in 0 to 255."""
    scores: torch.Tensor = model(pixel_values=images.float() / 127.5 - 1, input_ids=ids).logits_per_image
    return scores


def _save(model: CLIPModel, tokenizer: PreTrainedTokenizerFast, source: Path, out: Path) -> None:
    model.train(False).save_pretrained(out)
    for path in source.glob("tokenizer*.json"):
        shutil.copy(path, out)
    config = json.loads((out / "tokenizer_config.json").read_text())
    config["model_max_length"] = LENGTH
    (out / "tokenizer_config.json").write_text(json.dumps(config))
    processor = {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": SIDE},
        "crop_size": {"height": SIDE, "width": SIDE},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
    }
    (out / "preprocessor_config.json").write_text(json.dumps(processor))


if __name__ == "__main__":
    main()
