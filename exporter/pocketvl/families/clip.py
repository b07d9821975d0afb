"""CLIP and MetaCLIP 2: an image and a text encoder with one embedding space.

MetaCLIP 2 ("metaclip_2") is CLIP with a multilingual tokenizer, XLM-V's or mT5's, which transformers may
make another of than tokenizer.json says.

Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020; Chuang et al., 2025, "MetaCLIP 2: A Worldwide Scaling Recipe", arXiv 2507.22062; weights and
configuration as transformers' `CLIPModel` and `MetaClip2Model` store them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.image_processor import CLIP_PROCESSOR, read_preprocess
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import TokenizerFile, check_vocabulary, read_tokenizer, text_length
from pocketvl.families.layers.plain import MASKED, NormalizePixels, l2_normalize
from pocketvl.families.layers.pooled import PooledLayer, PoolsOnePosition, pool_last_layer_, pooled_position
from pocketvl.families.layers.prefix import ReadsPrefix
from pocketvl.families.ports import (
    contrastive_head,
    embedding_ports,
    reshape_sections_,
    two_encoders,
)
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import ImageProcessor, Padding, Side, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        CLIPConfig,
        CLIPModel,
        CLIPTextConfig,
        CLIPVisionConfig,
        MetaClip2Config,
        MetaClip2Model,
        PreTrainedConfig,
        PreTrainedModel,
    )

    from pocketvl.families.component_shape import ComponentShape

    Config: TypeAlias = CLIPConfig | MetaClip2Config
    Model: TypeAlias = CLIPModel | MetaClip2Model

# Before transformers' pull request 24773 CLIP configs said eos_token_id 2 whatever the tokenizer said, and
# text was pooled at the highest id; transformers still does so for them.
_LEGACY_EOS = 2
_METACLIP_2 = "metaclip_2"


class ClipImageEncoder(nn.Module, PoolsOnePosition):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: Model, preprocess: ImageProcessor) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.vision_model, self.visual_projection = model.vision_model, model.visual_projection
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        return self.embed(self.encode(pixels))

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """The last layer's hidden states, float [B, 1 + patches, width]; the pooled token is first.

        Pooled early, they are of that token alone.
        """
        embeddings, batch = self.vision_model.embeddings, pixels.shape[0]
        values = self.normalize(pixels)  # [B, 3, H, W]
        patches = embeddings.patch_embedding(values).flatten(2).transpose(1, 2)  # [B, patches, width]
        first = embeddings.class_embedding.expand(batch, 1, -1)
        hidden = torch.cat([first, patches], dim=1) + embeddings.position_embedding.weight
        hidden = self.vision_model.pre_layrnorm(hidden)
        found: torch.Tensor = self.vision_model.encoder(inputs_embeds=hidden).last_hidden_state
        return found

    def embed(self, hidden: torch.Tensor) -> torch.Tensor:
        """The embedding of `encode`'s hidden states."""
        return l2_normalize(self.visual_projection(self.vision_model.post_layernorm(hidden[:, 0])))

    def pool_early_(self) -> None:
        pool_last_layer_(self.vision_model.encoder.layers, 0)


