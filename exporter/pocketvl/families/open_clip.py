"""open_clip's models: an image tower and a text tower with one embedding space.

The towers are made of transformers' layers, which the rest of pocketvl knows, with open_clip's weights; where
a checkpoint is saved, they have open_clip's names again.

Source: Ilharco et al., 2021, "OpenCLIP", doi 10.5281/zenodo.5143773; weights and configuration as open_clip
3.3's `CLIP` and `CustomTextCLIP` store them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
from torch import nn

from pocketvl.errors import RecipeError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract
from pocketvl.families.folders.files import OPEN_CLIP_CONFIG
from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl.families.folders.open_clip import (
    MODEL,
    TRIMMED,
    VISION,
    Description,
    parse_description,
    read_open_clip_preprocess,
)
from pocketvl.families.folders.open_clip import TEXT as TEXT_SECTION
from pocketvl.families.folders.open_clip_tokenizer import read_open_clip_tokenizer
from pocketvl.families.folders.weights import OPEN_CLIP_SAFETENSORS
from pocketvl.families.layers.plain import NormalizePixels, l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.families.layers.prefix import ReadsPrefix
from pocketvl.families.ports import (
    IMAGE_ENCODER,
    TEXT_ENCODER,
    contrastive_head,
    embedding_ports,
    two_encoders,
)
from pocketvl.families.towers.base import ImageTower
from pocketvl.families.towers.blocks import mlp_ratio
from pocketvl.families.towers.text import TextModule, TextTower, text_tower
from pocketvl.families.towers.timm import timm_tower
from pocketvl.families.towers.vit import vit_tower
from pocketvl.network.heads import StoredScalar
from pocketvl_runtime.manifest import Activation, ImageProcessor

if TYPE_CHECKING:
    from pocketvl.families.component_shape import ComponentShape

_SCALARS = ("logit_scale", "logit_bias")
_OF_OPENAI = ("input_resolution", "context_length", "vocab_size")
"""Numbers among the tensors of OpenAI's own checkpoints, which the configuration says."""


@dataclass(frozen=True)
class OpenClipConfig:
    """An open_clip model as its configuration describes it.

    Attributes:
        description: the configuration.
        vision_config: the image tower.
        text_config: the text tower.
    """

    description: Description
    vision_config: ImageTower
    text_config: TextTower

    @property
    def has_bias(self) -> bool:
        """Whether cosines have a bias, and a sigmoid: models trained as SigLIP is."""
        return self.description.model.init_logit_bias is not None


class OpenClipModel(nn.Module):
    """Both towers, and what cosines are multiplied by.

    Attributes:
        config: what it was built of.
    """

    def __init__(self, config: OpenClipConfig, initialised: bool) -> None:
        """Args: config: of the towers. initialised: whether weights are random; else uninitialised."""
        super().__init__()
        self.config = config
        self.visual = config.vision_config.build(initialised)
        self.text = config.text_config.build(initialised)
        for name in _SCALARS if config.has_bias else _SCALARS[:1]:
            setattr(self, name, nn.Parameter(torch.zeros(())))


