"""PEFT's LoRA adapters: adapter_config.json with adapter_model.safetensors, merged into their base's weights.

Source: Hu et al., 2021, "LoRA", arXiv 2106.09685, eq. 3; Kalajdzievski, 2023, "rsLoRA", arXiv 2312.03732;
names and keys as PEFT's `LoraConfig` and `get_peft_model_state_dict` write them.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pocketvl.errors import SourceError
from pocketvl.families.folders.files import COMPRESSION_FILE, CONFIG_FILE, PROCESSOR_FILES
from pocketvl.families.folders.hf import read_json
from pocketvl.families.folders.hub import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from pocketvl.families.folders.weights import SAFETENSORS, read_safetensors, read_weights
from pocketvl_runtime.errors import quoted, shortened

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."
_WRAPPED = re.compile(r"\.(?:base_layer|modules_to_save(?:\.default)?)\.")
_LORA = re.compile(r"(.+)\.lora_(A|B)(?:\.default)?\.weight")
# keys that change what is added, and are not merged here
_UNSUPPORTED = ("use_dora", "fan_in_fan_out", "lora_bias", "trainable_token_indices", "megatron_config")


@dataclass(frozen=True)
class LoraConfig:
    """What adapter_config.json says of the scale of each layer's product.

    Attributes:
        rank: r, where `ranks` says nothing else.
        alpha: likewise.
        ranks: by patterns of module names.
        alphas: likewise.
        is_rank_stabilised: whether a product is scaled by alpha / sqrt(r), not alpha / r.
    """

    rank: int
    alpha: float
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]
    is_rank_stabilised: bool

    def rank_of(self, module: str) -> int:
        """The rank of a module's product."""
        return int(_by_pattern(self.ranks, module, self.rank))

    def scale(self, module: str) -> float:
        """By how much B @ A of a module is multiplied."""
        rank = self.rank_of(module)
        alpha = _by_pattern(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.is_rank_stabilised else rank)


def is_adapter(folder: Path) -> bool:
    """Whether a folder is an adapter, which needs its base."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG_FILE).is_file()


def base_of(folder: Path) -> str:
    """What an adapter calls its base: a folder or a hub id.

    Raises:
        SourceError: adapter_config.json is broken, or names none.
    """
    base = read_json(folder / ADAPTER_CONFIG).get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise SourceError(
            f"{folder / ADAPTER_CONFIG} names no base_model_name_or_path; write the base's folder "
            "or hub id there"
        )
    return base


def read_lora(folder: Path) -> LoraConfig:
    """Read and check an adapter_config.json.

    Raises:
        SourceError: it is broken, of another kind than LoRA, or asks for what is not merged here.
    """
    path = folder / ADAPTER_CONFIG
    stored = read_json(path)
    if stored.get("peft_type") != "LORA":
        raise SourceError(f"{path}: peft_type is {quoted(stored.get('peft_type'))}; only LORA is merged here")
    for key in _UNSUPPORTED:
        if stored.get(key):
            raise SourceError(
                f"{path}: {key} is {quoted(stored[key])}; merge it with PEFT's merge_and_unload first"
            )
    ranks, alphas = (_patterns(stored, key, path) for key in ("rank_pattern", "alpha_pattern"))
    rank, alpha = _positive(stored, "r", path), _positive(stored, "lora_alpha", path)
    return LoraConfig(
        int(rank), alpha, {k: int(v) for k, v in ranks.items()}, alphas, bool(stored.get("use_rslora"))
    )


def _positive(stored: Mapping[str, Any], key: str, path: Path) -> float:
    value = stored.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e6:
        raise SourceError(f"{path}: {key} is {quoted(value)}, not a positive number")
    return float(value)


def _patterns(stored: Mapping[str, Any], key: str, path: Path) -> dict[str, float]:
    patterns = stored.get(key) or {}
    if not isinstance(patterns, dict):
        raise SourceError(f"{path}: {key} is {quoted(patterns)}, not a JSON object")
    for pattern in patterns:
        try:
            re.compile(pattern)
        except re.error as error:
            raise SourceError(f"{path}: {key}: {quoted(pattern)} is no pattern: {error}") from error
    return {pattern: _positive(patterns, pattern, path) for pattern in patterns}


def _by_pattern(values: Mapping[str, Any], module: str, default: float) -> float:
    for pattern, value in values.items():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return float(value)
    return default


def merged_weights(folder: Path, base: Path) -> dict[str, torch.Tensor]:
    """The base's weights with an adapter's products in them: W + scale * B @ A, in fp32, stored as they were.

    Args:
        folder: the adapter.
        base: the base's folder.

    Raises:
        SourceError: the adapter is broken, or is of another base.
    """
    config = read_lora(folder)
    weights, found = read_weights(base), read_safetensors(folder / ADAPTER_WEIGHTS)
    products: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in found.items():
        matched = _LORA.fullmatch(name)
        if matched:
            products.setdefault(matched[1].removeprefix(_PREFIX), {})[matched[2]] = tensor
            continue
        plain = _WRAPPED.sub(".", name.removeprefix(_PREFIX))
        if plain not in weights or weights[plain].shape != tensor.shape:
            raise SourceError(f"{folder}: {shortened(name, 100)} {list(tensor.shape)} is no tensor of {base}")
        weights[plain] = tensor.to(weights[plain].dtype)
    for module, parts in products.items():
        name = f"{module}.weight"
        if name not in weights:
            raise SourceError(
                f"{folder}: {base} has no {shortened(name, 100)}; the adapter is of another base"
            )
        where, rank = f"{folder}: {shortened(module, 100)}", config.rank_of(module)
        if "A" in parts and len(parts["A"]) != rank:
            raise SourceError(f"{where}: lora_A is {list(parts['A'].shape)}, which is not of rank {rank}")
        weights[name] = _added(weights[name], parts, config.scale(module), where)
    return weights


def _added(weight: torch.Tensor, parts: Mapping[str, torch.Tensor], scale: float, where: str) -> torch.Tensor:
    if set(parts) != {"A", "B"}:
        raise SourceError(f"{where} has lora_{min(parts)} alone")
    down, up = parts["A"].float(), parts["B"].float()
    # of a convolution, B is one of 1 x 1
    fits = down.ndim == up.ndim == weight.ndim and up.numel() == len(up) * len(down)
    if not fits or (len(up), *down.shape[1:]) != tuple(weight.shape):
        raise SourceError(
            f"{where}: lora_A {list(down.shape)} and lora_B {list(up.shape)} do not fit the base's "
            f"{list(weight.shape)}"
        )
    product = (up.flatten(1) @ down.flatten(1)).view(weight.shape)
    return (weight.float() + scale * product).to(weight.dtype)


def write_merged(folder: Path, base: Path, out: Path) -> None:
    """Write a checkpoint folder: merged weights, and the description of the base.

    Raises:
        SourceError: the adapter is broken, or is of another base.
    """
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous() for name, tensor in merged_weights(folder, base).items()}
    if (base / COMPRESSION_FILE).exists():
        raise SourceError(
            f"{base} is compressed; an adapter is merged into the checkpoint that it was trained on"
        )
    for name in (CONFIG_FILE, *PROCESSOR_FILES):
        source = folder if name != CONFIG_FILE and (folder / name).is_file() else base
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    save_file(weights, out / SAFETENSORS, {"format": "pt"})
