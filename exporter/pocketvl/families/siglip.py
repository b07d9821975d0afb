"""SigLIP and SigLIP 2: an image and a text encoder with one embedding space, compared by a sigmoid.

SigLIP 2's checkpoints of one resolution are SigLIP models (`model_type` "siglip"). Those of native aspect
ratio ("siglip2", NaFlex) are opened at one grid of patches, the largest square of the image processor's
`max_num_patches`: their position table is resized to it when the weights are read, as transformers does for
each picture.

Source: Zhai et al., 2023, "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343; Tschannen et
al., 2025, "SigLIP 2", arXiv 2502.14786; weights and configuration as transformers' `SiglipModel` and
`Siglip2Model` store them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import skip_init

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.image_processor import (
    NAFLEX_PROCESSOR,
    SIGLIP_PROCESSOR,
    naflex_grid,
    read_preprocess,
)
from pocketvl.families.folders.models import build_from, check_channels, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_vocabulary, read_tokenizer, text_length
from pocketvl.families.layers.plain import NormalizePixels, l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition, pool_last_layer_
from pocketvl.families.ports import (
    IMAGE_ENCODER,
    TEXT_ENCODER,
    contrastive_head,
    embedding_ports,
    two_encoders,
)
from pocketvl.network.heads import StoredScalar
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import Activation, ImageProcessor, Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        PreTrainedConfig,
        PreTrainedModel,
        Siglip2Config,
        Siglip2Model,
        SiglipConfig,
        SiglipModel,
        SiglipTextConfig,
        SiglipVisionConfig,
    )

    from pocketvl.families.component_shape import ComponentShape

    Config: TypeAlias = SiglipConfig | Siglip2Config
    Model: TypeAlias = SiglipModel | Siglip2Model

_POOLING = "vision_model.head.attention"
_PATCHES = "vision_model.embeddings.patch_embedding.weight"
_POSITIONS = "vision_model.embeddings.position_embedding.weight"


class PoolingAttention(nn.Module):
    """`nn.MultiheadAttention` of the pooling head, with linears of its own for queries, keys and values.

    Those are what calibration, quantization and compression look for; in a folder the three are one tensor.
    """

    def __init__(self, owner: nn.MultiheadAttention) -> None:
        """Args: owner: in whose place it comes."""
        super().__init__()
        self.num_heads, self.head_dim = owner.num_heads, owner.head_dim
        self.out_proj = _linear(owner.out_proj.weight, owner.out_proj.bias)
        weights, biases = owner.in_proj_weight.chunk(3), owner.in_proj_bias.chunk(3)
        self.q_proj, self.k_proj, self.v_proj = map(_linear, weights, biases)

    def forward(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            query: float [B, Q, width].
            key: float [B, T, width].
            value: float [B, T, width].
            attn_mask: there is none.

        Returns:
            float [B, Q, width] and the attention map [B, heads, Q, T].
        """
        queries, keys, values = (
            linear(given).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear, given in ((self.q_proj, query), (self.k_proj, key), (self.v_proj, value))
        )  # [B, heads, Q or T, head size]
        shares = (queries @ keys.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)
        return self.out_proj((shares @ values).transpose(1, 2).flatten(2)), shares


class SiglipImageEncoder(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: Model, preprocess: ImageProcessor) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        self.vision_model = model.vision_model
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        embeddings = self.vision_model.embeddings
        patches = embeddings.patch_embedding(self.normalize(pixels)).flatten(2).transpose(1, 2)
        hidden = patches + embeddings.position_embedding.weight  # [B, patches, width]
        hidden = self.vision_model.encoder(inputs_embeds=hidden).last_hidden_state
        return l2_normalize(self.vision_model.head(self.vision_model.post_layernorm(hidden)))


