"""SigLIP's text encoder by itself; SigLIP 2's of a fixed resolution is one, too.

Source: Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; weights and
configuration as transformers' `SiglipTextModel` stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.families.base import TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl.families.folders.models import build_from, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_vocabulary, read_tokenizer, text_length
from pocketvl.families.ports import (
    TEXT_ENCODER,
    embedding_head,
    encoder,
    encoder_ports,
    ids_port,
    keep_tower_,
)
from pocketvl.families.siglip import SiglipTextEncoder
from pocketvl_runtime.manifest import Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, SiglipModel, SiglipTextConfig

    from pocketvl.families.component_shape import ComponentShape

_FAMILY = "SigLIP text"
_TOWER = "text_model"


class SiglipTextArchitecture(Architecture):
    """SiglipTextModel."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        tokenizer = read_tokenizer(folder, follows_transformers=True)
        check_vocabulary(tokenizer, config.vocab_size, folder)
        length = text_length(tokenizer, int(config.max_position_embeddings), folder)
        padding = Padding(tokenizer.pad_id, tokenizer.pad_side)
        spec = TextProcessor(length, padding, canonicalize=tokenizer.canonicalize)
        dim = cast(int, config.projection_size)
        return Contract(
            family="siglip-text",
            name=folder.resolve().name,
            folder=folder,
            processors={TEXT: spec},
            tokenizer_json=tokenizer.content,
            components={TEXT_ENCODER: encoder_ports(ids_port(spec), dim)},
            head=embedding_head(TEXT_ENCODER),
            identity={"encoder": [config.num_attention_heads, config.hidden_act, config.layer_norm_eps]},
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> SiglipTextConfig:
        from transformers import SiglipTextConfig

        path = folder / CONFIG_FILE
        config = parse_config(SiglipTextConfig, stored, path, _FAMILY)
        check_sizes({"projection_size": config.projection_size}, path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> nn.Module:
        from transformers import SiglipTextModel

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        text = build_from(
            SiglipTextModel, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )
        return nn.ModuleDict({_TOWER: text})

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        keep_tower_(weights, _TOWER, None)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        siglip = cast("SiglipModel", model)
        layers = LayerStack(
            f"{_TOWER}.encoder.layers", ("", "num_hidden_layers"), siglip.text_model.config.hidden_size
        )
        return (encoder(contract, TEXT_ENCODER, SiglipTextEncoder(siglip), layers),)

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        update_section_(config, "", shapes[TEXT_ENCODER].section())


ARCHITECTURE = SiglipTextArchitecture()
