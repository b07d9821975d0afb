"""CLIP: two towers that meet in one embedding space.

Source: Radford et al., 2021, "Learning Transferable Visual Models From Natural Language Supervision",
arXiv 2103.00020; weights and configuration as transformers' `CLIPModel` stores them.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn
from torch.nn.utils import skip_init

from pocketvl.errors import SourceError
from pocketvl.families.base import Source
from pocketvl.families.checkpoint import TokenizerFile, read_json, read_tokenizer
from pocketvl.families.clip_preprocess import CLIP_PROCESSOR, read_preprocess
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
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig
    from transformers.models.clip.modeling_clip import CLIPEncoder, CLIPTextEmbeddings

# Before transformers' pull request 24773 CLIP configs said eos_token_id 2 whatever the tokenizer said, and
# text was pooled at the highest id; transformers still does so for them.
_LEGACY_EOS = 2
_TINY = 1e-12


def normalize(embedding: torch.Tensor) -> torch.Tensor:
    """L2-normalises [B, D] along D, in ops that every engine has; a zero vector stays zero."""
    squares = (embedding * embedding).sum(-1, keepdim=True)  # [B, 1]
    return embedding / torch.sqrt(squares.clamp(min=_TINY * _TINY))


class ClipImageEncoder(nn.Module):
    """uint8 RGB [B, H, W, 3] -> float32 [B, D], L2-normalised; rescales and normalises inside.

    Rescaling and normalisation are folded into the patch embedding. One converter would do so by itself, for
    some means, and the other never; so both engines get the same weights, and int8 takes pixels as they are.
    """

    def __init__(self, model: CLIPModel, preprocess: ImageProcessor) -> None:
        """Args: model: shares its other parameters. preprocess: whose rescale, mean and std are applied."""
        super().__init__()
        vision = model.vision_model
        self.patch_embedding = of_raw_pixels(vision.embeddings.patch_embedding, preprocess)
        self.class_embedding = vision.embeddings.class_embedding
        self.position_embedding = vision.embeddings.position_embedding
        self.pre_layernorm: nn.Module = vision.pre_layrnorm
        self.encoder: CLIPEncoder = vision.encoder
        self.post_layernorm: nn.Module = vision.post_layernorm
        self.projection: nn.Module = model.visual_projection

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of pictures."""
        batch = pixels.shape[0]
        values = pixels.to(torch.float32).permute(0, 3, 1, 2)  # [B, 3, H, W]
        patches = self.patch_embedding(values).flatten(2).transpose(1, 2)  # [B, patches, hidden]
        first = self.class_embedding.expand(batch, 1, -1)
        hidden = torch.cat([first, patches], dim=1) + self.position_embedding.weight
        hidden = self.encoder(inputs_embeds=self.pre_layernorm(hidden)).last_hidden_state
        return normalize(self.projection(self.post_layernorm(hidden[:, 0])))


def of_raw_pixels(patches: nn.Conv2d, preprocess: ImageProcessor) -> nn.Conv2d:
    """The same convolution of pixels 0 to 255 that have been neither rescaled nor normalised.

    Args:
        patches: without padding, which would stand for another pixel now; left as it is.
        preprocess: whose rescale, mean and std go into the new one's weights.
    """
    normalization = preprocess.normalized_in_graph
    weight = patches.weight.detach().double()  # [hidden, 3, P, P]
    mean, std = (
        torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (normalization.mean, normalization.std)
    )
    bias = -(weight * (mean / std)).sum(dim=(1, 2, 3))
    if patches.bias is not None:
        bias = bias + patches.bias.detach().double()
    size, stride = cast("tuple[int, int]", patches.kernel_size), cast("tuple[int, int]", patches.stride)
    folded = skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, patches.in_channels, patches.out_channels, size, stride
    )
    with torch.no_grad():
        folded.weight.copy_(weight * (normalization.rescale / std))
        folded.get_parameter("bias").copy_(bias)
    return cast(nn.Conv2d, folded.requires_grad_(False))


