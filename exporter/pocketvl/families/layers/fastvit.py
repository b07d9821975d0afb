"""FastViT, MobileCLIP's image tower, as it is deployed: branches merged, batch norms and layer scales folded.

Modules and weights are those of timm's `FastVit`.

Source: Vasu et al., 2023, "FastViT: A Fast Hybrid Vision Transformer using Structural Reparameterization",
arXiv 2303.14189; 2024, "MobileCLIP: Fast Image-Text Models through Multi-Modal Reinforced Training", arXiv
2311.17049.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


class FeatureMapAttention(nn.Module):
    """Attention over the positions of a feature map, float [B, C, h, w] -> [B, C, h, w].

    timm's holds queries, keys and values as one linear, and scales scores; here the queries' weights do.
    """

    def __init__(self, width: int, head_dim: int) -> None:
        """Args: width: C. head_dim: channels of a head, which divides C."""
        super().__init__()
        self.head_dim, self.num_heads = head_dim, width // head_dim
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Mix the positions of a batch of feature maps."""
        tokens = hidden.flatten(2).transpose(1, 2)  # [B, h * w, C]
        queries, keys, values = (
            linear(tokens).reshape(*tokens.shape[:2], self.num_heads, self.head_dim).transpose(1, 2)
            for linear in (self.q_proj, self.k_proj, self.v_proj)
        )  # each [B, heads, h * w, head_dim]
        shares = torch.softmax(torch.matmul(queries, keys.transpose(-2, -1)), dim=-1)
        mixed = torch.matmul(shares, values).transpose(1, 2).flatten(2)  # [B, h * w, width of all heads]
        output: torch.Tensor = self.out_proj(mixed)
        return output.transpose(1, 2).reshape(hidden.shape)


def deploy_(trunk: nn.Module) -> None:
    """Merge a FastViT's branches, and fold its batch norms and layer scales into what stands beside them.

    It computes what it did in eval mode; weights are merged in float64. Left are convolutions and linears
    with biases, and the LayerNorms of the largest models.

    Args:
        trunk: in eval mode, fp32, with all its branches; changed in place.
    """
    from timm.models import reparameterize_model
    from timm.models.fastvit import AttentionBlock, ConvMlp, LayerScale2d, RepMixerBlock

    with torch.no_grad():
        trunk.double()
        reparameterize_model(trunk, inplace=True)
        for child in [*trunk.modules()]:
            if isinstance(child, ConvMlp) and isinstance(child.conv.bn, nn.BatchNorm2d):
                child.conv.conv, child.conv.bn = (
                    fuse_conv_bn_eval(child.conv.conv, child.conv.bn),
                    nn.Identity(),
                )
            if isinstance(child, RepMixerBlock) and isinstance(child.layer_scale, LayerScale2d):
                _scale_(child.mlp.fc2, child.layer_scale)
                child.layer_scale = nn.Identity()
            if hasattr(child, "id_tensor"):  # as large as its convolution's weights
                del child.id_tensor
            if isinstance(child, AttentionBlock):
                _deploy_attention_(child)
        trunk.float().requires_grad_(True)


def _deploy_attention_(block: Any) -> None:
    from timm.models.fastvit import Attention, LayerScale2d

    before = block.token_mixer
    if isinstance(before, Attention):
        block.token_mixer = _split(before)
    attention = block.token_mixer
    assert isinstance(attention, FeatureMapAttention)
    if isinstance(block.norm, nn.BatchNorm2d):
        for linear in (attention.q_proj, attention.k_proj, attention.v_proj):
            _take_in_(linear, block.norm)
        block.norm = nn.Identity()
    for name, last in (("layer_scale_1", attention.out_proj), ("layer_scale_2", block.mlp.fc2)):
        scale = getattr(block, name)
        if isinstance(scale, LayerScale2d):
            _scale_(last, scale)
            setattr(block, name, nn.Identity())


def _split(attention: Any) -> FeatureMapAttention:
    """timm's attention as three linears and one after them."""
    qkv, proj, head_dim = attention.qkv, attention.proj, int(attention.head_dim)
    weight = qkv.weight
    with torch.device(weight.device):
        made = FeatureMapAttention(weight.shape[1], head_dim).to(weight.dtype)
    bias = torch.zeros_like(weight[:, 0]) if qkv.bias is None else qkv.bias
    scales = (head_dim**-0.5, 1.0, 1.0)
    linears = (made.q_proj, made.k_proj, made.v_proj)
    for linear, own, shift, scale in zip(linears, weight.chunk(3), bias.chunk(3), scales, strict=True):
        linear.weight.copy_(own * scale)
        linear.bias.copy_(shift * scale)
    made.out_proj = proj
    return made


def _take_in_(linear: nn.Linear, norm: nn.BatchNorm2d) -> None:
    """Make a linear of a batch norm's output the same linear of its input."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    linear.bias.add_(linear.weight @ (norm.bias - norm.running_mean * scale))
    linear.weight.mul_(scale)


def _scale_(layer: Any, scale: Any) -> None:
    """Multiply what a convolution or linear gives by a layer scale."""
    factors = scale.gamma.flatten()
    layer.weight.mul_(factors.reshape(-1, *[1] * (layer.weight.ndim - 1)))
    layer.bias.mul_(factors)


def stream_layers(module: nn.Module) -> tuple[str, ...]:
    """The grouped convolutions of a deployed FastViT that are better left in float: 1 % of MobileCLIP2-S0.

    A RepMixer's holds the skip beside it, so that the residual stream goes through it, and one grid for all
    channels would round that once a block. Of the others, channels are as uneven as batch norms have left
    them, and an activation keeps what reads them from evening them out. A feed-forward layer's depthwise
    convolution is not among them: the pointwise one after it does so.

    Args:
        module: holds the FastViT.

    Returns:
        Names in the module.
    """
    return tuple(
        name
        for name, child in module.named_modules()
        if isinstance(child, nn.Conv2d) and child.groups > 1 and not name.endswith("mlp.conv.conv")
    )


def squeeze_layers(module: nn.Module) -> tuple[str, ...]:
    """The two convolutions of each squeeze-excite, which read one vector a picture.

    Args:
        module: holds the FastViT.

    Returns:
        Names in the module.
    """
    return tuple(name for name, _ in module.named_modules() if name.endswith((".se.fc1", ".se.fc2")))


def deployed_weights(
    build: Callable[[], nn.Module], weights: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor] | None:
    """The weights of a deployed FastViT, of those of one with branches.

    Args:
        build: makes the FastViT with branches.
        weights: by their names in it; may be on the meta device, as the result is then.

    Returns:
        None where these are not its weights, by names and shapes: deployed ones, for example.
    """
    with torch.device("meta"):
        trunk = build()
    wanted = {name: value.shape for name, value in trunk.state_dict().items()}
    if wanted != {name: value.shape for name, value in weights.items()}:
        return None
    device = next(iter(weights.values())).device
    trunk.load_state_dict(dict(weights), assign=True)
    trunk.train(False)
    with torch.device(device):
        deploy_(trunk)
    return cast(dict[str, torch.Tensor], trunk.state_dict())
