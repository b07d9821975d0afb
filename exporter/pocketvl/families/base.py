"""What every family gives: one opened checkpoint, ready to be run, calibrated and lowered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pocketvl_runtime.manifest import ImageProcessor, TextProcessor

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Source:
    """An opened image-text model in eval mode, fp32, on the CPU.

    Attributes:
        family: the family's name, "clip".
        name: the name of its folder.
        folder: where it was loaded from.
        preprocess: how a picture becomes the uint8 pixels that `image_encoder` takes.
        tokenizer: how a text becomes the ids that `text_encoder` takes.
        tokenizer_json: the content of tokenizer.json, byte for byte.
        embedding_dim: D, the length of an embedding.
        logit_scale: what a cosine is multiplied by before a softmax.
        space: "sha256:..." of weights, preprocessing and tokenizer: equal where embeddings are comparable.
        image_encoder: uint8 [B, H, W, 3] RGB -> float32 [B, D], L2-normalised; normalises pixels
            inside.
        text_encoder: int32 [B, T] -> float32 [B, D], L2-normalised.
        notes: what the user should know about how the folder was read, one sentence each.
    """

    family: str
    name: str
    folder: Path
    preprocess: ImageProcessor
    tokenizer: TextProcessor
    tokenizer_json: bytes
    embedding_dim: int
    logit_scale: float
    space: str
    image_encoder: nn.Module
    text_encoder: nn.Module
    notes: tuple[str, ...] = ()
