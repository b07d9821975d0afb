"""open_clip_config.json: the towers, the preprocessing and the tokenizer of an open_clip model, checked.

What is not among the fields here, or has another value than they allow, is refused: which models of open_clip
can be opened is said by their configuration, not by a list of names.

Source: open_clip 3.3, `CLIPVisionCfg`, `CLIPTextCfg`, `PreprocessCfg` (what the keys mean, and what they are
where they are absent), `image_transform_v2` (what is done to a picture).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config

from pocketvl.errors import SourceError
from pocketvl_runtime.errors import quoted, shortened
from pocketvl_runtime.manifest import Filter, ImageProcessor, Normalization, ResizeMode, Rounding
from pocketvl_runtime.manifest.processors import MAX_LENGTH

MODEL, VISION, TEXT = "model_cfg", "vision_cfg", "text_cfg"
"""Sections: the model's, and within it those of the towers."""
TRIMMED = "pocketvl"
"""A section of our own, which open_clip passes over: of a checkpoint whose tokenizer is another."""
SUPPORTED = (
    "supported are open_clip's ViT and timm's ConvNeXt and FastViT (MobileCLIP) as image towers, and "
    "open_clip's own text transformer"
)
_PREPROCESS = "preprocess_cfg"
_MEAN, _STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
_FILTERS = {"bicubic": Filter.BICUBIC, "random": Filter.BICUBIC, "bilinear": Filter.BILINEAR}
_RESIZES = {"shortest": ResizeMode.SHORTEST_EDGE, "squash": ResizeMode.EXACT}
_Size = Annotated[int, Field(ge=1, le=2**31)]
_Positive = Annotated[float, Field(gt=0, lt=1e6)]
_Off = Literal[False]
_STRICT = ConfigDict(extra="forbid", strict=True)


@with_config(_STRICT)
@dataclass(frozen=True)
class NormOptions:
    """Of every LayerNorm of a tower."""

    eps: _Positive = 1e-5


@with_config(_STRICT)
@dataclass(frozen=True)
class ActivationOptions:
    """Of every GELU of a tower."""

    approximate: Literal["none", "tanh"] = "none"


@with_config(_STRICT)
@dataclass(frozen=True)
class VisionConfig:
    """The image tower: a ViT, or a model of timm where `timm_model_name` says which."""

    image_size: _Size | tuple[_Size, _Size] = 224
    layers: _Size = 12
    width: _Size = 768
    head_width: _Size = 64
    mlp_ratio: _Positive = 4.0
    patch_size: _Size = 16
    ls_init_value: float | None = None
    no_ln_pre: bool = False
    final_ln_after_pool: bool = False
    pool_type: Literal["tok", "avg"] = "tok"
    act_kwargs: ActivationOptions | None = None
    norm_kwargs: NormOptions | None = None
    timm_model_name: str | None = None
    timm_pool: str = "avg"
    timm_proj: Literal["linear", "mlp", "none", ""] | None = "linear"
    timm_proj_bias: bool = False
    # without effect on what a trained model gives
    pos_embed_type: Literal["learnable", "sin_cos_2d"] = "learnable"
    patch_dropout: float = 0.0
    output_tokens: bool = False
    attn_pooler_queries: int = 256
    attn_pooler_heads: int = 8
    block_type: Literal["default", "custom"] | None = None
    timm_model_pretrained: bool = False
    timm_drop: float = 0.0
    timm_drop_path: float | None = None
    # not supported
    attentional_pool: _Off = False
    qk_norm: _Off = False
    scaled_cosine_attn: _Off = False
    scale_heads: _Off = False
    scale_attn_inner: _Off = False
    scale_attn: _Off = False
    scale_fc: _Off = False

    @property
    def side(self) -> int:
        """Pixels of a picture's side; pictures are square."""
        return self.image_size if isinstance(self.image_size, int) else self.image_size[0]


