"""CLIP's text encoder by itself, with its projection into the embedding space or without.

Without one, a text's embedding is what transformers' `CLIPTextModel` pools, behind the last LayerNorm. Both
have the same `model_type`; `architectures` in config.json says which it is.

Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020; weights and configuration as transformers' `CLIPTextModelWithProjection` and
`CLIPTextModel` store them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.families.base import TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.clip import ClipTextEncoder, check_tokenizer
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json, update_section_
from pocketvl.families.folders.models import build_from, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import read_tokenizer, text_length
from pocketvl.families.ports import (
    TEXT_ENCODER,
    embedding_head,
    encoder,
    encoder_ports,
    ids_port,
    is_projected,
    keep_tower_,
)
from pocketvl_runtime.manifest import Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import CLIPModel, CLIPTextConfig, PreTrainedConfig

    from pocketvl.families.component_shape import ComponentShape

_FAMILY = "CLIP text"
_PLAIN = "CLIPTextModel"
_TOWER, _PROJECTION = "text_model", "text_projection"


class ClipTextArchitecture(Architecture):
    """CLIPTextModelWithProjection and CLIPTextModel."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        tokenizer = read_tokenizer(folder)
        notes = check_tokenizer(folder, tokenizer, config)
        length = text_length(tokenizer, int(config.max_position_embeddings), folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        dim = cast(int, config.projection_dim if is_projected(config, _PLAIN) else config.hidden_size)
        return Contract(
            family="clip-text",
            name=folder.resolve().name,
            folder=folder,
            processors={TEXT: spec},
            tokenizer_json=tokenizer.content,
            components={TEXT_ENCODER: encoder_ports(ids_port(spec), dim)},
            head=embedding_head(TEXT_ENCODER),
            identity={
                "tower": [config.num_attention_heads, config.hidden_act, config.layer_norm_eps],
                "eos": config.eos_token_id,
            },
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> CLIPTextConfig:
        from transformers import CLIPTextConfig

        path = folder / CONFIG_FILE
        config = parse_config(CLIPTextConfig, stored, path, _FAMILY)
        check_sizes({name: getattr(config, name) for name in ("eos_token_id", "projection_dim")}, path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> nn.Module:
        from transformers import CLIPTextModelWithProjection

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        model = build_from(
            CLIPTextModelWithProjection, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )
        if not is_projected(config, _PLAIN):
            cast(Any, model).text_projection = nn.Identity()
        return model

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        keep_tower_(weights, _TOWER, _PROJECTION if is_projected(config, _PLAIN) else None)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        clip = cast("CLIPModel", model)
        layers = LayerStack(
            f"{_TOWER}.encoder.layers", ("", "num_hidden_layers"), clip.text_model.config.hidden_size
        )
        module = ClipTextEncoder(clip, contract.tokenizer.max_length)
        return (encoder(contract, TEXT_ENCODER, module, layers),)

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        update_section_(config, "", shapes[TEXT_ENCODER].section())


ARCHITECTURE = ClipTextArchitecture()
