"""CLAP: an audio encoder (HTS-AT, a Swin transformer) and a RoBERTa with one embedding space.

Source: Wu et al., 2022, "Large-scale Contrastive Language-Audio Pretraining with Feature Fusion and
Keyword-to-Caption Augmentation", arXiv 2211.06687; Chen et al., 2022, "HTS-AT: A Hierarchical Token-Semantic
Audio Transformer", arXiv 2202.00874; weights and configuration as transformers' `ClapModel` stores them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.base import AUDIO, TEXT, Architecture, Component, Contract, LayerStack
from pocketvl.families.folders.audio_processor import read_log_mel
from pocketvl.families.folders.files import CONFIG_FILE
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.models import build_from, check_sizes, parse_config
from pocketvl.families.folders.tokenizer import check_padding, check_vocabulary, masked_length, read_tokenizer
from pocketvl.families.layers.bert import embed_tokens, padding_mask, pool_last_bert_layer_
from pocketvl.families.layers.plain import l2_normalize
from pocketvl.families.layers.pooled import PoolsOnePosition
from pocketvl.families.layers.prefix import MasksPadding
from pocketvl.families.layers.windows import (
    merge_tokens,
    run_window_layer,
    set_scale_,
    shifted_mask,
    window_of,
)
from pocketvl.families.ports import AUDIO_ENCODER, contrastive_head, embedding_ports, two_encoders
from pocketvl.network.heads import StoredScalar
from pocketvl_runtime.errors import quoted
from pocketvl_runtime.manifest import Padding, Side, TextProcessor

if TYPE_CHECKING:
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapModel,
        ClapTextConfig,
        PreTrainedConfig,
        PreTrainedModel,
    )

_FAMILY = "CLAP"
_TRAINED_LENGTH = 77
"""Tokens of the texts that the published models were trained on (Wu et al., 2022, their code's setting)."""
_MOST_SIDE, _MOST_WINDOW = 256, 32  # what no weight says the size of, and masks take memory by
_TAPS, _CUBIC = 4, -0.75  # of torch's bicubic interpolation
_AUDIO_SCALE, _TEXT_SCALE = (StoredScalar(f"logit_scale_{side}", is_log=True) for side in "at")


class ClapAudioEncoder(nn.Module):
    """Log-mel spectrograms in dB, float32 [B, 1, frames, mels] -> float32 [B, D], L2-normalised."""

    def __init__(self, model: ClapModel, frames: int) -> None:
        """Args: model: shares its modules. frames: of the spectrograms."""
        super().__init__()
        self.audio_model, self.audio_projection = model.audio_model, model.audio_projection
        encoder = model.audio_model.audio_encoder
        stretched = encoder.spec_size * encoder.freq_ratio
        self.is_stretched = frames < stretched
        places, weights = cubic_taps(frames, stretched)
        for tap in range(_TAPS if self.is_stretched else 0):
            self.register_buffer(f"place_{tap}", torch.from_numpy(places[:, tap].copy()), persistent=False)
            self.register_buffer(
                f"weight_{tap}", torch.from_numpy(weights[:, tap, None].copy()), persistent=False
            )
        for number, stage in enumerate(encoder.layers):
            grid = encoder.input_resolutions[number]
            for index in range(len(cast(nn.ModuleList, stage.blocks))):
                side, shift = window_of(grid, encoder.config.window_size, index)
                if shift:
                    mask = torch.from_numpy(shifted_mask(grid, side, shift))
                    self.register_buffer(_mask_name(number, index), mask, persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Embed a batch of sounds."""
        encoder = self.audio_model.audio_encoder
        hidden: torch.Tensor = encoder.patch_embed(self.as_picture(self.normalize(features)))
        for number, stage in enumerate(encoder.layers):
            grid = encoder.input_resolutions[number]
            for index, layer in enumerate(cast(nn.ModuleList, stage.blocks)):
                side, shift = window_of(grid, encoder.config.window_size, index)
                mask = self.get_buffer(_mask_name(number, index)) if shift else None
                hidden = run_window_layer(layer, hidden, grid, side, shift, mask)
            if stage.downsample is not None:
                hidden = merge_tokens(cast(nn.Module, stage.downsample), hidden, grid)
        return l2_normalize(self.audio_projection(encoder.norm(hidden).mean(1)))

    def normalize(self, features: torch.Tensor) -> torch.Tensor:
        """By the statistics of each mel, in training too: a batch's own would be another model's."""
        norm = self.audio_model.audio_encoder.batch_norm
        mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
        factor = norm.weight / torch.sqrt(variance + norm.eps)
        return features * factor + (norm.bias - mean * factor)

    def as_picture(self, features: torch.Tensor) -> torch.Tensor:
        """[B, 1, frames, mels] -> [B, 1, side, side]: stretched in time, cut, the parts above one another."""
        ratio = self.audio_model.audio_encoder.freq_ratio
        if self.is_stretched:
            taps = (
                features.index_select(2, self.get_buffer(f"place_{tap}")) * self.get_buffer(f"weight_{tap}")
                for tap in range(_TAPS)
            )
            first, second, third, fourth = taps
            features = first + second + third + fourth  # [B, 1, ratio * side, mels]
        batch, _, frames, mels = features.shape
        cut = features.view(batch, 1, ratio, frames // ratio, mels).transpose(3, 4)
        return cut.flatten(2, 3)


class ClapTextEncoder(nn.Module, PoolsOnePosition, MasksPadding):
    """int ids [B, T] -> float32 [B, D], L2-normalised; padding is not attended to, the first token pooled."""

    def __init__(self, model: ClapModel, pad_id: int) -> None:
        """Args: model: shares its modules. pad_id: the padding token."""
        super().__init__()
        self.text_model, self.text_projection = model.text_model, model.text_projection
        self.pad_id = pad_id

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embed a batch of texts."""
        tables = self.text_model.embeddings
        hidden = embed_tokens(tables, ids, first=tables.padding_idx + 1)  # positions count from there
        mask = padding_mask(ids, self.pad_id)
        for layer in self.text_model.encoder.layer:
            hidden = layer(hidden, mask)
        pooled = cast(nn.Module, self.text_model.pooler)(hidden)
        return l2_normalize(self.text_projection(pooled))

    def pool_early_(self) -> None:
        pool_last_bert_layer_(self.text_model.encoder.layer)


class ClapArchitecture(Architecture):
    """ClapModel without fusion."""

    def contract(self, folder: Path) -> Contract:
        config = self.parse(read_json(folder / CONFIG_FILE), folder)
        text, audio = _sections(config)
        ratio = audio.spec_size // audio.num_mel_bins
        log_mel, notes = read_log_mel(folder, audio.num_mel_bins, audio.spec_size * ratio)
        tokenizer = read_tokenizer(folder)
        check_vocabulary(tokenizer, text.vocab_size, folder)
        check_padding(tokenizer, folder)
        if tokenizer.pad_id != text.pad_token_id or tokenizer.pad_side is not Side.RIGHT:
            raise SourceError(
                f"{folder}: id {tokenizer.pad_id} fills texts up at the {tokenizer.pad_side.value}; "
                f"a CLAP counts positions from the left, by its pad_token_id {quoted(text.pad_token_id)}"
            )
        positions = text.max_position_embeddings - tokenizer.pad_id - 1
        length, cut = masked_length(tokenizer, positions, _TRAINED_LENGTH, folder)
        spec = TextProcessor(length, Padding(tokenizer.pad_id))
        return Contract(
            family="clap",
            name=folder.resolve().name,
            folder=folder,
            processors={AUDIO: log_mel, TEXT: spec},
            tokenizer_json=tokenizer.content,
            components=embedding_ports(log_mel, spec, config.projection_dim),
            head=contrastive_head(scale=_AUDIO_SCALE, second_scale=_TEXT_SCALE, first=AUDIO_ENCODER),
            identity={
                "text": [text.num_attention_heads, text.hidden_act, text.layer_norm_eps],
                "audio": [
                    *(list(audio.num_attention_heads), audio.hidden_act, audio.layer_norm_eps),
                    *(audio.window_size, audio.spec_size),
                ],
                "projection": config.projection_hidden_act,
            },
            notes=notes + cut,
        )

    def parse(self, stored: dict[str, Any], folder: Path) -> ClapConfig:
        from transformers import ClapConfig

        path = folder / CONFIG_FILE
        config = parse_config(ClapConfig, stored, path, _FAMILY)
        text, audio = _sections(config)
        sizes = {
            "audio_config.spec_size": audio.spec_size,
            "audio_config.num_mel_bins": audio.num_mel_bins,
            "audio_config.window_size": audio.window_size,
            "audio_config.patch_embeds_hidden_size": audio.patch_embeds_hidden_size,
            "projection_dim": config.projection_dim,
            "text_config.max_position_embeddings": text.max_position_embeddings,
        }
        check_sizes(sizes, path)
        if audio.enable_fusion:
            raise SourceError(
                f"{path}: audio_config.enable_fusion is true; a model that fuses several parts of a sound is "
                "not supported, only those without fusion, as laion/clap-htsat-unfused"
            )
        if not audio.flatten_patch_embeds or audio.patch_embed_input_channels != 1:
            raise SourceError(
                f"{path}: patch_embed_input_channels {quoted(audio.patch_embed_input_channels)} and "
                f"flatten_patch_embeds {quoted(audio.flatten_patch_embeds)}; only 1 and true are known"
            )
        if not audio.depths or len(audio.depths) != len(audio.num_attention_heads):
            raise SourceError(f"{path}: audio_config.depths and num_attention_heads are not equally long")
        width = audio.patch_embeds_hidden_size * 2 ** (len(audio.depths) - 1)
        if audio.hidden_size != width:
            raise SourceError(
                f"{path}: audio_config.hidden_size is {quoted(audio.hidden_size)}, and the last of "
                f"{len(audio.depths)} stages gives {width}"
            )
        if audio.spec_size % audio.num_mel_bins:
            raise SourceError(
                f"{path}: audio_config.spec_size {audio.spec_size} is no multiple of num_mel_bins "
                f"{audio.num_mel_bins}"
            )
        _check_grids(audio, path)
        return config

    def build(self, config: PreTrainedConfig, folder: Path, initialised: bool = False) -> PreTrainedModel:
        from transformers import ClapModel

        # eager: plain MatMul and Softmax, which both engines fuse themselves
        model = build_from(ClapModel, config, folder, _FAMILY, initialised=initialised, attention="eager")
        for stage in model.audio_model.audio_encoder.layers:
            for layer in cast(nn.ModuleList, stage.blocks):
                set_scale_(layer)
        return model

    def components(self, model: nn.Module, contract: Contract) -> tuple[Component, ...]:
        clap = cast("ClapModel", model)
        width, frames = clap.text_projection.linear1.in_features, _frames(contract)
        read = LayerStack("text_model.encoder.layer", ("text_config", "num_hidden_layers"), width)
        return two_encoders(
            contract,
            ClapAudioEncoder(clap, frames),
            ClapTextEncoder(clap, contract.tokenizer.pad_id),
            None,
            read,
        )


ARCHITECTURE = ClapArchitecture()


def cubic_taps(count: int, wanted: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Cubic interpolation from `count` samples to `wanted`, of which the first and last stay what they are.

    torch's own is decomposed by LiteRT's converter into ops that old engines do not know.

    Returns:
        int32 [wanted, 4], which samples each is made of, and float32 [wanted, 4], by which weights.

    Source: Keys, 1981, "Cubic convolution interpolation for digital image processing", with a = -0.75.
    """
    # in float32, as torch computes it
    place = np.arange(wanted, dtype=np.float32) * np.float32((count - 1) / max(wanted - 1, 1))
    first = np.floor(place).astype(int)
    near = np.abs(place[:, None] - (first[:, None] + np.arange(-1, 3)))  # [wanted, 4]
    inner = ((_CUBIC + 2) * near - (_CUBIC + 3)) * near**2 + 1
    outer = ((near - 5) * near + 8) * near * _CUBIC - 4 * _CUBIC
    weights = np.where(near <= 1, inner, outer)
    places = np.clip(first[:, None] + np.arange(-1, 3), 0, count - 1)
    return places.astype(np.int32), weights.astype(np.float32)


def _mask_name(stage: int, layer: int) -> str:
    return f"mask_{stage}_{layer}"


def _frames(contract: Contract) -> int:
    frames: int = contract.media.output.shape[2]
    return frames


def _check_grids(audio: ClapAudioConfig, path: Path) -> None:
    """Raise SourceError where tokens do not fill the windows of a stage, or cannot be merged by fours."""
    strides = audio.patch_stride if isinstance(audio.patch_stride, list | tuple) else [audio.patch_stride] * 2
    if len(set(strides)) > 1 or not isinstance(strides[0], int) or strides[0] < 1:
        raise SourceError(f"{path}: audio_config.patch_stride is {quoted(strides)}; one number is known")
    side = audio.spec_size // strides[0]
    if side > _MOST_SIDE or audio.window_size > _MOST_WINDOW:
        raise SourceError(
            f"{path}: the audio encoder has a grid of {side} x {side} tokens and windows of "
            f"{audio.window_size}; at most {_MOST_SIDE} and {_MOST_WINDOW} are known"
        )
    for stage in range(len(audio.depths)):
        is_last = stage == len(audio.depths) - 1
        if side < 1 or side % min(side, audio.window_size) or (side % 2 and not is_last):
            raise SourceError(
                f"{path}: stage {stage} of the audio encoder has a grid of {side} x {side}, which windows of "
                f"{audio.window_size} do not fill, or which cannot be halved"
            )
        side //= 2


def _sections(config: ClapConfig) -> tuple[ClapTextConfig, ClapAudioConfig]:
    return cast("ClapTextConfig", config.text_config), cast("ClapAudioConfig", config.audio_config)