class ClipTextEncoder(nn.Module):
    """int32 ids [B, T] -> float32 [B, D], L2-normalised; pooled where transformers pools."""

    def __init__(self, model: CLIPModel, length: int, eos_id: int) -> None:
        """Args: model: shares its parameters. length: T. eos_id: the config's; 2 pools at the highest id."""
        super().__init__()
        text = model.text_model
        self.embeddings: CLIPTextEmbeddings = text.embeddings
        self.encoder: CLIPEncoder = text.encoder
        self.final_layernorm: nn.Module = text.final_layer_norm
        self.projection: nn.Module = model.text_projection
        self.length = length
        self.eos_id = eos_id
        self.mask: torch.Tensor
        self.places: torch.Tensor
        later = torch.ones(length, length).triu(1)
        self.register_buffer("mask", (later * MASKED)[None, None], persistent=False)  # [1, 1, T, T]
        self.register_buffer("places", torch.arange(length, dtype=torch.int32), persistent=False)

    def pooled_place(self, ids: torch.Tensor) -> torch.Tensor:
        """One-hot float32 [B, T] of the place that is pooled: the first eos, or the first highest id.

        In comparisons, since argmax over int64 and gathers do not lower to TFLite; and of integers, since an
        engine that computes in bf16 or fp16 cannot tell 49,407 from 49,408.
        """
        wanted = ids.amax(-1, keepdim=True) if self.eos_id == _LEGACY_EOS else self.eos_id
        # a place that is not wanted comes after every one that is; without any, place 0 is the least
        order = self.places + (ids != wanted).to(torch.int32) * self.length
        return (order == order.amin(-1, keepdim=True)).to(torch.float32)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeds a batch of texts."""
        hidden = (
            self.embeddings.token_embedding(ids) + self.embeddings.position_embedding.weight[: self.length]
        )
        hidden = self.encoder(inputs_embeds=hidden, attention_mask=self.mask).last_hidden_state
        pooled = (self.pooled_place(ids)[:, :, None] * hidden).sum(1)  # [B, hidden]
        # LayerNorm works on each place alone, so that it may come after pooling
        return normalize(self.projection(self.final_layernorm(pooled)))


@dataclass(frozen=True)
class _Config:
    """A checked config.json: the whole, and its two towers."""

    whole: CLIPConfig
    text: CLIPTextConfig
    vision: CLIPVisionConfig

    @property
    def eos_id(self) -> int:
        return cast(int, self.text.eos_token_id)


def load(folder: Path) -> Source:
    """Opens a CLIPModel folder.

    Args:
        folder: a Hugging Face model folder of model_type "clip".

    Returns:
        The opened model.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    config = _read_config(folder)
    preprocess, notes = read_preprocess(folder, cast(int, config.vision.image_size), CLIP_PROCESSOR)
    tokenizer = read_tokenizer(folder)
    notes += _check_tokenizer(folder, tokenizer, config)
    model = _open_model(config, folder).requires_grad_(False)
    length = text_length(tokenizer, int(config.text.max_position_embeddings), folder)
    spec = TextProcessor(length, Padding(tokenizer.pad_id))
    return Source(
        family="clip",
        name=folder.resolve().name,
        folder=folder,
        preprocess=preprocess,
        tokenizer=spec,
        tokenizer_json=tokenizer.content,
        embedding_dim=cast(int, config.whole.projection_dim),
        logit_scale=logit_scale_of(model.logit_scale, folder),
        space=space_of(model, _contract(config), preprocess, spec, tokenizer.content),
        image_encoder=ClipImageEncoder(model, preprocess).eval(),
        text_encoder=ClipTextEncoder(model, length, config.eos_id).eval(),
        notes=notes,
    )


def load_model(folder: Path) -> CLIPModel:
    """Opens transformers' own model, as it is compressed and trained: fp32, eager attention, in eval mode.

    Raises:
        SourceError: something in the folder is missing, broken, or does not fit the rest.
    """
    return _open_model(_read_config(folder), folder)