class ClipTextEncoder(nn.Module, PoolsOnePosition, ReadsPrefix):
    """int ids [B, T], or fewer, -> float32 [B, D], L2-normalised; pooled where transformers pools."""

    def __init__(self, model: Model, length: int) -> None:
        """Args: model: shares its modules, and may be a text tower by itself; a CLIP's eos_token_id, where it
        is 2, pools at the highest id. length: T."""
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.length = length
        self.eos_id = cast(int, text_section(model.config).eos_token_id)
        self.pools_highest = pools_highest(model.config)
        self.mask: torch.Tensor
        self.positions: torch.Tensor
        later = torch.ones(length, length).triu(1)
        self.register_buffer("mask", (later * MASKED)[None, None], persistent=False)  # [1, 1, T, T]
        self.register_buffer("positions", torch.arange(length, dtype=torch.int32), persistent=False)

    def pooled_position(self, ids: torch.Tensor) -> torch.Tensor:
        """One-hot float32 [B, T] of the position that is pooled: the first eos, or the first highest id."""
        wanted = ids.amax(-1, keepdim=True) if self.pools_highest else self.eos_id
        return pooled_position(ids, wanted, self.positions, self.length)

    def read_lengths(self, ids: torch.Tensor) -> torch.Tensor:
        """Up to the position that is pooled: it attends to none after it."""
        return 1 + self.pooled_position(ids).argmax(-1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        embeddings, length = self.text_model.embeddings, ids.shape[1]
        hidden = embeddings.token_embedding(ids) + embeddings.position_embedding.weight[:length]
        mask = self.mask if length == self.length else self.mask[:, :, :length, :length]
        chosen, early = self.pooled_position(ids), False
        for layer in self.text_model.encoder.layers:
            early = isinstance(layer, PooledLayer)
            hidden = layer(hidden, mask, chosen) if early else layer(hidden, mask)
        pooled = hidden[:, 0] if early else (chosen[:, :, None] * hidden).sum(1)  # [B, width]
        # LayerNorm works on each position alone, so that it may come after pooling
        return l2_normalize(self.text_projection(self.text_model.final_layer_norm(pooled)))

    def pool_early_(self) -> None:
        pool_last_layer_(self.text_model.encoder.layers, None)


class ClipArchitecture(Architecture):
    """CLIPModel and MetaClip2Model."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, vision = _sections(config)
        preprocess, notes = read_preprocess(folder, cast(int, vision.image_size), CLIP_PROCESSOR)
        tokenizer = read_tokenizer(folder, follows_transformers=config.model_type == _METACLIP_2)
        notes += check_tokenizer(folder, tokenizer, config)
        length = text_length(tokenizer, int(text.max_position_embeddings), folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        return Contract(
            family="clip",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(preprocess, spec, cast(int, config.projection_dim)),
            head=contrastive_head(),
            identity={
                "towers": [
                    [tower.num_attention_heads, tower.hidden_act, tower.layer_norm_eps]
                    for tower in (text, vision)
                ],
                "eos": text.eos_token_id,
            },
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> Config:
        from transformers import CLIPConfig, MetaClip2Config

        path = folder / "config.json"
        kind: type[Config] = MetaClip2Config if stored.get("model_type") == _METACLIP_2 else CLIPConfig
        config = parse_config(kind, stored, path, "CLIP")
        text, vision = _sections(config)
        sizes = {
            "vision_config.image_size": vision.image_size,
            "vision_config.patch_size": vision.patch_size,
            "text_config.eos_token_id": text.eos_token_id,
            "projection_dim": config.projection_dim,
        }
        check_sizes(sizes, path)
        check_channels(vision.num_channels, "vision_config.num_channels", path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import CLIPModel, MetaClip2Model

        kind: type[Model] = MetaClip2Model if config.model_type == _METACLIP_2 else CLIPModel
        # eager: plain MatMul and Softmax, which both engines fuse themselves
        return build_from(kind, config, folder, "CLIP", initialised=initialised, attention="eager")

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        clip = cast("Model", model)
        return two_encoders(
            contract,
            ClipImageEncoder(clip, contract.preprocess),
            ClipTextEncoder(clip, contract.tokenizer.max_length),
            _stack("vision", clip.visual_projection.in_features),
            _stack("text", clip.text_projection.in_features),
        )

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        reshape_sections_(config, shapes)


ARCHITECTURE = ClipArchitecture()


def _sections(config: Config) -> tuple[CLIPTextConfig, CLIPVisionConfig]:
    return cast("CLIPTextConfig", config.text_config), cast("CLIPVisionConfig", config.vision_config)


def _stack(tower: str, width: int) -> LayerStack:
    return LayerStack(f"{tower}_model.encoder.layers", (f"{tower}_config", "num_hidden_layers"), width)


def text_section(config: Config | CLIPTextConfig) -> CLIPTextConfig:
    """What a configuration says of its text encoder, which may be all that it says."""
    return cast("CLIPTextConfig", getattr(config, "text_config", config))


def pools_highest(config: Config | CLIPTextConfig) -> bool:
    """Whether a text is pooled at its highest id."""
    return config.model_type != _METACLIP_2 and text_section(config).eos_token_id == _LEGACY_EOS


def check_tokenizer(
    folder: Path, tokenizer: TokenizerFile, config: Config | CLIPTextConfig
) -> tuple[str, ...]:
    """Compare a tokenizer with the text encoder of a configuration; gives notes.

    Raises:
        SourceError: the two do not fit.
    """
    text = text_section(config)
    if tokenizer.pad_side is not Side.RIGHT:
        raise SourceError(
            f"{folder}: tokenizer_config.json fills texts up at the left; only right is supported"
        )
    check_vocabulary(tokenizer, text.vocab_size, folder)
    eos = text.eos_token_id
    if not pools_highest(config):
        if tokenizer.eos_id != eos:
            raise SourceError(
                f"{folder}: texts end with id {tokenizer.eos_id}, config.json pools at eos_token_id "
                f"{quoted(eos)}; correct {'' if config is text else 'text_config.'}eos_token_id"
            )
        return ()
    if tokenizer.eos_id != tokenizer.highest_id:
        return (
            f"config.json says eos_token_id {_LEGACY_EOS}, so text is pooled at the highest id, which is not "
            f"always the end of the text (id {tokenizer.eos_id})",
        )
    return ()
