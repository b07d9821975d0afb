"""VisionTextDualEncoder: two towers of other models, and a projection of each into one embedding space.

The image tower is a ConvNeXt (Liu et al., 2022, "A ConvNet for the 2020s", arXiv 2201.03545), the text tower
a BERT (Devlin et al., 2019, arXiv 1810.04805); weights and configuration as transformers'
`VisionTextDualEncoderModel` stores them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import Source
from pocketvl.families.checkpoint import TokenizerFile, read_json, read_tokenizer
from pocketvl.families.clip import logit_scale_of, normalize, of_raw_pixels, space_of
from pocketvl.families.clip_preprocess import read_preprocess
from pocketvl.families.compression import read_compression
from pocketvl.families.opening import (
    MASKED,
    build_from,
    check_sizes,
    check_vocabulary,
    open_model,
    parse_config,
    text_length,
)
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import ImageProcessor, Padding, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        BertConfig,
        BertModel,
        ConvNextConfig,
        ConvNextModel,
        VisionTextDualEncoderConfig,
        VisionTextDualEncoderModel,
    )
    from transformers.models.bert.modeling_bert import BertEmbeddings
    from transformers.models.convnext.modeling_convnext import ConvNextLayer, ConvNextStage

_TOWERS = (("vision_config", "convnext"), ("text_config", "bert"))
_FAMILY = "VisionTextDualEncoder"


class ConvNextImageEncoder(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised; rescales and normalises inside.

    Rescaling and normalisation are folded into the patch embedding, and what a layer scales its outputs by
    into the linear that gives them; so both engines get the same weights.
    """

    def __init__(self, model: VisionTextDualEncoderModel, preprocess: ImageProcessor) -> None:
        """Builds it.

        Args:
            model: shares its other parameters; its layer scales are folded in place.
            preprocess: whose rescale, mean and std are applied.
        """
        super().__init__()
        vision = cast("ConvNextModel", model.vision_model)
        self.patch_embedding = of_raw_pixels(vision.embeddings.patch_embeddings, preprocess)
        self.patch_layernorm: nn.Module = vision.embeddings.layernorm
        self.stages = vision.encoder.stages
        self.layernorm: nn.Module = vision.layernorm
        self.projection: nn.Module = model.visual_projection
        for stage in self.stages:
            for layer in cast("ConvNextStage", stage).layers:
                _fold_layer_scale_(cast("ConvNextLayer", layer))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of pictures."""
        values = pixels.to(torch.float32).permute(0, 3, 1, 2)  # [B, 3, H, W]
        hidden = self.patch_layernorm(self.patch_embedding(values))
        for stage in self.stages:
            hidden = stage(hidden)
        return normalize(self.projection(self.layernorm(hidden.mean((-2, -1)))))


def _fold_layer_scale_(layer: ConvNextLayer) -> None:
    scale = layer.layer_scale_parameter
    if scale is not None:
        with torch.no_grad():
            layer.pwconv2.weight.mul_(scale[:, None])
            layer.pwconv2.bias.mul_(scale)
        layer.layer_scale_parameter = None


class BertTextEncoder(nn.Module):
    """int32 ids [B, T] -> float32 [B, D], L2-normalised; padding is not looked at."""

    def __init__(self, model: VisionTextDualEncoderModel, length: int, pad_id: int) -> None:
        """Args: model: shares its parameters. length: T. pad_id: the id that fills up short texts."""
        super().__init__()
        text = cast("BertModel", model.text_model)
        self.embeddings: BertEmbeddings = text.embeddings
        self.layers = text.encoder.layer
        self.pooler = cast(nn.Module, text.pooler)
        self.projection: nn.Module = model.text_projection
        self.length = length
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of texts."""
        tables = self.embeddings
        hidden = tables.word_embeddings(ids) + tables.token_type_embeddings.weight[0]
        hidden = tables.LayerNorm(hidden + tables.position_embeddings.weight[: self.length])
        mask = (ids == self.pad_id).to(torch.float32)[:, None, None, :] * MASKED  # [B, 1, 1, T]
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return normalize(self.projection(self.pooler(hidden)))


@dataclass(frozen=True)
class _Config:
    """A checked config.json: the whole, and its two towers."""

    whole: VisionTextDualEncoderConfig
    text: BertConfig
    vision: ConvNextConfig