def build_model(stored: dict[str, Any], folder: Path, initialised: bool = False) -> CLIPModel:
    """A model as a config.json describes it, with weights that mean nothing.

    Args:
        stored: its content.
        folder: for messages.
        initialised: whether they are random, of torch's present state, and can be trained.

    Raises:
        SourceError: there is no such model.
    """
    return _build(_check_config(stored, folder), folder, initialised)


def _open_model(config: _Config, folder: Path) -> CLIPModel:
    return open_model(lambda: _build(config, folder), config.whole, read_compression(folder), folder)


def _read_config(folder: Path) -> _Config:
    return _check_config(read_json(folder / "config.json"), folder)


def _check_config(stored: dict[str, Any], folder: Path) -> _Config:
    from transformers import CLIPConfig

    path = folder / "config.json"
    config = parse_config(CLIPConfig, stored, path, "CLIP")
    text = cast("CLIPTextConfig", config.text_config)
    vision = cast("CLIPVisionConfig", config.vision_config)
    sizes = {
        "vision_config.image_size": vision.image_size,
        "vision_config.patch_size": vision.patch_size,
        "text_config.eos_token_id": text.eos_token_id,
        "projection_dim": config.projection_dim,
    }
    check_sizes(sizes, path)
    if vision.num_channels != 3:
        raise SourceError(
            f"{path}: vision_config.num_channels is {quoted(vision.num_channels)}; pictures have 3"
        )
    return _Config(config, text, vision)


def _build(config: _Config, folder: Path, initialised: bool = False) -> CLIPModel:
    from transformers import CLIPModel

    # eager: plain MatMul and Softmax, which both engines fuse themselves
    return build_from(CLIPModel, config.whole, folder, "CLIP", initialised=initialised, attention="eager")


def _check_tokenizer(folder: Path, tokenizer: TokenizerFile, config: _Config) -> tuple[str, ...]:
    check_vocabulary(tokenizer, config.text.vocab_size, folder)
    eos = config.eos_id
    if eos != _LEGACY_EOS:
        if tokenizer.eos_id != eos:
            raise SourceError(
                f"{folder}: texts end with id {tokenizer.eos_id}, config.json pools at eos_token_id "
                f"{quoted(eos)}; correct text_config.eos_token_id"
            )
        return ()
    if tokenizer.eos_id != tokenizer.highest_id:
        return (
            f"config.json says eos_token_id {_LEGACY_EOS}, so text is pooled at the highest id, which is not "
            f"always the end of the text (id {tokenizer.eos_id})",
        )
    return ()


def _contract(config: _Config) -> dict[str, Any]:
    """What an embedding depends on and no tensor tells."""
    return {
        "towers": [
            [tower.num_attention_heads, tower.hidden_act, tower.layer_norm_eps]
            for tower in (config.text, config.vision)
        ],
        "eos": config.eos_id,
    }


def logit_scale_of(stored: torch.Tensor, folder: Path) -> float:
    """What a cosine is multiplied by, of the logarithm that a model stores.

    Raises:
        SourceError: it is not the logarithm of anything sensible.
    """
    value = float(stored.detach())
    if not -20 < value < 20:
        raise SourceError(f"{folder}: logit_scale is {value}, which is not the logarithm of a temperature")
    return math.exp(value)


def space_of(
    model: nn.Module,
    contract: dict[str, Any],
    preprocess: ImageProcessor,
    tokenizer: TextProcessor,
    tokenizer_json: bytes,
) -> str:
    """Hashes everything that an embedding depends on; the logit scale is not among it.

    Args:
        model: whose tensors count.
        contract: what else decides in this family.
        preprocess: how a picture becomes pixels.
        tokenizer: how a text becomes ids.
        tokenizer_json: the content of tokenizer.json.
    """
    whole = {**contract, "preprocess": asdict(preprocess), "tokenizer": asdict(tokenizer)}
    digest = hashlib.sha256(json.dumps(whole, sort_keys=True).encode())
    digest.update(hashlib.sha256(tokenizer_json).digest())
    for name, tensor in sorted(model.state_dict().items()):
        if name != "logit_scale":
            digest.update(f"{name}{list(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy())
    return f"sha256:{digest.hexdigest()}"