class OpenClipImageEncoder(nn.Module, PoolsOnePosition):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: OpenClipModel, preprocess: ImageProcessor) -> None:
        """Args: model: shares its image tower. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.visual = model.visual
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        return l2_normalize(self.visual(self.normalize(pixels)))

    def pool_early_(self) -> None:
        if isinstance(self.visual, PoolsOnePosition):
            self.visual.pool_early_()


class OpenClipTextEncoder(nn.Module, PoolsOnePosition, ReadsPrefix):
    """int ids [B, T] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: OpenClipModel) -> None:
        """Args: model: shares its text tower."""
        super().__init__()
        self.text: TextModule = model.text

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        return l2_normalize(self.text(ids))

    def read_lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Those of the tower."""
        return self.text.read_lengths(ids)

    def pool_early_(self) -> None:
        self.text.pool_early_()


class OpenClipArchitecture(Architecture):
    """CLIP and CustomTextCLIP of open_clip."""

    config_file: ClassVar[str] = OPEN_CLIP_CONFIG
    weights_file: ClassVar[str] = OPEN_CLIP_SAFETENSORS

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / OPEN_CLIP_CONFIG), folder)
        preprocess, notes = read_open_clip_preprocess(config.description)
        tokenizer, spec, token_notes = read_open_clip_tokenizer(config.description)
        bias = StoredScalar(_SCALARS[1]) if config.has_bias else None
        return Contract(
            family="open-clip",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(preprocess, spec, config.description.model.embed_dim),
            head=contrastive_head(bias, Activation.SIGMOID if config.has_bias else Activation.SOFTMAX),
            identity={"vision": config.vision_config.identity, "text": config.text_config.identity},
            notes=notes + token_notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> OpenClipConfig:
        path = folder / OPEN_CLIP_CONFIG
        description = parse_description(stored, path)
        model = description.model
        seen = timm_tower(model, path) if model.vision_cfg.timm_model_name else vit_tower(model)
        return OpenClipConfig(description, seen, text_tower(model))

    def build(self, config: Any, folder: Path, initialised: bool = False) -> OpenClipModel:
        return OpenClipModel(cast(OpenClipConfig, config), initialised)

    def unpack_(self, weights: dict[str, torch.Tensor], config: Any) -> None:
        for name in _OF_OPENAI:
            weights.pop(name, None)
        config.text_config.unpack_(weights)
        config.vision_config.unpack_(weights)
        for name in _SCALARS:
            if name in weights and weights[name].numel() == 1:
                weights[name] = weights[name].reshape(())

    def pack_(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        parsed = self.parse(config, Path())
        parsed.vision_config.pack_(weights)
        parsed.text_config.pack_(weights)
        if parsed.description.model.nonscalar_logit_scale:
            for name in _SCALARS:
                if name in weights:
                    weights[name] = weights[name].reshape(1)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        opened = cast(OpenClipModel, model)
        seen = opened.config.vision_config
        image, text = two_encoders(
            contract,
            OpenClipImageEncoder(opened, contract.preprocess),
            OpenClipTextEncoder(opened),
            seen.stack,
            opened.config.text_config.stack,
        )
        unquantized, dynamic = seen.unquantized(image.module), seen.dynamic(image.module)
        return replace(image, unquantized=unquantized, dynamic=dynamic), text

    def shorten_texts_(self, model: nn.Module, config: dict[str, Any], length: int) -> None:
        update_section_(config, f"{MODEL}.{TEXT_SECTION}", {"context_length": length})
        cast(OpenClipModel, model).text.shorten_(length)

    def save_length(self, out: Path, length: int) -> None:
        pass

    def trim_config_(self, config: dict[str, Any], folder: Path, new_ids: Mapping[int, int]) -> int:
        described = self.parse(config, folder).description
        text = described.model.text_cfg
        pad = (
            described.trimmed.pad_id
            if described.trimmed is not None
            else self.contract(folder).tokenizer.pad_id
        )
        changed = {"vocab_size": len(new_ids), "eos_id": new_ids.get(text.eos_id, text.eos_id)}
        update_section_(config, f"{MODEL}.{TEXT_SECTION}", changed)
        update_section_(config, TRIMMED, {"pad_id": new_ids[pad]})
        return text.vocab_size

    def is_reshapable(self, config: dict[str, Any], folder: Path) -> bool:
        return not self.parse(config, folder).description.model.vision_cfg.timm_model_name

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        sections = {IMAGE_ENCODER: VISION, TEXT_ENCODER: TEXT_SECTION}
        if IMAGE_ENCODER in shapes and config[MODEL][VISION].get("timm_model_name"):
            raise RecipeError("an image tower of timm cannot be reinitialised in another shape")
        for name, shape in shapes.items():
            values: dict[str, object] = {
                "width": shape.width,
                "layers": shape.layers,
                "mlp_ratio": mlp_ratio(shape.width, shape.neurons or 4 * shape.width),
            }
            is_text = name == TEXT_ENCODER
            values["heads" if is_text else "head_width"] = (
                shape.heads if is_text else shape.width // shape.heads
            )
            update_section_(config, f"{MODEL}.{sections[name]}", values)


ARCHITECTURE = OpenClipArchitecture()
