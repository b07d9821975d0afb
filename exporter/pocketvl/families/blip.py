"""BLIP's retrieval model: two encoders with one embedding space, and a fusion of image and text that reranks.

Both halves of `BlipForImageTextRetrieval`. The matching half is the text encoder with its cross-attention,
which reads the image encoder's hidden states: the two share the text's other layers. Where a compression has
dropped the fusion, its own weights stay among the others and are not run.

Source: Li et al., 2022, "BLIP: Bootstrapping Language-Image Pre-training for Unified Vision-Language
Understanding and Generation", arXiv 2201.12086; weights and configuration as transformers'
`BlipForImageTextRetrieval` stores them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.utils import skip_init

from pocketvl.errors import SourceError
from pocketvl.families.base import IMAGE, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import dropped_components, read_json
from pocketvl.families.folders.image_processor import BLIP_PROCESSOR, read_preprocess
from pocketvl.families.folders.models import build_from, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_padding, check_vocabulary, masked_length, read_tokenizer
from pocketvl.families.layers.bert import embed_tokens, padding_mask, pool_last_bert_layer_
from pocketvl.families.layers.plain import NormalizePixels, l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition, pool_last_layer_
from pocketvl.families.layers.prefix import MasksPadding
from pocketvl.families.ports import (
    HIDDEN,
    IMAGE_ENCODER,
    contrastive_head,
    embedding_ports,
    hidden_port,
    ids_port,
    reshape_sections_,
    two_encoders,
)
from pocketvl.network.heads import FixedScalar, MatchHead
from pocketvl.network.ports import ComponentPorts, DType, Port, PortKind
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import ImageProcessor, Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipTextConfig,
        BlipVisionConfig,
        PreTrainedConfig,
        PreTrainedModel,
    )

    from pocketvl.families.component_shape import ComponentShape

FUSION = "fusion"
_FITS = 1
"""Of the fusion's two logits the one that says that image and text fit, as in the model's own code."""
_RETRIEVAL = "BlipForImageTextRetrieval"
_TRAINED_LENGTH = 35
"""Tokens of the texts that the published retrieval models were trained on (their code's setting)."""
_LARGEST_LOG_SCALE = 20.0
_STORED_QKV = re.compile(r"(vision_model\.encoder\.layers\.\d+\.self_attn)\.qkv\.(weight|bias)")
_OUR_QKV = re.compile(r"(vision_model\.encoder\.layers\.\d+\.self_attn)\.q_proj\.(weight|bias)")
_STORED_OUTPUT, _OUR_OUTPUT = ".self_attn.projection.", ".self_attn.out_proj."


class BlipAttention(nn.Module):
    """A vision layer's self-attention, with linears of its own for queries, keys and values.

    Those are what calibration, quantization and compression look for; in a folder the three are one tensor.
    """

    def __init__(self, owner: nn.Module) -> None:
        """Args: owner: in whose place it comes; its weights are not read."""
        super().__init__()
        self.num_heads, self.head_dim = cast(int, owner.num_heads), cast(int, owner.head_dim)
        self.scale = cast(float, owner.scale)
        self.dropout = cast(nn.Dropout, owner.dropout)
        width, device = cast(int, owner.embed_dim), cast(nn.Linear, owner.projection).weight.device
        self.q_proj, self.k_proj, self.v_proj, self.out_proj = (
            cast(nn.Linear, skip_init(nn.Linear, width, width, device=device))  # type: ignore[no-untyped-call]
            for _ in range(4)
        )

    def forward(self, hidden_states: torch.Tensor, **_: object) -> tuple[torch.Tensor, torch.Tensor]:
        """Attend.

        Args:
            hidden_states: float [B, T, width].

        Returns:
            float [B, T, width] and the attention map [B, heads, T, T].
        """
        queries, keys, values = (
            linear(hidden_states).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )  # [B, heads, T, head size]
        shares = (queries @ keys.transpose(-1, -2) * self.scale).softmax(-1)
        found = self.dropout(shares) @ values
        return self.out_proj(found.transpose(1, 2).flatten(2)), shares


class BlipImageEncoder(nn.Module, PoolsOnePosition):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised, and hidden states [B, 1 + patches, width]."""

    def __init__(
        self, model: BlipForImageTextRetrieval, preprocess: ImageProcessor, gives_hidden: bool
    ) -> None:
        """Args: model: shares its modules. preprocess: whose rescale, mean and std are applied.
        gives_hidden: whether a fusion reads hidden states; else they are no output."""
        super().__init__()
        self.gives_hidden = gives_hidden
        self.vision_model, self.vision_proj = model.vision_model, model.vision_proj
        self.normalize: nn.Module = NormalizePixels(preprocess)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Embed a batch of images."""
        embeddings = self.vision_model.embeddings
        patches = embeddings.patch_embedding(self.normalize(pixels)).flatten(2).transpose(1, 2)
        first = embeddings.class_embedding.expand(len(pixels), -1, -1)
        hidden = torch.cat([first, patches], dim=1) + embeddings.position_embedding  # [B, 1 + patches, width]
        hidden = self.vision_model.encoder(inputs_embeds=hidden).last_hidden_state
        if not self.gives_hidden:
            return l2_normalize(self.vision_proj(self.vision_model.post_layernorm(hidden[:, 0])))
        hidden = self.vision_model.post_layernorm(hidden)
        return l2_normalize(self.vision_proj(hidden[:, 0])), hidden

    def pool_early_(self) -> None:
        if not self.gives_hidden:
            pool_last_layer_(self.vision_model.encoder.layers, 0)


class _TextLayer(nn.Module):
    """A layer of the text encoder, with or without its cross-attention; it shares its modules and names."""

    def __init__(self, owner: nn.Module, reads_images: bool) -> None:
        super().__init__()
        self.attention, self.intermediate, self.output = (
            owner.get_submodule(name) for name in ("attention", "intermediate", "output")
        )
        if reads_images:
            self.crossattention = owner.get_submodule("crossattention")

    def forward(
        self, hidden: torch.Tensor, mask: torch.Tensor, seen: torch.Tensor | None = None
    ) -> torch.Tensor:
        attended = self.attention(hidden, mask)[0]
        if seen is not None:
            attended = self.crossattention(attended, encoder_hidden_states=seen)[0]
        found: torch.Tensor = self.output(self.intermediate(attended), attended)
        return found


def _text_layers(model: BlipForImageTextRetrieval, reads_images: bool) -> nn.Module:
    """The text encoder's tables and layers, under their names."""
    encoder, found = nn.Module(), nn.Module()
    encoder.layer = nn.ModuleList(_TextLayer(each, reads_images) for each in model.text_encoder.encoder.layer)
    found.embeddings, found.encoder = model.text_encoder.embeddings, encoder
    return found


class BlipTextEncoder(nn.Module, PoolsOnePosition, MasksPadding):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is not attended to, the first token pooled."""

    def __init__(self, model: BlipForImageTextRetrieval, pad_id: int) -> None:
        """Args: model: shares its modules but for cross-attentions. pad_id: the padding token."""
        super().__init__()
        self.text_encoder = _text_layers(model, reads_images=False)
        self.text_proj = model.text_proj
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        hidden = embed_tokens(cast(nn.Module, self.text_encoder.embeddings), ids)
        mask = padding_mask(ids, self.pad_id)
        for layer in cast(nn.ModuleList, self.text_encoder.get_submodule("encoder.layer")):
            hidden = layer(hidden, mask)
        return l2_normalize(self.text_proj(hidden[:, 0]))

    def pool_early_(self) -> None:
        pool_last_bert_layer_(cast(nn.ModuleList, self.text_encoder.get_submodule("encoder.layer")))


class BlipFusion(nn.Module, PoolsOnePosition, MasksPadding):
    """Hidden states float [B, 1 + patches, width] and int ids [B, T] -> logits float32 [B, 2]: not, fits.

    Each token attends to the other tokens, but for padding, and to all of the image; the first is pooled.
    """

    def __init__(self, model: BlipForImageTextRetrieval, pad_id: int) -> None:
        """Args: model: shares its modules. pad_id: the padding token."""
        super().__init__()
        self.text_encoder = _text_layers(model, reads_images=True)
        self.itm_head = model.itm_head
        self.pad_id = pad_id

    def forward(self, seen: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        """Match a batch of texts, each with its own image."""
        hidden = embed_tokens(cast(nn.Module, self.text_encoder.embeddings), ids)
        mask = padding_mask(ids, self.pad_id)
        for layer in cast(nn.ModuleList, self.text_encoder.get_submodule("encoder.layer")):
            hidden = layer(hidden, mask, seen)
        logits: torch.Tensor = self.itm_head(hidden[:, 0])
        return logits if logits.dtype == torch.float32 else logits.float()

    def pool_early_(self) -> None:
        pool_last_bert_layer_(cast(nn.ModuleList, self.text_encoder.get_submodule("encoder.layer")))


class BlipArchitecture(Architecture):
    """BlipForImageTextRetrieval."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, vision = _sections(config)
        preprocess, notes = read_preprocess(folder, cast(int, vision.image_size), BLIP_PROCESSOR)
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, text.vocab_size, folder)
        check_padding(tokenizer, folder)
        length, cut = masked_length(tokenizer, text.max_position_embeddings, _TRAINED_LENGTH, folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        scale = (
            f"the weights hold no temperature: cosines are multiplied by "
            f"{math.exp(config.logit_scale_init_value):.2f}, from config.json's logit_scale_init_value",
        )
        components = dict(embedding_ports(preprocess, spec, config.image_text_hidden_size))
        is_whole = FUSION not in dropped_components(folder)
        if is_whole:
            components = _with_fusion(components, spec, vision)
        return Contract(
            family="blip",
            name=folder.resolve().name,
            folder=folder,
            processors={IMAGE: preprocess, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=components,
            head=contrastive_head(scale=FixedScalar(math.exp(config.logit_scale_init_value))),
            reranker=MatchHead(f"{FUSION}.logits", f"{IMAGE_ENCODER}.{HIDDEN}", _FITS) if is_whole else None,
            identity={
                "text": [text.num_attention_heads, text.hidden_act, text.layer_norm_eps],
                "vision": [vision.num_attention_heads, vision.hidden_act, vision.layer_norm_eps],
            },
            notes=notes + cut + scale,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> BlipConfig:
        from transformers import BlipConfig

        path = folder / CONFIG_FILE
        kinds = stored.get("architectures")
        if kinds is not None and kinds != [_RETRIEVAL]:
            raise SourceError(
                f"{path}: architectures is {quoted(kinds)}; of BLIP's, only {_RETRIEVAL} is known"
            )
        config = parse_config(BlipConfig, stored, path, "BLIP")
        text, vision = _sections(config)
        sizes = {
            "vision_config.image_size": vision.image_size,
            "vision_config.patch_size": vision.patch_size,
            "image_text_hidden_size": config.image_text_hidden_size,
        }
        check_sizes(sizes, path)
        if not text.is_decoder:
            raise SourceError(f"{path}: text_config.is_decoder is false; {_RETRIEVAL} has cross-attentions")
        if not abs(config.logit_scale_init_value) < _LARGEST_LOG_SCALE:
            raise SourceError(
                f"{path}: logit_scale_init_value is {quoted(config.logit_scale_init_value)}, which is not "
                "the logarithm of a temperature"
            )
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import BlipForImageTextRetrieval

        model = build_from(BlipForImageTextRetrieval, config, folder, "BLIP", initialised=initialised)
        for layer in model.vision_model.encoder.layers:
            owner = cast(nn.Module, layer.self_attn)
            split = BlipAttention(owner)
            if initialised:
                _fill_(split, owner)
            layer.self_attn = split
        return model

    def unpack_(self, weights: dict[str, torch.Tensor], config: PreTrainedConfig) -> None:
        """Split queries, keys and values of the vision layers, and name their outputs as others do."""
        for name in sorted(weights):
            found = _STORED_QKV.fullmatch(name)
            if found is not None and weights[name].ndim and len(weights[name]) % 3 == 0:
                owner, kind = found.groups()
                for letter, part in zip("qkv", weights.pop(name).chunk(3), strict=False):
                    weights[f"{owner}.{letter}_proj.{kind}"] = part
            elif name.startswith("vision_model.") and _STORED_OUTPUT in name:
                weights[name.replace(_STORED_OUTPUT, _OUR_OUTPUT)] = weights.pop(name)

    def pack_(self, weights: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
        for name in sorted(weights):
            found = _OUR_QKV.fullmatch(name)  # of a lower rank they are called otherwise, and stay apart
            if found is not None:
                owner, kind = found.groups()
                parts = [f"{owner}.{letter}_proj.{kind}" for letter in "qkv"]
                if all(part in weights for part in parts):
                    weights[f"{owner}.qkv.{kind}"] = torch.cat([weights.pop(part) for part in parts])
            elif name.startswith("vision_model.") and _OUR_OUTPUT in name:
                weights[name.replace(_OUR_OUTPUT, _STORED_OUTPUT)] = weights.pop(name)

    def reshape_config_(self, config: dict[str, Any], shapes: Mapping[str, ComponentShape]) -> None:
        reshape_sections_(config, shapes)

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        blip = cast("BlipForImageTextRetrieval", model)
        layers, widths = "num_hidden_layers", (blip.vision_proj.in_features, blip.text_proj.in_features)
        seen = LayerStack("vision_model.encoder.layers", ("vision_config", layers), widths[0])
        read = LayerStack("text_encoder.encoder.layer", ("text_config", layers), widths[1])
        pad_id, reranker = contract.tokenizer.pad_id, contract.reranker
        image = BlipImageEncoder(blip, contract.preprocess, gives_hidden=reranker is not None)
        encoders = two_encoders(contract, image, BlipTextEncoder(blip, pad_id), seen, read)
        if reranker is None:
            return encoders
        ports = contract.components[FUSION]
        fusion = Component(FUSION, BlipFusion(blip, pad_id), ports.inputs, ports.outputs, (read,))
        return (*encoders, fusion)


ARCHITECTURE = BlipArchitecture()


def _with_fusion(
    encoders: Mapping[str, ComponentPorts], spec: TextProcessor, vision: BlipVisionConfig
) -> dict[str, ComponentPorts]:
    """The ports of the encoders, of which the first gives hidden states, and of what reads them."""
    positions = 1 + (cast(int, vision.image_size) // cast(int, vision.patch_size)) ** 2
    width = vision.hidden_size
    image = encoders[IMAGE_ENCODER]
    read = (hidden_port(positions, width, f"{IMAGE_ENCODER}.{HIDDEN}"), ids_port(spec))
    logits = Port("logits", DType.FLOAT32, (1, 2), PortKind.CLASS_LOGITS)
    return {
        **encoders,
        IMAGE_ENCODER: ComponentPorts(image.inputs, (*image.outputs, hidden_port(positions, width))),
        FUSION: ComponentPorts(read, (logits,)),
    }


def _sections(config: BlipConfig) -> tuple[BlipTextConfig, BlipVisionConfig]:
    return cast("BlipTextConfig", config.text_config), cast("BlipVisionConfig", config.vision_config)


def _fill_(split: BlipAttention, owner: nn.Module) -> None:
    """Copy the weights of the attention that it comes in place of."""
    qkv, output = cast(nn.Linear, owner.qkv), cast(nn.Linear, owner.projection)
    linears = (split.q_proj, split.k_proj, split.v_proj, split.out_proj)
    weights = (*qkv.weight.chunk(3), output.weight)
    biases = (*qkv.bias.chunk(3), output.bias)
    with torch.no_grad():
        for linear, weight, bias in zip(linears, weights, biases, strict=True):
            linear.weight.copy_(weight)
            linear.bias.copy_(bias)
