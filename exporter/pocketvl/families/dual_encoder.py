"""VisionTextDualEncoder: encoders of two other models, each projected into one embedding space.

The image tower is a ConvNeXt (Liu et al., 2022, "A ConvNet for the 2020s", arXiv 2201.03545), the text tower
a BERT (Devlin et al., 2019, arXiv 1810.04805); weights and configuration as transformers'
`VisionTextDualEncoderModel` stores them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.image_processor import read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_padding, check_vocabulary, read_tokenizer, text_length
from pocketvl.families.layers.bert import embed_tokens, padding_mask, pool_last_bert_layer_
from pocketvl.families.layers.plain import NormalizePixels, l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.families.layers.prefix import MasksPadding
from pocketvl.families.ports import (
    contrastive_head,
    embedding_ports,
    two_encoders,
)
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import ImageProcessor, Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        BertConfig,
        BertModel,
        ConvNextConfig,
        ConvNextModel,
        PreTrainedConfig,
        PreTrainedModel,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
    )

_ENCODERS = (("vision_config", "convnext"), ("text_config", "bert"))
_FAMILY = "VisionTextDualEncoder"


class ConvNextImageEncoder(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: VisionTextDualEncoderModel, preprocess: ImageProcessor) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.vision_model = cast("ConvNextModel", model.vision_model)
        self.visual_projection = model.visual_projection
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        return self.embed(self.encode(pixels))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last stage's feature maps, float [B, channels, h, w]."""
        embeddings = self.vision_model.embeddings
        hidden: torch.Tensor = embeddings.layernorm(embeddings.patch_embeddings(self.normalize(pixels)))
        for stage in self.vision_model.encoder.stages:
            hidden = stage(hidden)
        return hidden

    def embed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The embedding of `encode`'s feature maps."""
        return l2_normalize(self.visual_projection(self.vision_model.layernorm(hidden.mean((-2, -1)))))


class BertTextEncoder(nn.Module, PoolsOnePosition, MasksPadding):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is not attended to."""

    def __init__(self, model: VisionTextDualEncoderModel, pad_id: int) -> None:
        """Args: model: shares its modules. pad_id: the padding token."""
        super().__init__()
        self.text_model = cast("BertModel", model.text_model)
        self.text_projection = model.text_projection
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        hidden, mask = embed_tokens(self.text_model.embeddings, ids), padding_mask(ids, self.pad_id)
        for layer in self.text_model.encoder.layer:
            hidden = layer(hidden, mask)
        pooled = cast(nn.Module, self.text_model.pooler)(hidden)
        return l2_normalize(self.text_projection(pooled))

    def pool_early_(self) -> None:
        pool_last_bert_layer_(self.text_model.encoder.layer)


class DualEncoderArchitecture(Architecture):
    """VisionTextDualEncoderModel with a ConvNeXt and a BERT in it."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, vision = _sections(config)
        preprocess, notes = read_preprocess(folder, cast(int, vision.image_size))
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, text.vocab_size, folder)
        check_padding(tokenizer, folder)
        length = text_length(tokenizer, int(text.max_position_embeddings), folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        return Contract(
            family="vision-text-dual-encoder",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(preprocess, spec, config.projection_dim),
            head=contrastive_head(),
            identity={
                "text": [text.num_attention_heads, text.hidden_act, text.layer_norm_eps],
                "vision": [vision.hidden_act, vision.layer_norm_eps],
            },
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> VisionTextDualEncoderConfig:
        from transformers import VisionTextDualEncoderConfig

        path = folder / "config.json"
        for section, known in _ENCODERS:
            part = stored.get(section)
            kind = part.get("model_type") if isinstance(part, dict) else None
            if kind != known:
                raise SourceError(
                    f"{path}: {section}.model_type is {quoted(kind)}; only {known!r} is supported there"
                )
        config = parse_config(VisionTextDualEncoderConfig, stored, path, _FAMILY)
        text, vision = _sections(config)
        sizes = {
            "vision_config.image_size": vision.image_size,
            "vision_config.patch_size": vision.patch_size,
            "projection_dim": config.projection_dim,
        }
        check_sizes(sizes, path)
        check_channels(vision.num_channels, "vision_config.num_channels", path)
        if not vision.hidden_sizes:
            raise SourceError(f"{path}: vision_config.hidden_sizes is {quoted(vision.hidden_sizes)}")
        if text.is_decoder:
            raise SourceError(f"{path}: text_config.is_decoder is true; a text tower is an encoder")
        # what goes into the projection; a ConvNextConfig has no such field, and the model asks for it
        vision.hidden_size = vision.hidden_sizes[-1]
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import VisionTextDualEncoderModel

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        return build_from(
            VisionTextDualEncoderModel, config, folder, _FAMILY, initialised=initialised, attention="eager"
        )

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        dual = cast("VisionTextDualEncoderModel", model)
        width = dual.text_projection.in_features
        read = LayerStack("text_model.encoder.layer", ("text_config", "num_hidden_layers"), width)
        return two_encoders(
            contract,
            ConvNextImageEncoder(dual, contract.preprocess),
            BertTextEncoder(dual, contract.tokenizer.pad_id),
            None,
            read,
        )


ARCHITECTURE = DualEncoderArchitecture()


def _sections(config: VisionTextDualEncoderConfig) -> tuple[BertConfig, ConvNextConfig]:
    return cast("BertConfig", config.text_config), cast("ConvNextConfig", config.vision_config)
