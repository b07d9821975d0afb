"""A tiny seeded ViltForQuestionAnswering folder, and questions for it."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer

from pocketvl.tabletop.tokenizer import BOS_ID, EOS_ID, PAD_ID, build_tokenizer
from pocketvl.tabletop.training import corpus, save_checkpoint
from pocketvl.tabletop.vilt import ViltSettings, build_vilt
from tests.families.tiny_vilt import draw_parameters_

IMAGE_SIZE = 32
TEXT_LENGTH = 16
PATCHES = 16
HEADS = 2
HEAD_SIZE = 16
LAYERS = 2
LAYER = "vilt.encoder.layer"
SHAPE = ViltSettings(
    image_size=IMAGE_SIZE,
    patch_size=8,
    width=HEADS * HEAD_SIZE,
    layers=LAYERS,
    heads=HEADS,
    text_length=TEXT_LENGTH,
    vocab_size=512,
    mean=(0.5, 0.4, 0.3),
    std=(0.5, 0.25, 0.3),
)


@cache
def _tokenizer() -> Tokenizer:
    return build_tokenizer(corpus(1), SHAPE.vocab_size)


def make_vilt_folder(folder: Path, seed: int = 0) -> Path:
    """Two layers of two heads of 16, all parameters drawn from the seed; the tabletop answers."""
    with torch.random.fork_rng(devices=[]):
        model = build_vilt(SHAPE)
    draw_parameters_(model, seed)
    save_checkpoint(model, _tokenizer(), SHAPE, folder)
    return folder


def vilt_inputs(count: int = 4, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels uint8 [B, 32, 32, 3], and ids int32 [B, 16] of questions of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=torch.uint8, generator=generator)
    ids = torch.randint(4, 500, (count, TEXT_LENGTH), dtype=torch.int32, generator=generator)
    ids[:, 0] = BOS_ID
    for row in range(count):
        end = 4 + 3 * row % (TEXT_LENGTH - 4)
        ids[row, end] = EOS_ID
        ids[row, end + 1 :] = PAD_ID
    return pixels, ids
