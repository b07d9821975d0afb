"""A small CLIP whose image encoder is a FastViT as MobileCLIP's are, trained on photographs.

    pocketvl data import folders PICTURES.zip -o DIR --split train=rest,test=2000
    python -m bench.photo_fastvit DIR/train --test DIR/test -o STATE.pt [--epochs 30]

The image encoder is timm's `fastvit_mci0` (squeeze-excite, reparametrised branches, attention in the last
stage), narrower and with fewer blocks, at 48 x 48 pixels; the text encoder is open_clip's. Pictures,
templates and mixing are those of `bench.photo_training`. Interrupted, it goes on at the last epoch.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from bench.photo_training import LENGTH, TEMPLATES, read_photos, train_on_photos
from pocketvl.data.dataset import Dataset

SIDE = 48
BLOCKS, WIDTHS = (1, 2, 4, 1), (32, 64, 128, 256)
_BATCH, _RATE = 100, 2e-3
_LAYER_SCALE = 0.1  # at first; timm's 1e-5 is for trainings of millions of steps


@register_model  # type: ignore[untyped-decorator]
def fastvit_photo(pretrained: bool = False, **settings: Any) -> FastVit:
    """`fastvit_mci0` of fewer and narrower blocks."""
    known = {
        name: settings[name] for name in ("num_classes", "global_pool", "drop_path_rate") if name in settings
    }
    return FastVit(
        layers=BLOCKS,
        embed_dims=WIDTHS,
        mlp_ratios=(3, 3, 3, 3),
        se_downsamples=(False, False, True, True),
        pos_embs=(None, None, None, partial(RepConditionalPosEnc, spatial_shape=(7, 7))),
        token_mixers=("repmixer", "repmixer", "repmixer", "attention"),
        lkc_use_act=True,
        layer_scale_init_value=_LAYER_SCALE,
        **known,
    )


CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "timm_model_name": "fastvit_photo",
        "timm_model_pretrained": False,
        "timm_pool": "avg",
        "timm_proj": None,
        "timm_drop": 0.0,
        "timm_drop_path": 0.0,
        "image_size": SIDE,
    },
    "text_cfg": {
        "context_length": LENGTH,
        "vocab_size": 49408,
        "width": 128,
        "heads": 4,
        "layers": 2,
        "no_causal_mask": True,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=16)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    model = open_clip.CustomTextCLIP(**CONFIG).to(memory_format=torch.channels_last)
    train, test = (read_photos(Dataset.open(folder)) for folder in (arguments.train, arguments.test))
    tokenize = open_clip.SimpleTokenizer(context_length=LENGTH)
    texts = {template: tokenize([template.format(name) for name in train[2]]) for template in TEMPLATES}
    plain = [value for value in model.parameters() if value.ndim < 2]
    rest = [value for value in model.parameters() if value.ndim >= 2]
    groups = [{"params": rest, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    train_on_photos(
        model,
        partial(_scores, model),
        torch.optim.AdamW(groups, lr=_RATE),
        train,
        test,
        texts,
        batch=_BATCH,
        rate=_RATE,
        epochs=arguments.epochs,
        state=arguments.out.with_suffix(".state"),
    )
    torch.save(model.train(False).state_dict(), arguments.out)


def _scores(model: nn.Module, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Scores [N, labels] of pictures of 32 x 32 pixels, uint8 or float in 0 to 255."""
    pixels = F.interpolate(images.float(), (SIDE, SIDE), mode="bicubic", antialias=True).clamp_(0, 255) / 255
    found, texts, scale = model(pixels.contiguous(memory_format=torch.channels_last), ids)
    scores: torch.Tensor = scale * found @ texts.T
    return scores


def save_checkpoint(state: Path, folder: Path) -> Path:
    """Write a trained model as an open_clip folder, which pocketvl opens where this module is imported.

    Args:
        state: what `main` wrote.
        folder: made.

    Returns:
        `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = torch.load(state, weights_only=True)
    save_file(
        {name: value.contiguous() for name, value in weights.items()}, folder / "open_clip_model.safetensors"
    )
    preprocess = {"mean": [0.0] * 3, "std": [1.0] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    described = {"model_cfg": {**CONFIG, "custom_text": True}, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described, indent=1) + "\n")
    return folder


if __name__ == "__main__":
    main()
