"""A small CLIP whose image encoder is a FastViT as MobileCLIP's are, trained on photographs.

    pocketvl data import folders PICTURES.zip -o DIR --split train=rest,test=2000
    python -m bench.photo_fastvit DIR/train --test DIR/test -o STATE.pt [--epochs 30]

The image encoder is timm's `fastvit_mci0` (squeeze-excite, reparametrised branches, attention in the last
stage), narrower and with fewer blocks, at 48 x 48 pixels; the text encoder is open_clip's. Pictures,
templates and mixing are those of `bench.photo_clip`. Interrupted, it goes on at the last epoch.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.fastvit import FastVit, RepConditionalPosEnc
from torch import nn

from bench.photo_clip import LENGTH, TEMPLATES, _mixed, _read, _shifted
from pocketvl.data.dataset import Dataset

SIDE = 48
BLOCKS, WIDTHS = (1, 2, 4, 1), (32, 64, 128, 256)
_BATCH, _RATE, _SMOOTH = 100, 2e-3, 0.1
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
    train, test = (_read(Dataset.open(folder)) for folder in (arguments.train, arguments.test))
    tokenize = open_clip.SimpleTokenizer(context_length=LENGTH)
    texts = {template: tokenize([template.format(name) for name in train[2]]) for template in TEMPLATES}
    _train(model, train, test, texts, arguments.epochs, arguments.out.with_suffix(".state"))
    torch.save(model.train(False).state_dict(), arguments.out)


def _train(
    model: nn.Module,
    train: tuple[torch.Tensor, torch.Tensor, list[str]],
    test: tuple[torch.Tensor, torch.Tensor, list[str]],
    texts: dict[str, torch.Tensor],
    epochs: int,
    state: Path,
) -> None:
    pixels, labels, names = train
    plain = [value for value in model.parameters() if value.ndim < 2]
    rest = [value for value in model.parameters() if value.ndim >= 2]
    groups = [{"params": rest, "weight_decay": 0.05}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=_RATE)
    steps = epochs * (len(pixels) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps, pct_start=0.1)
    first = 0
    if state.exists():
        saved = torch.load(state, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        chance = torch.Generator().manual_seed(epoch)
        begin = time.monotonic()
        model.train()
        for rows in torch.randperm(len(pixels), generator=chance).split(_BATCH):  # type: ignore[no-untyped-call]
            if len(rows) < _BATCH:
                continue
            images, wanted = _mixed(_shifted(pixels[rows], chance), labels[rows], len(names), chance)
            template = TEMPLATES[int(torch.randint(len(TEMPLATES), (1,), generator=chance))]
            loss = F.cross_entropy(_scores(model, images, texts[template]), wanted, label_smoothing=_SMOOTH)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.get_parameter("logit_scale").clamp_(max=float(np.log(100)))
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(saved | {"schedule": schedule.state_dict(), "epoch": epoch + 1}, state)
        told = f"epoch {epoch + 1}/{epochs}: loss {loss:.3f}, top-1 {_accuracy(model, test, texts):.1%}"
        print(f"{told}, {time.monotonic() - begin:.0f} s an epoch", flush=True)


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


def _accuracy(
    model: nn.Module, test: tuple[torch.Tensor, torch.Tensor, list[str]], texts: dict[str, torch.Tensor]
) -> float:
    model.train(False)
    with torch.inference_mode():
        parts = test[0].split(500)  # type: ignore[no-untyped-call]
        found = [_scores(model, part, texts[TEMPLATES[0]]).argmax(1) for part in parts]
    return float((torch.cat(found) == test[1]).float().mean())


if __name__ == "__main__":
    main()
