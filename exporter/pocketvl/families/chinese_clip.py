"""Chinese-CLIP: CLIP's image encoder and a BERT that reads Chinese, with one embedding space.

Source: Yang et al., 2022, "Chinese CLIP: Contrastive Vision-Language Pretraining in Chinese",
arXiv 2211.01335; weights and configuration as transformers' `ChineseCLIPModel` stores them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.clip import ClipImageEncoder
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.image_processor import CHINESE_CLIP_PROCESSOR, read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_padding, check_vocabulary, masked_length, read_tokenizer
from pocketvl.families.layers.bert import embed_tokens, padding_mask, pool_last_bert_layer_
from pocketvl.families.layers.plain import l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.families.layers.prefix import MasksPadding
from pocketvl.families.ports import (
    contrastive_head,
    embedding_ports,
    reshape_sections_,
    two_encoders,
)
from pocketvl_runtime.manifest import Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        ChineseCLIPConfig,
        ChineseCLIPModel,
        ChineseCLIPTextConfig,
        ChineseCLIPVisionConfig,
        CLIPModel,
        PreTrainedConfig,
        PreTrainedModel,
    )

    from pocketvl.families.component_shape import ComponentShape

_FAMILY = "Chinese-CLIP"
_TRAINED_LENGTH = 52
"""Tokens of the texts that the published models were trained on (Yang et al., 2022, their code's default)."""


class ChineseClipTextEncoder(nn.Module, PoolsOnePosition, MasksPadding):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is not attended to, the first token pooled."""

    def __init__(self, model: ChineseCLIPModel, pad_id: int) -> None:
        """Args: model: shares its modules. pad_id: the padding token."""
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        hidden, mask = embed_tokens(self.text_model.embeddings, ids), padding_mask(ids, self.pad_id)
        for layer in self.text_model.encoder.layer:
            hidden = layer(hidden, mask)
        return l2_normalize(self.text_projection(hidden[:, 0]))

    def pool_early_(self) -> None:
        pool_last_bert_layer_(self.text_model.encoder.layer)


class ChineseClipArchitecture(Architecture):
    """ChineseCLIPModel."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, vision = _sections(config)
        preprocess, notes = read_preprocess(folder, cast(int, vision.image_size), CHINESE_CLIP_PROCESSOR)
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, text.vocab_size, folder)
        check_padding(tokenizer, folder)
        length, cut = masked_length(tokenizer, text.max_position_embeddings, _TRAINED_LENGTH, folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        return Contract(
            family="chinese-clip",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(preprocess, spec, cast(int, config.projection_dim)),
            head=contrastive_head(),
            identity={
                "text": [text.num_attention_heads, text.hidden_act, text.layer_norm_eps],
                "vision": [vision.num_attention_heads, vision.hidden_act, vision.layer_norm_eps],
            },
            notes=notes + cut,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> ChineseCLIPConfig:
        from transformers import ChineseCLIPConfig

        path = folder / CONFIG_FILE
        config = parse_config(ChineseCLIPConfig, stored, path, _FAMILY)
        _, vision = _sections(config)
        sizes = {
            "vision_config.image_size": vision.image_size,
            "vision_config.patch_size": vision.patch_size,
            "projection_dim": config.projection_dim,
        }
        check_sizes(sizes, path)
        check_channels(vision.num_channels, "vision_config.num_channels", path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import ChineseCLIPModel

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        return build_from(
            ChineseCLIPModel, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        clip = cast("ChineseCLIPModel", model)
        layers, widths = (
            "num_hidden_layers",
            (clip.visual_projection.in_features, clip.text_projection.in_features),
        )
        seen = LayerStack("vision_model.encoder.layers", ("vision_config", layers), widths[0])
        read = LayerStack("text_model.encoder.layer", ("text_config", layers), widths[1])
        return two_encoders(
            contract,
            ClipImageEncoder(cast("CLIPModel", clip), contract.preprocess),
            ChineseClipTextEncoder(clip, contract.tokenizer.pad_id),
            seen,
            read,
        )

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        reshape_sections_(config, shapes)


ARCHITECTURE = ChineseClipArchitecture()


def _sections(config: ChineseCLIPConfig) -> tuple[ChineseCLIPTextConfig, ChineseCLIPVisionConfig]:
    return (
        cast("ChineseCLIPTextConfig", config.text_config),
        cast("ChineseCLIPVisionConfig", config.vision_config),
    )
