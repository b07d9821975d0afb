"""A small CLIP of photographs, to try recipes on a model unlike the demo: 32 x 32 pixels, 49,408 tokens.

    pocketvl data import folders PICTURES.zip -o DIR --split train=rest,test=2000
    python -m bench.photo_clip DIR/train --test DIR/test --tokenizer FOLDER -o CHECKPOINT [--epochs 60]

Trains transformers' CLIPModel from nothing on class folders: each picture against all labels, in templates
chosen at random, shown in random crops, mirrored, and mixed in pairs (Zhang et al., 2018, "mixup", arXiv
1710.09412). The tokenizer is a folder's of CLIP. Interrupted, it goes on at the last epoch.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

from pocketvl.data.dataset import Dataset
from pocketvl_runtime.image import open_image

SIDE, PATCH, LENGTH = 32, 4, 16
TEMPLATES = (
    "a photo of a {}",
    "a picture of a {}",
    "a blurry photo of a {}",
    "a small {}",
    "a {} outside",
    "one {}",
    "a photo of one {}",
    "the {}",
)
_BATCH, _RATE, _MIX, _SMOOTH = 250, 1.5e-3, 0.2, 0.1


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
    train, test = (_read(Dataset.open(folder)) for folder in (arguments.train, arguments.test))
    texts = {
        template: tokenizer(
            [template.format(name) for name in train[2]],
            padding="max_length",
            max_length=LENGTH,
            return_tensors="pt",
        ).input_ids
        for template in TEMPLATES
    }
    _train(model, train, test, texts, arguments.epochs, arguments.out.with_suffix(".state"))
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


def _read(dataset: Dataset) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Pixels uint8 [N, 3, H, W], labels int64 [N], and their names."""
    names = sorted({str(sample.label) for sample in dataset.samples})
    pixels = np.stack([np.asarray(open_image(sample.image)) for sample in dataset.samples])
    labels = torch.tensor([names.index(str(sample.label)) for sample in dataset.samples])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), labels, names


def _train(
    model: CLIPModel,
    train: tuple[torch.Tensor, torch.Tensor, list[str]],
    test: tuple[torch.Tensor, torch.Tensor, list[str]],
    texts: dict[str, torch.Tensor],
    epochs: int,
    state: Path,
) -> None:
    pixels, labels, names = train
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=0.05)
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
            with torch.autocast("cpu", torch.bfloat16):
                scores = _scores(model, images, texts[template])
            loss = F.cross_entropy(scores.float(), wanted, label_smoothing=_SMOOTH)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=float(np.log(100)))
        saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(saved | {"schedule": schedule.state_dict(), "epoch": epoch + 1}, state)
        if epoch % 5 == 4 or epoch + 1 == epochs:
            told = f"epoch {epoch + 1}/{epochs}: loss {loss:.3f}, top-1 {_accuracy(model, test, texts):.1%}"
            print(f"{told}, {time.monotonic() - begin:.0f} s an epoch", flush=True)


def _scores(model: CLIPModel, images: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Scores [N, labels] of pictures, uint8 or float in 0 to 255."""
    found = model(pixel_values=images.float() / 127.5 - 1, input_ids=ids)
    scores: torch.Tensor = found.logits_per_image
    return scores


def _shifted(pixels: torch.Tensor, chance: torch.Generator) -> torch.Tensor:
    """Each picture moved by up to four pixels, half of them mirrored."""
    padded = F.pad(pixels.float(), (4, 4, 4, 4), mode="reflect")
    offsets = torch.randint(9, (len(pixels), 2), generator=chance).tolist()
    moved = torch.stack(
        [each[:, y : y + SIDE, x : x + SIDE] for each, (y, x) in zip(padded, offsets, strict=True)]
    )
    flipped = torch.rand(len(pixels), generator=chance) < 0.5
    return torch.where(flipped[:, None, None, None], moved.flip(-1), moved)


def _mixed(
    images: torch.Tensor, labels: torch.Tensor, count: int, chance: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures mixed with others of the batch, and how much of which label each is."""
    wanted = F.one_hot(labels, count).float()
    seed = int(torch.randint(2**31, (1,), generator=chance))
    share = float(np.random.default_rng(seed).beta(_MIX, _MIX))
    other = torch.randperm(len(images), generator=chance)
    mix = [share * each + (1 - share) * each[other] for each in (images, wanted)]
    return mix[0], mix[1]


def _accuracy(
    model: CLIPModel,
    test: tuple[torch.Tensor, torch.Tensor, list[str]],
    texts: dict[str, torch.Tensor],
) -> float:
    model.train(False)
    with torch.inference_mode():
        parts = test[0].split(500)  # type: ignore[no-untyped-call]
        found = [_scores(model, part, texts[TEMPLATES[0]]).argmax(1) for part in parts]
    return float((torch.cat(found) == test[1]).float().mean())


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
