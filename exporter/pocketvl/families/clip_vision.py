"""CLIP's image encoder by itself, with its projection into the embedding space or without.

Without one, an image's embedding is what transformers' `CLIPVisionModel` pools: the first token behind the
last LayerNorm. Both have the same `model_type`; `architectures` in config.json says which it is.

Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020; weights and configuration as transformers' `CLIPVisionModelWithProjection` and
`CLIPVisionModel` store them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.families.base import IMAGE, Architecture, Component, Contract, LayerStack
from pocketvl.families.clip import ClipImageEncoder
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl.families.folders.image_processor import CLIP_PROCESSOR, read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.ports import (
    IMAGE_ENCODER,
    embedding_head,
    encoder,
    encoder_ports,
    is_projected,
    keep_tower_,
    pixel_port,
)

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPVisionConfig, PreTrainedConfig

    from pocketvl.families.component_shape import ComponentShape

_FAMILY = "CLIP vision"
_PLAIN = "CLIPVisionModel"
_TOWER, _PROJECTION = "vision_model", "visual_projection"


class ClipVisionArchitecture(Architecture):
    """CLIPVisionModelWithProjection and CLIPVisionModel."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        preprocess, notes = read_preprocess(folder, cast(int, config.image_size), CLIP_PROCESSOR)
        dim = config.projection_dim if is_projected(config, _PLAIN) else config.hidden_size
        return Contract(
            family="clip-vision",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess},
            tokenizer_json=b"",
            components={IMAGE_ENCODER: encoder_ports(pixel_port(preprocess), dim)},
            head=embedding_head(IMAGE_ENCODER),
            identity={"tower": [config.num_attention_heads, config.hidden_act, config.layer_norm_eps]},
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> CLIPVisionConfig:
        from transformers import CLIPVisionConfig

        path = folder / CONFIG_FILE
        config = parse_config(CLIPVisionConfig, stored, path, _FAMILY)
        sizes = {name: getattr(config, name) for name in ("image_size", "patch_size", "projection_dim")}
        check_sizes(sizes, path)
        check_channels(config.num_channels, "num_channels", path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> nn.Module:
        from transformers import CLIPVisionModelWithProjection

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        model = build_from(
            CLIPVisionModelWithProjection, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )
        if not is_projected(config, _PLAIN):
            cast(Any, model).visual_projection = nn.Identity()
        return model

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        keep_tower_(weights, _TOWER, _PROJECTION if is_projected(config, _PLAIN) else None)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        clip = cast("CLIPModel", model)
        layers = LayerStack(
            f"{_TOWER}.encoder.layers", ("", "num_hidden_layers"), clip.vision_model.config.hidden_size
        )
        module = ClipImageEncoder(clip, contract.preprocess)
        return (encoder(contract, IMAGE_ENCODER, module, layers),)

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        update_section_(config, "", shapes[IMAGE_ENCODER].section())


ARCHITECTURE = ClipVisionArchitecture()
