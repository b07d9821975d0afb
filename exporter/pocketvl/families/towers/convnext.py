"""timm's ConvNeXt as an image tower: transformers' ConvNeXt with timm's weights.

Both are the same network; transformers' layers are those whose scales folding knows.

Source: Liu et al., 2022, "A ConvNet for the 2020s", arXiv 2201.03545, as timm 1.0's `ConvNeXt` and open_clip
3.3's `TimmModel` compute it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from pocketvl.errors import SourceError
from pocketvl.families.folders.open_clip import VISION, ModelConfig
from pocketvl.families.towers.base import VISUAL, ImageTower
from pocketvl.families.towers.blocks import no_initialisation
from pocketvl_runtime.errors import quoted

if TYPE_CHECKING:
    from transformers import ConvNextModel

_ACTIVATIONS = {"GELU": "gelu", "GELUTanh": "gelu_pytorch_tanh"}
_TRUNK = f"{VISUAL}trunk."
# timm's names, and transformers', each a pattern of its own and what it becomes
_NAMES = (
    (r"stem\.0\.(.*)", r"embeddings.patch_embeddings.\1"),
    (r"stem\.1\.(.*)", r"embeddings.layernorm.\1"),
    (r"stages\.(\d+)\.downsample\.(.*)", r"encoder.stages.\1.downsampling_layer.\2"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.conv_dw\.(.*)", r"encoder.stages.\1.layers.\2.dwconv.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.norm\.(.*)", r"encoder.stages.\1.layers.\2.layernorm.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc1\.(.*)", r"encoder.stages.\1.layers.\2.pwconv1.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.mlp\.fc2\.(.*)", r"encoder.stages.\1.layers.\2.pwconv2.\3"),
    (r"stages\.(\d+)\.blocks\.(\d+)\.gamma()", r"encoder.stages.\1.layers.\2.layer_scale_parameter\3"),
    (r"head\.norm\.(.*)", r"layernorm.\1"),
)
_POINTWISE = re.compile(r".*\.(pwconv[12]|mlp\.fc[12])\.weight")
_HEADS = (("head.proj.", "proj."), ("head.mlp.", "mlp."), ("trunk.head.fc.", "proj."))
"""The projection's names in a folder, and here, by kind: linear, mlp, and the trunk's own classifier."""


@dataclass(frozen=True)
class ConvNextTower(ImageTower):
    """A ConvNeXt.

    Attributes:
        depths: blocks of each stage.
        widths: channels of each stage.
        patch_size: of the stem, in pixels.
        activation: as transformers calls it.
        eps: of every LayerNorm.
        has_scales: whether blocks multiply their branch.
        is_convolutional: whether a folder's pointwise layers are convolutions of 1 x 1.
        projection: an entry of `_HEADS`, or None: the pooled features are the embedding.
        has_bias: whether the projection's last linear has one.
        embed_dim: D.
    """

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    patch_size: int
    activation: str
    eps: float
    has_scales: bool
    is_convolutional: bool
    projection: tuple[str, str] | None
    has_bias: bool
    embed_dim: int

    @property
    def num_hidden_layers(self) -> int:
        return sum(self.depths)

    @property
    def identity(self) -> object:
        return [self.activation, self.eps]

    def build(self, initialised: bool) -> nn.Module:
        with no_initialisation(initialised):
            return ConvNextModule(self)

    def unpack_(self, weights: dict[str, torch.Tensor]) -> None:
        for name in sorted(name for name in weights if name.startswith(VISUAL)):
            new = self._renamed(name, 0)
            value = weights.pop(name)
            is_conv = _POINTWISE.fullmatch(new) and value.ndim == 4 and value.shape[2:] == (1, 1)
            weights[new] = value[:, :, 0, 0] if is_conv else value

    def pack_(self, weights: dict[str, torch.Tensor]) -> None:
        for name in sorted(name for name in weights if name.startswith(VISUAL)):
            value = weights.pop(name)
            is_conv = self.is_convolutional and name.startswith(_TRUNK) and _POINTWISE.fullmatch(name)
            weights[self._renamed(name, 1)] = value[:, :, None, None] if is_conv else value

    def _renamed(self, name: str, direction: int) -> str:
        """A folder's name as ours (0), or ours as a folder's (1); one of neither stays as it is."""
        if self.projection is not None:
            here, there = self.projection[direction], self.projection[1 - direction]
            if name.startswith(VISUAL + here):
                return VISUAL + there + name.removeprefix(VISUAL + here)
        for theirs, ours in _NAMES:
            pattern, becomes = (theirs, ours) if direction == 0 else _reversed(theirs, ours)
            found = re.fullmatch(re.escape(_TRUNK) + pattern, name)
            if found is not None:
                return _TRUNK + found.expand(becomes)
        return name


def _reversed(theirs: str, ours: str) -> tuple[str, str]:
    """A pattern of our names, and what it becomes."""
    groups = re.findall(r"\([^)]*\)", theirs)
    pattern, becomes = re.escape(ours), theirs.replace("\\.", ".")
    for number, group in enumerate(groups, 1):
        pattern = pattern.replace(re.escape(f"\\{number}"), group)
        becomes = becomes.replace(group, f"\\{number}", 1)
    return pattern, becomes


def tower(trunk: nn.Module, model: ModelConfig, path: Path) -> ConvNextTower:
    """A ConvNeXt; a `TowerMaker`.

    Args:
        trunk: timm's model on the meta device.
        model: the configuration.
        path: of its file, for messages.

    Raises:
        SourceError: it has something that the published ConvNeXts have not.
    """
    net, vision = cast(Any, trunk), model.vision_cfg
    where = f"{path}: {VISION}.timm_model_name {quoted(vision.timm_model_name)}"
    first = net.stages[0].blocks[0]
    activation = type(first.mlp.act).__name__
    named = [child for child in trunk.modules() if "norm" in type(child).__name__.lower()]
    norms = [child for child in named if isinstance(child, nn.LayerNorm)]
    others = [child for child in named if next(child.parameters(recurse=False), None) is not None]
    if activation not in _ACTIVATIONS or others != norms or len({child.eps for child in norms}) != 1:
        raise SourceError(f"{where} has another activation than GELU, or other norms than equal LayerNorms")
    found = ConvNextTower(
        depths=tuple(len(stage.blocks) for stage in net.stages),
        widths=tuple(stage.blocks[0].conv_dw.out_channels for stage in net.stages),
        patch_size=int(net.stem[0].kernel_size[0]),
        activation=_ACTIVATIONS[activation],
        eps=float(norms[0].eps),
        has_scales=first.gamma is not None,
        is_convolutional=bool(first.use_conv_mlp),
        projection=None,
        has_bias=False,
        embed_dim=int(net.num_features),
    )
    _check_network(found, trunk, where)
    return _with_projection(found, model, path)


def _check_network(found: ConvNextTower, trunk: nn.Module, where: str) -> None:
    """Raise SourceError where transformers' ConvNeXt of these shapes is not timm's network."""
    with torch.device("meta"):
        ours = {name: value.shape for name, value in found.build(initialised=False).state_dict().items()}
    theirs = {f"{_TRUNK}{name}": value for name, value in trunk.state_dict().items()}
    found.unpack_(theirs)
    same = {name.removeprefix(VISUAL): value.shape for name, value in theirs.items()} == ours
    strides = [(c.kernel_size, c.stride, c.padding, c.dilation) for c in _spatial(trunk)]
    with torch.device("meta"):
        wanted = [(c.kernel_size, c.stride, c.padding, c.dilation) for c in _spatial(found.build(False))]
    if not same or strides != wanted:
        raise SourceError(
            f"{where} is another network than the ConvNeXts of 2022: its stem, its blocks or its head differ"
        )


def _spatial(module: nn.Module) -> list[nn.Conv2d]:
    """Convolutions of more than a pixel."""
    found = (child for child in module.modules() if isinstance(child, nn.Conv2d))
    return [child for child in found if child.kernel_size != (1, 1)]


def _with_projection(found: ConvNextTower, model: ModelConfig, path: Path) -> ConvNextTower:
    """With what comes after the pooled features, as open_clip's `TimmModel` has it."""
    vision = model.vision_cfg
    kind = vision.timm_proj or ""
    pools = ("avg", "") if kind in ("linear", "mlp") else ("avg",)  # "" leaves timm's own, the mean
    if vision.timm_pool not in pools:
        raise SourceError(
            f"{path}: {VISION}.timm_pool is {quoted(vision.timm_pool)}; of a ConvNeXt only the mean, avg, "
            "is supported"
        )
    if kind == "none":
        if found.embed_dim != model.embed_dim:
            raise SourceError(
                f"{path}: embed_dim is {model.embed_dim}, and {quoted(vision.timm_model_name)} without a "
                f"projection gives {found.embed_dim} numbers"
            )
        return found
    index = ("linear", "mlp", "").index(kind)
    has_bias = kind == "" or vision.timm_proj_bias
    return replace(found, projection=_HEADS[index], has_bias=has_bias, embed_dim=model.embed_dim)


