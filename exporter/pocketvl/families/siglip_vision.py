"""SigLIP's image encoder by itself; SigLIP 2's of a fixed resolution is one, too.

Source: Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; weights and
configuration as transformers' `SiglipVisionModel` stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl.families.folders.image_processor import SIGLIP_PROCESSOR, read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.ports import (
    IMAGE_ENCODER,
    embedding_head,
    encoder,
    encoder_ports,
    keep_tower_,
    pixel_port,
)
from pocketvl.families.siglip import SiglipImageEncoder, adapt_vision_, pack_pooling_, unpack_pooling_

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, SiglipModel, SiglipVisionConfig

    from pocketvl.families.component_shape import ComponentShape

_FAMILY = "SigLIP vision"
_TOWER = "vision_model"


class SiglipVisionArchitecture(Architecture):
    """SiglipVisionModel."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        preprocess, notes = read_preprocess(folder, cast(int, config.image_size), SIGLIP_PROCESSOR)
        return Contract(
            family="siglip-vision",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess},
            tokenizer_json=b"",
            components={IMAGE_ENCODER: encoder_ports(pixel_port(preprocess), config.hidden_size)},
            head=embedding_head(IMAGE_ENCODER),
            identity={"encoder": [config.num_attention_heads, config.hidden_act, config.layer_norm_eps]},
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> SiglipVisionConfig:
        from transformers import SiglipVisionConfig

        path = folder / CONFIG_FILE
        config = parse_config(SiglipVisionConfig, stored, path, _FAMILY)
        check_sizes({name: getattr(config, name) for name in ("image_size", "patch_size")}, path)
        check_channels(config.num_channels, "num_channels", path)
        if not cast(Any, config).vision_use_head:
            raise SourceError(f"{path}: vision_use_head is false; without it nothing is embedded")
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> nn.Module:
        from transformers import SiglipVisionModel

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        vision = build_from(
            SiglipVisionModel, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )
        adapt_vision_(vision)
        return nn.ModuleDict({_TOWER: vision})

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        keep_tower_(weights, _TOWER, None)
        unpack_pooling_(weights)

    def pack_(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        pack_pooling_(weights)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        siglip = cast("SiglipModel", model)
        layers = LayerStack(
            f"{_TOWER}.encoder.layers", ("", "num_hidden_layers"), siglip.vision_model.config.hidden_size
        )
        module = SiglipImageEncoder(siglip, contract.preprocess)
        return (encoder(contract, IMAGE_ENCODER, module, layers),)

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        update_section_(config, "", shapes[IMAGE_ENCODER].section())


ARCHITECTURE = SiglipVisionArchitecture()
