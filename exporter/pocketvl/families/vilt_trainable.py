"""ViLT as it is compressed and trained: one tower that reads text and picture together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.checkpoint import TokenizerFile, read_json, read_tokenizer, stored_dtype
from pocketvl.families.clip_preprocess import read_preprocess
from pocketvl.families.opening import MASKED, check_vocabulary, text_length
from pocketvl.families.segments import Segments
from pocketvl.families.trainable import LayerStack, Normalise, Trainable
from pocketvl.families.vilt import build_model, check_config, load_model, segment_lengths
from pocketvl_runtime.manifest import ImageProcessor, Padding, Role, TextProcessor

if TYPE_CHECKING:
    from transformers import ViltConfig, ViltForQuestionAnswering


class ViltTower(nn.Module):
    """uint8 [B, H, W, 3] and int ids [B, T] -> logits of the answers, float32 [B, answers].

    The picture's patches come in their own order, all of them; transformers draws a random one, which changes
    nothing but the order of sums.
    """

    def __init__(self, model: ViltForQuestionAnswering, preprocess: ImageProcessor, pad_id: int) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied. pad_id: fills
        up short texts, and is not looked at."""
        super().__init__()
        self.vilt, self.classifier = model.vilt, model.classifier
        self.pad_id = pad_id
        self.normalise = Normalise(preprocess)

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Answers a batch of questions, each about its own picture."""
        hidden, mask = self.embed(pixels, ids)
        for layer in self.layers:
            hidden = layer(hidden, mask)[0]
        return self.answer(hidden)

    @property
    def layers(self) -> nn.ModuleList:
        """Each takes hidden states and mask, and gives hidden states first in a tuple."""
        return self.vilt.encoder.layer

    def embed(self, pixels: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """What the first layer takes: float [B, T + 1 + patches, width], and what is added to scores."""
        embeddings = self.vilt.embeddings
        values = self.normalise(pixels)
        patches = embeddings.patch_embeddings(values).flatten(2).transpose(1, 2)
        first = embeddings.cls_token.expand(len(pixels), -1, -1)
        kinds = embeddings.token_type_embeddings.weight
        text = embeddings.text_embeddings(input_ids=ids.long()) + kinds[0]
        picture = torch.cat([first, patches], dim=1) + embeddings.position_embeddings + kinds[1]
        filling = (ids == self.pad_id).to(text.dtype) * MASKED
        mask = torch.cat([filling, filling.new_zeros(picture.shape[:2])], dim=1)[:, None, None]
        return torch.cat([text, picture], dim=1), mask

    def answer(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logits, out of what the last layer gave; pooled at the first token."""
        pooler = cast("nn.Module", self.vilt.pooler)
        pooled = pooler(self.vilt.layernorm(hidden[:, :1]))
        logits: torch.Tensor = self.classifier(pooled).float()
        return logits


@dataclass(eq=False)
class TrainableVilt(Trainable):
    """A ViltForQuestionAnswering.

    Attributes:
        answers: by their places among the logits.
        segments: of the sequence.
    """

    answers: tuple[str, ...]
    segments: Segments

    @property
    def stacks(self) -> Mapping[Role, LayerStack]:
        width = cast("ViltForQuestionAnswering", self.model).config.hidden_size
        return {Role.FUSION: LayerStack("vilt.encoder.layer", ("", "num_hidden_layers"), width)}

    def tower(self, role: Role) -> nn.Module:
        return ViltTower(cast("ViltForQuestionAnswering", self.model), self.preprocess, self.tokenizer.pad_id)

    def original(self) -> nn.Module:
        with torch.device("meta"):
            return build_model(self.config, self.folder)


def load_trainable(folder: Path) -> TrainableVilt:
    """Opens a ViltForQuestionAnswering folder.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    stored = read_json(folder / "config.json")
    config = check_config(stored, folder)
    answers = _answers(stored, folder)
    preprocess, _ = read_preprocess(folder, cast(int, config.image_size))
    tokenizer = read_tokenizer(folder)
    length = _text_length(folder, tokenizer, config)
    return TrainableVilt(
        folder=folder,
        model=load_model(folder, length),
        config=stored,
        dtype=stored_dtype(folder),
        preprocess=preprocess,
        tokenizer=TextProcessor(length, Padding(tokenizer.pad_id)),
        tokenizer_json=tokenizer.content,
        logit_scale=1.0,
        answers=answers,
        segments=Segments(segment_lengths(config, length)),
    )


def _text_length(folder: Path, tokenizer: TokenizerFile, config: ViltConfig) -> int:
    check_vocabulary(tokenizer, config.vocab_size, folder)
    if tokenizer.pad_id == tokenizer.eos_id:
        raise SourceError(f"{folder}: texts end with the very id {tokenizer.pad_id} that fills them up")
    return text_length(tokenizer, config.max_position_embeddings, folder)


def _answers(stored: dict[str, Any], folder: Path) -> tuple[str, ...]:
    labels = stored.get("id2label")
    path = folder / "config.json"
    if not isinstance(labels, dict) or len(labels) < 2:
        raise SourceError(f"{path}: id2label has to name two answers or more")
    if set(labels) != {str(place) for place in range(len(labels))}:
        raise SourceError(f"{path}: id2label has to name the answers 0 to {len(labels) - 1}")
    found = tuple(str(labels[str(place)]) for place in range(len(labels)))
    if len(set(found)) != len(found):
        raise SourceError(f"{path}: id2label names an answer twice")
    return found