def load(folder: Path) -> Source:
    """Opens a VisionTextDualEncoderModel folder with a ConvNeXt and a BERT in it.

    Args:
        folder: a Hugging Face model folder of model_type "vision-text-dual-encoder".

    Returns:
        The opened model.

    Raises:
        SourceError: something in the folder is missing, broken, does not fit the rest, or the towers are of
            other kinds.
    """
    config = _read_config(folder)
    preprocess, notes = read_preprocess(folder, cast(int, config.vision.image_size))
    tokenizer = read_tokenizer(folder)
    _check_tokenizer(folder, tokenizer, config)
    model = _open_model(config, folder).requires_grad_(False)
    length = text_length(tokenizer, int(config.text.max_position_embeddings), folder)
    spec = TextProcessor(length, Padding(tokenizer.pad_id))
    space = space_of(model, _contract(config), preprocess, spec, tokenizer.content)
    return Source(
        family="vision-text-dual-encoder",
        name=folder.resolve().name,
        folder=folder,
        preprocess=preprocess,
        tokenizer=spec,
        tokenizer_json=tokenizer.content,
        embedding_dim=config.whole.projection_dim,
        logit_scale=logit_scale_of(model.logit_scale, folder),
        space=space,
        image_encoder=ConvNextImageEncoder(model, preprocess).eval(),
        text_encoder=BertTextEncoder(model, length, tokenizer.pad_id).eval(),
        notes=notes,
    )


def load_model(folder: Path) -> VisionTextDualEncoderModel:
    """Opens transformers' own model, as it is compressed and trained: fp32, eager attention, in eval mode.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    return _open_model(_read_config(folder), folder)


def build_model(stored: dict[str, Any], folder: Path) -> VisionTextDualEncoderModel:
    """A model as a config.json describes it, with weights that mean nothing.

    Args:
        stored: its content.
        folder: for messages.

    Raises:
        SourceError: there is no such model.
    """
    return _build(_check_config(stored, folder), folder)


def _open_model(config: _Config, folder: Path) -> VisionTextDualEncoderModel:
    return open_model(lambda: _build(config, folder), config.whole, read_compression(folder), folder)


def _read_config(folder: Path) -> _Config:
    return _check_config(read_json(folder / "config.json"), folder)


def _check_config(stored: dict[str, Any], folder: Path) -> _Config:
    from transformers import VisionTextDualEncoderConfig

    path = folder / "config.json"
    for section, known in _TOWERS:
        part = stored.get(section)
        kind = part.get("model_type") if isinstance(part, dict) else None
        if kind != known:
            raise SourceError(
                f"{path}: {section}.model_type is {quoted(kind)}; of these towers only {known!r} is known"
            )
    config = parse_config(VisionTextDualEncoderConfig, stored, path, _FAMILY)
    text, vision = cast("BertConfig", config.text_config), cast("ConvNextConfig", config.vision_config)
    sizes = {
        "vision_config.image_size": vision.image_size,
        "vision_config.patch_size": vision.patch_size,
        "projection_dim": config.projection_dim,
    }
    check_sizes(sizes, path)
    if vision.num_channels != 3:
        raise SourceError(
            f"{path}: vision_config.num_channels is {quoted(vision.num_channels)}; pictures have 3"
        )
    if not vision.hidden_sizes:
        raise SourceError(f"{path}: vision_config.hidden_sizes is {quoted(vision.hidden_sizes)}")
    if text.is_decoder:
        raise SourceError(f"{path}: text_config.is_decoder is true; a text tower is an encoder")
    # what goes into the projection; a ConvNextConfig has no such field of its own, and the model asks for it
    vision.hidden_size = vision.hidden_sizes[-1]
    return _Config(config, text, vision)


def _build(config: _Config, folder: Path) -> VisionTextDualEncoderModel:
    from transformers import VisionTextDualEncoderModel

    # eager: plain MatMul and Softmax, which both engines fuse themselves
    return build_from(VisionTextDualEncoderModel, config.whole, folder, _FAMILY, attention="eager")


def _check_tokenizer(folder: Path, tokenizer: TokenizerFile, config: _Config) -> None:
    check_vocabulary(tokenizer, config.text.vocab_size, folder)
    if tokenizer.pad_id == tokenizer.eos_id:
        raise SourceError(
            f"{folder}: texts end with id {tokenizer.eos_id}, which fills up short texts, too; give the "
            "tokenizer a pad token of its own, which a BERT can leave out"
        )


def _contract(config: _Config) -> dict[str, Any]:
    """What an embedding depends on and no tensor tells."""
    text, vision = config.text, config.vision
    return {
        "text": [text.num_attention_heads, text.hidden_act, text.layer_norm_eps],
        "vision": [vision.hidden_act, vision.layer_norm_eps],
    }