class SiglipTextEncoder(nn.Module, PoolsOnePosition):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is attended to, and the last token pooled."""

    def __init__(self, model: Model) -> None:
        """Args: model: shares its modules."""
        super().__init__()
        self.text_model = model.text_model

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        embeddings = self.text_model.embeddings
        hidden = embeddings.token_embedding(ids) + embeddings.position_embedding.weight[: ids.shape[1]]
        hidden = self.text_model.encoder(inputs_embeds=hidden).last_hidden_state
        return l2_normalize(self.text_model.head(self.text_model.final_layer_norm(hidden[:, -1])))

    def pool_early_(self) -> None:
        pool_last_layer_(self.text_model.encoder.layers, -1)


class SiglipArchitecture(Architecture):
    """SiglipModel, and Siglip2Model at one grid."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, vision = _sections(config)
        known = NAFLEX_PROCESSOR if config.model_type == "siglip2" else SIGLIP_PROCESSOR
        preprocess, notes = read_preprocess(folder, _image_size(config), known)
        tokenizer = read_tokenizer(folder, follows_transformers=True)
        check_vocabulary(tokenizer, text.vocab_size, folder)
        length = text_length(tokenizer, int(text.max_position_embeddings), folder)
        padding = Padding(tokenizer.pad_id, tokenizer.pad_side)
        spec = TextProcessor(length, padding, canonicalize=tokenizer.canonicalize)
        return Contract(
            family="siglip",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(preprocess, spec, vision.hidden_size),
            head=contrastive_head(StoredScalar("logit_bias"), Activation.SIGMOID),
            identity={
                "encoders": [
                    [each.num_attention_heads, each.hidden_act, each.layer_norm_eps]
                    for each in (text, vision)
                ],
            },
            notes=notes,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> Config:
        from transformers import Siglip2Config, SiglipConfig

        path = folder / "config.json"
        kind: type[Config] = Siglip2Config if stored.get("model_type") == "siglip2" else SiglipConfig
        config = parse_config(kind, stored, path, "SigLIP")
        text, vision = _sections(config)
        sizes: dict[str, object] = {"vision_config.patch_size": vision.patch_size}
        if kind is Siglip2Config:
            side = naflex_grid(folder)
            cast(Any, vision).num_patches = side * side
        else:
            sizes["vision_config.image_size"] = vision.image_size
        check_sizes(sizes, path)
        check_channels(vision.num_channels, "vision_config.num_channels", path)
        if not vision.vision_use_head:
            raise SourceError(
                f"{path}: vision_config.vision_use_head is false; without it nothing is embedded"
            )
        if text.projection_size != vision.hidden_size:
            raise SourceError(
                f"{path}: texts are embedded in {quoted(text.projection_size)} numbers, pictures in "
                f"{quoted(vision.hidden_size)}"
            )
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import Siglip2Model, SiglipModel

        kind: type[Model] = Siglip2Model if config.model_type == "siglip2" else SiglipModel
        # eager: plain MatMul and Softmax, which both engines fuse themselves
        model = build_from(kind, config, folder, "SigLIP", initialised=initialised, attention="eager")
        adapt_vision_(model.vision_model)
        return model

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        """Split the pooling head's queries, keys and values; patches and positions are for one grid."""
        unpack_pooling_(weights)
        if config.model_type != "siglip2":
            return
        vision, patches, table = (
            cast(Any, config).vision_config,
            weights.get(_PATCHES),
            weights.get(_POSITIONS),
        )
        if patches is not None and patches.numel() == len(patches) * 3 * vision.patch_size**2:
            weights[_PATCHES] = _by_channel(patches, vision.patch_size)
        if table is not None and table.ndim == 2:
            weights[_POSITIONS] = _resized(table, math.isqrt(vision.num_patches))

    def pack_(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        pack_pooling_(weights)
        if config.get("model_type") == "siglip2":
            weights[_PATCHES] = weights[_PATCHES].permute(0, 2, 3, 1).flatten(1).contiguous()
            config.setdefault("vision_config", {})["num_patches"] = len(weights[_POSITIONS])

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        sections = {IMAGE_ENCODER: "vision_config", TEXT_ENCODER: "text_config"}
        for name, shape in shapes.items():
            config.setdefault(sections[name], {}).update(shape.section())
        if IMAGE_ENCODER in shapes:  # an image's embedding is as long as its hidden states are wide
            config.setdefault("text_config", {})["projection_size"] = shapes[IMAGE_ENCODER].width

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        siglip = cast("Model", model)
        return two_encoders(
            contract,
            SiglipImageEncoder(siglip, contract.preprocess),
            SiglipTextEncoder(siglip),
            _stack("vision", siglip.vision_model.config.hidden_size),
            _stack("text", siglip.text_model.config.hidden_size),
        )


ARCHITECTURE = SiglipArchitecture()


def adapt_vision_(vision: nn.Module) -> None:
    """Replace, in place, what of transformers' vision model no component has: see `PoolingAttention`."""
    model = cast(Any, vision)
    model.head.attention = PoolingAttention(model.head.attention)
    patches = model.embeddings.patch_embedding
    if isinstance(patches, nn.Linear):
        patches = model.embeddings.patch_embedding = _convolution(patches, model.embeddings.patch_size)
    patches.padding = (0, 0)  # what "valid" says, in the numbers that folding knows


def unpack_pooling_(weights: dict[str, torch.Tensor]) -> None:
    """Split the pooling head's queries, keys and values, in place."""
    for kind in ("weight", "bias"):
        whole = weights.pop(f"{_POOLING}.in_proj_{kind}", None)
        for name, part in zip("qkv", () if whole is None else whole.chunk(3), strict=False):
            weights[f"{_POOLING}.{name}_proj.{kind}"] = part


def pack_pooling_(weights: dict[str, torch.Tensor]) -> None:
    """Join them again, in place."""
    for kind in ("weight", "bias"):
        names = [f"{_POOLING}.{name}_proj.{kind}" for name in "qkv"]
        if all(name in weights for name in names):  # else they are of a lower rank
            weights[f"{_POOLING}.in_proj_{kind}"] = torch.cat([weights.pop(name) for name in names])


def _sections(config: Config) -> tuple[SiglipTextConfig, SiglipVisionConfig]:
    return cast("SiglipTextConfig", config.text_config), cast("SiglipVisionConfig", config.vision_config)


def _image_size(config: Config) -> int:
    """The side of the pictures, in pixels."""
    vision = cast(Any, config.vision_config)
    if config.model_type == "siglip2":
        return math.isqrt(vision.num_patches) * int(vision.patch_size)
    return int(vision.image_size)


def _stack(section: str, width: int) -> LayerStack:
    return LayerStack(f"{section}_model.encoder.layers", (f"{section}_config", "num_hidden_layers"), width)


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    """A linear with copies of these."""
    made: nn.Linear = skip_init(nn.Linear, weight.shape[1], len(weight), device=weight.device)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        made.weight.copy_(weight)
        made.bias.copy_(bias)
    return made


def _convolution(linear: nn.Linear, side: int) -> nn.Conv2d:
    """A linear of patches' pixels (rows, columns, channels) as a convolution of the picture."""
    made: nn.Conv2d = skip_init(nn.Conv2d, 3, len(linear.weight), side, side, device=linear.weight.device)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        made.weight.copy_(_by_channel(linear.weight, side))
        cast(torch.Tensor, made.bias).copy_(linear.bias)
    return made


def _by_channel(weight: torch.Tensor, side: int) -> torch.Tensor:
    """[width, side * side * 3] -> [width, 3, side, side]."""
    return weight.view(len(weight), side, side, 3).permute(0, 3, 1, 2)


def _resized(table: torch.Tensor, side: int) -> torch.Tensor:
    """Positions of a square grid [n * n, width] -> [side * side, width], as transformers resizes them."""
    before = math.isqrt(len(table))
    if before == side or before * before != len(table):
        return table
    squares = table.float().view(before, before, -1).permute(2, 0, 1)[None]  # [1, width, n, n]
    found = F.interpolate(squares, size=(side, side), mode="bilinear", align_corners=False, antialias=True)
    return found[0].flatten(1).T.to(table.dtype).contiguous()
