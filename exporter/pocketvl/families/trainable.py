"""A checkpoint as it is compressed and trained: transformers' own model, and its towers with gradients."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors.torch import save_file
from torch import nn

from pocketvl.errors import RecipeError, SourceError
from pocketvl.families.base import Source
from pocketvl.families.checkpoint import read_json, stored_dtype
from pocketvl.families.compression import compression_of
from pocketvl.families.folder import PROCESSOR_FILES
from pocketvl.families.tower_shape import TowerShape
from pocketvl_runtime.manifest import ImageProcessor, Role, TextProcessor


class Normalise(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, 3, H, W], rescaled and normalised."""

    def __init__(self, preprocess: ImageProcessor) -> None:
        """Args: preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.factor: torch.Tensor
        self.shift: torch.Tensor
        normalization = preprocess.normalized_in_graph
        mean, std = (torch.tensor(v)[:, None, None] for v in (normalization.mean, normalization.std))
        self.register_buffer("factor", normalization.rescale / std, persistent=False)  # [3, 1, 1]
        self.register_buffer("shift", mean / std, persistent=False)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Normalises a batch of pictures."""
        return pixels.permute(0, 3, 1, 2).float() * self.factor - self.shift


@dataclass(frozen=True)
class LayerStack:
    """The transformer layers of a tower.

    Attributes:
        name: of the model's ModuleList.
        config: where in config.json their number stands: section, or "" for none, and key.
        width: of the hidden states.
    """

    name: str
    config: tuple[str, str]
    width: int


@dataclass(eq=False)
class Trainable(ABC):
    """An opened checkpoint, to be changed and saved again.

    Attributes:
        folder: where it was loaded from.
        model: transformers' model, fp32, in eval mode, on the CPU; changed in place.
        config: the content of config.json; changed with the model where it says what has changed.
        dtype: in which weights are stored.
        preprocess: how a picture becomes pixels.
        tokenizer: how a text becomes ids.
        tokenizer_json: the content of tokenizer.json.
        logit_scale: what a cosine is multiplied by before a softmax.
    """

    folder: Path
    model: nn.Module
    config: dict[str, Any]
    dtype: torch.dtype
    preprocess: ImageProcessor
    tokenizer: TextProcessor
    tokenizer_json: bytes
    logit_scale: float

    @classmethod
    def of(cls, source: Source, model: nn.Module) -> Self:
        """A checkpoint of two towers.

        Args:
            source: the same folder, opened to be exported.
            model: transformers' own.
        """
        return cls(
            folder=source.folder,
            model=model,
            config=read_json(source.folder / "config.json"),
            dtype=stored_dtype(source.folder),
            preprocess=source.preprocess,
            tokenizer=source.tokenizer,
            tokenizer_json=source.tokenizer_json,
            logit_scale=source.logit_scale,
        )

    @property
    @abstractmethod
    def stacks(self) -> Mapping[Role, LayerStack]:
        """The layers of each tower that is a stack of transformer layers."""

    @property
    def roles(self) -> tuple[Role, ...]:
        """Which towers there are; those with a stack, unless a family has others."""
        return tuple(self.stacks)

    def stack(self, role: Role) -> LayerStack:
        """The layers of a tower.

        Raises:
            RecipeError: it is no stack of transformer layers.
        """
        if role not in self.stacks:
            raise RecipeError(
                f"the {role.value} is no stack of transformer layers, and this is for such towers only: "
                f"{', '.join(each.value for each in self.stacks)}"
            )
        return self.stacks[role]

    @abstractmethod
    def tower(self, role: Role) -> nn.Module:
        """A tower that shares the model's modules, and their names.

        Pixels uint8 [B, H, W, 3], or ids int [B, T], become embeddings float32 [B, D], L2-normalised; in a
        fusion tower both together become logits of the answers, float32 [B, answers]. Made anew by each call,
        so that it is of the model as it is then.
        """

    @abstractmethod
    def original(self) -> nn.Module:
        """A model as config.json describes it, without memory for its weights."""

    def begin_anew_(self, shapes: Mapping[Role, TowerShape], seed: int) -> None:
        """Puts towers of other shapes in the place of these, with weights that know nothing yet.

        Args:
            shapes: of every tower.
            seed: of the weights.

        Raises:
            RecipeError: the family has no towers of such shapes.
        """
        raise RecipeError(f"{self.folder}: models of this family cannot begin anew in another shape")

    def save(self, out: Path) -> None:
        """Writes the checkpoint folder `out`: weights, configuration, what differs from it, tokenizer.

        Raises:
            SourceError: a weight is not finite.
        """
        out.mkdir(parents=True, exist_ok=True)
        state = {
            name: value.detach().to(self.dtype).contiguous()
            for name, value in self.model.state_dict().items()
        }
        for name, value in state.items():
            if not bool(torch.isfinite(value).all()):
                raise SourceError(f"{name} holds values that {str(self.dtype).removeprefix('torch.')} cannot")
        save_file(state, out / "model.safetensors", {"format": "pt"})
        (out / "config.json").write_text(json.dumps(self.config, indent=2) + "\n", encoding="utf-8")
        compression_of(self.model, self.original()).save(out)
        for name in PROCESSOR_FILES:
            if (self.folder / name).exists():
                shutil.copyfile(self.folder / name, out / name)