@with_config(_STRICT)
@dataclass(frozen=True)
class TextConfig:
    """The text tower."""

    context_length: Annotated[int, Field(ge=3, le=MAX_LENGTH)] = 77
    vocab_size: _Size = 49408
    width: _Size = 512
    heads: _Size = 8
    layers: _Size = 12
    mlp_ratio: _Positive = 4.0
    ls_init_value: float | None = None
    pad_id: int = 0
    eos_id: int = 2
    no_causal_mask: bool = False
    pool_type: Literal["argmax", "eos", "first", "last"] = "argmax"
    proj_type: Literal["linear", "none"] = "linear"
    proj_bias: bool = False
    act_kwargs: ActivationOptions | None = None
    norm_kwargs: NormOptions | None = None
    hf_tokenizer_name: str | None = None
    tokenizer_mode: Literal[""] | None = None
    tokenizer_kwargs: dict[str, Any] | None = None
    # without effect
    output_tokens: bool = False
    final_ln_after_pool: bool = False
    block_type: Literal["default", "custom"] | None = None
    hf_model_pretrained: bool = True
    hf_proj_type: str = "mlp"
    hf_pooler_type: str = "mean_pooler"
    # not supported
    embed_cls: _Off = False
    hf_model_name: Literal[""] | None = None
    qk_norm: _Off = False
    scaled_cosine_attn: _Off = False
    scale_heads: _Off = False
    scale_attn_inner: _Off = False
    scale_attn: _Off = False
    scale_fc: _Off = False


@with_config(_STRICT)
@dataclass(frozen=True)
class ModelConfig:
    """The model: its towers, and how their embeddings are compared."""

    embed_dim: _Size
    vision_cfg: VisionConfig
    text_cfg: TextConfig
    quick_gelu: bool = False
    custom_text: bool = False
    init_logit_scale: float | None = None
    init_logit_bias: float | None = None
    nonscalar_logit_scale: bool = False
    output_dict: bool = False
    multimodal_cfg: None = None


@with_config(ConfigDict(strict=True))
@dataclass(frozen=True)
class PreprocessConfig:
    """What is done to a picture; other keys are passed over, as open_clip does, and so are nulls."""

    size: int | tuple[int, ...] | None = None
    mode: Literal["RGB"] = "RGB"
    mean: float | tuple[float, float, float] = _MEAN
    std: _Positive | tuple[_Positive, _Positive, _Positive] = _STD
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    resize_mode: Literal["shortest", "longest", "squash"] = "shortest"
    fill_color: int = 0


@with_config(_STRICT)
@dataclass(frozen=True)
class TrimmedTokenizer:
    """That tokenizer.json, as it stands, makes the ids, and which id fills texts up."""

    pad_id: int


@dataclass(frozen=True)
class Description:
    """The content of an open_clip_config.json.

    Attributes:
        path: of the file, for messages.
        model: its towers.
        preprocess: what is done to a picture.
        trimmed: where the folder's tokenizer.json counts.
    """

    path: Path
    model: ModelConfig
    preprocess: PreprocessConfig = field(default_factory=PreprocessConfig)
    trimmed: TrimmedTokenizer | None = None


def parse_description(stored: dict[str, Any], path: Path) -> Description:
    """Check the content of an open_clip_config.json.

    Args:
        stored: the content.
        path: of the file, for messages.

    Raises:
        SourceError: it describes no model, or one that is not supported.
    """
    model = stored.get(MODEL)
    if not isinstance(model, dict):
        raise SourceError(f"{path} has no {MODEL}, which describes the model; is it open_clip's?")
    _check_kind(model, path)
    given = stored.get(_PREPROCESS)
    preprocess = {} if given is None else given
    if isinstance(preprocess, dict):
        preprocess = {key: value for key, value in preprocess.items() if value is not None}
    found = Description(
        path,
        _checked(ModelConfig, model, MODEL, path),
        _checked(PreprocessConfig, preprocess, _PREPROCESS, path),
        None if TRIMMED not in stored else _checked(TrimmedTokenizer, stored[TRIMMED], TRIMMED, path),
    )
    _check_sizes(found.model, path)
    return found