class ConvNextModule(nn.Module):
    """float32 [B, 3, H, W] -> float32 [B, D]."""

    def __init__(self, tower: ConvNextTower) -> None:
        """Args: tower: its shape."""
        super().__init__()
        from transformers import ConvNextConfig, ConvNextModel

        config = ConvNextConfig(
            patch_size=tower.patch_size,
            num_stages=len(tower.depths),
            hidden_sizes=list(tower.widths),
            depths=list(tower.depths),
            hidden_act=tower.activation,
            layer_norm_eps=tower.eps,
            layer_scale_init_value=1e-6 if tower.has_scales else 0.0,
        )
        self.trunk: ConvNextModel = ConvNextModel(config)
        for child in self.trunk.modules():
            if isinstance(child, nn.LayerNorm):
                child.eps = tower.eps
        width, dim = tower.widths[-1], tower.embed_dim
        self.proj: nn.Module = nn.Identity()
        self.mlp: nn.Module = nn.Identity()
        if tower.projection == _HEADS[1]:
            self.mlp = _Mlp(width, dim, tower.has_bias)
        elif tower.projection is not None:
            self.proj = nn.Linear(width, dim, tower.has_bias)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Embed a batch of images."""
        embeddings = self.trunk.embeddings
        hidden: torch.Tensor = embeddings.layernorm(embeddings.patch_embeddings(values))
        for stage in self.trunk.encoder.stages:
            hidden = stage(hidden)
        found: torch.Tensor = self.proj(self.mlp(self.trunk.layernorm(hidden.mean((-2, -1)))))
        return found


class _Mlp(nn.Module):
    """float32 [B, width] -> float32 [B, D], as timm's Mlp of open_clip."""

    def __init__(self, width: int, dim: int, has_bias: bool) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim, has_bias)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.fc2(self.act(self.fc1(pooled)))
        return found