def _check_kind(model: dict[str, Any], path: Path) -> None:
    """Raise SourceError, in words, for kinds of models that are not supported."""
    text, vision = (part if isinstance(part, dict) else {} for part in (model.get(TEXT), model.get(VISION)))
    kinds = {
        f"{TEXT}.hf_model_name is {quoted(text.get('hf_model_name'))}": text.get("hf_model_name"),
        "it is a CoCa (multimodal_cfg)": model.get("multimodal_cfg"),
        "its image tower is a ResNet": isinstance(vision.get("layers"), list)
        and not vision.get("timm_model_name"),
        f"{VISION}.attentional_pool is on": vision.get("attentional_pool"),
    }
    for what, there in kinds.items():
        if there:
            raise SourceError(f"{path}: {what}; {SUPPORTED}")


def _checked(kind: Any, value: object, section: str, path: Path) -> Any:
    try:
        return TypeAdapter(kind).validate_json(json.dumps(value))  # strict, but for JSON
    except ValidationError as error:
        first = error.errors()[0]
        places = [part for part in first["loc"] if isinstance(part, str) and part.isidentifier()]
        where = ".".join((section, *places))
        given = "" if first["type"] == "missing" else f" is {quoted(first['input'])}"
        raise SourceError(
            f"{path}: {shortened(where, 100)}{given}: {shortened(first['msg'], 150)}; {SUPPORTED}"
        ) from error


def _check_sizes(model: ModelConfig, path: Path) -> None:
    vision, text = model.vision_cfg, model.text_cfg
    size = vision.image_size
    if not isinstance(size, int) and size[0] != size[1]:
        raise SourceError(f"{path}: {VISION}.image_size is {list(size)}; only square pictures are supported")
    if vision.timm_model_name is None and (
        vision.width % vision.head_width or vision.side < vision.patch_size
    ):
        raise SourceError(
            f"{path}: {VISION}: heads of {vision.head_width} do not divide a width of {vision.width}, or a "
            f"patch of {vision.patch_size} is larger than a picture of {vision.side}"
        )
    if text.width % text.heads:
        raise SourceError(f"{path}: {TEXT}: {text.heads} heads do not divide a width of {text.width}")
    if text.proj_type == "none" and text.width != model.embed_dim:
        raise SourceError(
            f"{path}: texts are embedded in {text.width} numbers ({TEXT}.proj_type is none), pictures in "
            f"{model.embed_dim}"
        )


def read_open_clip_preprocess(description: Description) -> tuple[ImageProcessor, tuple[str, ...]]:
    """The preprocessing, as torchvision's transforms of PIL images do it, and notes for the user.

    Raises:
        SourceError: it is one that the runtime does not do.
    """
    given, side = description.preprocess, description.model.vision_cfg.side
    if given.resize_mode not in _RESIZES:
        raise SourceError(
            f"{description.path}: {_PREPROCESS}.resize_mode is {quoted(given.resize_mode)}; supported are "
            f"{', '.join(_RESIZES)}"
        )
    mode = _RESIZES[given.resize_mode]
    crop = (side, side) if mode is ResizeMode.SHORTEST_EDGE else None
    processor = ImageProcessor.resampled(
        _FILTERS[given.interpolation],
        mode,
        (side, side),
        crop,
        Normalization(_per_channel(given.mean), _per_channel(given.std), 1 / 255),
        Rounding.HALF_EVEN,
    )
    told = given.size if isinstance(given.size, tuple) else (given.size,)
    if given.size is not None and set(told) != {side}:
        note = f"{_PREPROCESS}.size is {list(told)}; {VISION}.image_size, {side}, counts, as in open_clip"
        return processor, (note,)
    return processor, ()


def _per_channel(value: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return value if isinstance(value, tuple) else (value, value, value)
