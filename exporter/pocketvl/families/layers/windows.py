"""Attention within windows of a grid of tokens, with a bias by relative position: Swin's layers in plain ops.

Source: Liu et al., 2021, "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows",
arXiv 2103.14030; modules and their weights as transformers' `ClapAudioLayer` has them.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

_OUTSIDE = -100.0
"""Added to the scores of tokens that meet in a window only because the grid was rolled."""


def window_of(grid: tuple[int, int], side: int, index: int) -> tuple[int, int]:
    """Side of the windows, and by how many tokens the grid is rolled, of one of a stage's layers.

    Args:
        grid: rows and columns of tokens.
        side: of the windows, as configured.
        index: of the layer in its stage; every other one is shifted.
    """
    if min(grid) <= side:
        return min(grid), 0
    return side, side // 2 if index % 2 else 0


def shifted_mask(grid: tuple[int, int], side: int, shift: int) -> NDArray[np.float32]:
    """What is added to the scores within the windows of a rolled grid, float32 [windows, 1, T, T].

    Tokens attend to those of their own region alone, of which a roll puts up to four into a window.
    """
    regions = [
        (np.arange(size) >= size - side).astype(int) + (np.arange(size) >= size - shift) for size in grid
    ]
    region = 3 * regions[0][:, None] + regions[1][None]
    rows, columns = (size // side for size in grid)
    windows = region.reshape(rows, side, columns, side).transpose(0, 2, 1, 3).reshape(rows * columns, 1, -1)
    return np.where(windows[..., None] == windows[..., None, :], 0, _OUTSIDE).astype(np.float32)


def set_scale_(layer: nn.Module) -> None:
    """Say of a layer's attention what its scores are multiplied by, where `quantize/fold.py` finds it."""
    attention = layer.get_submodule("attention.self")
    setattr(attention, "scale", cast(int, attention.attention_head_size) ** -0.5)  # noqa: B010 - no attribute of nn.Module


def run_window_layer(
    layer: nn.Module,
    hidden: torch.Tensor,
    grid: tuple[int, int],
    side: int,
    shift: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    """One layer of a stage.

    Queries, keys and values are linears of the LayerNorm's output itself, since only then it can be folded
    into them and equalized with them; windows are cut out of what they give.

    Args:
        layer: with `layernorm_before`, `attention`, `layernorm_after`, `intermediate`, `output`; the
            attention's `scale` as `set_scale_` sets it.
        hidden: float [B, tokens, width].
        grid: rows and columns of tokens, which are multiples of `side`.
        side: of the windows.
        shift: by how many tokens the grid is rolled.
        mask: of a rolled grid, as `shifted_mask` makes it.
    """
    attended = _attend(layer, cast(nn.Module, layer.layernorm_before)(hidden), grid, side, shift, mask)
    hidden = hidden + cast(nn.Module, layer.drop_path)(attended)
    expanded = cast(nn.Module, layer.intermediate)(cast(nn.Module, layer.layernorm_after)(hidden))
    found: torch.Tensor = hidden + cast(nn.Module, layer.output)(expanded)
    return found


def merge_tokens(merging: nn.Module, hidden: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Four neighbours become one token, [B, rows * columns, width] -> [B, rows * columns / 4, 2 * width].

    Args:
        merging: with `norm` and `reduction`.
        hidden: the tokens.
        grid: rows and columns, even numbers.
    """
    (rows, columns), width = grid, hidden.shape[-1]
    near = hidden.view(-1, rows // 2, 2, columns // 2, 2, width).permute(0, 1, 3, 4, 2, 5)
    four = near.reshape(-1, rows * columns // 4, 4 * width)
    return cast(torch.Tensor, cast(nn.Module, merging.reduction)(cast(nn.Module, merging.norm)(four)))


def _attend(
    layer: nn.Module,
    hidden: torch.Tensor,
    grid: tuple[int, int],
    side: int,
    shift: int,
    mask: torch.Tensor | None,
) -> torch.Tensor:
    attention = layer.get_submodule("attention.self")
    size = cast(int, attention.attention_head_size)
    queries, keys, values = (
        _heads(_windows(attention.get_submodule(name)(hidden), grid, side, shift), size)
        for name in ("query", "key", "value")
    )
    scores = queries @ keys.transpose(-1, -2)
    if attention.scale != 1.0:  # else it is in the queries' weights
        scores = scores * cast(float, attention.scale)
    table = attention.get_parameter("relative_position_bias_table")
    places = attention.get_buffer("relative_position_index").reshape(-1)
    bias = table[places].view(side * side, side * side, -1).permute(2, 0, 1)  # [heads, T, T]
    scores = scores + bias[None]
    if mask is not None:
        batch = len(hidden)
        scores = scores + (mask if batch == 1 else mask.repeat(batch, 1, 1, 1))
    shares = cast(nn.Module, attention.dropout)(scores.softmax(-1))
    found = (shares @ values).transpose(1, 2).flatten(2)  # [B * windows, T, width]
    joined = layer.get_submodule("attention.output.dense")(_joined(found, grid, side, shift))
    return cast(torch.Tensor, layer.get_submodule("attention.output.dropout")(joined))


def _heads(hidden: torch.Tensor, size: int) -> torch.Tensor:
    """[N, T, width] -> [N, heads, T, size]."""
    count, tokens, width = hidden.shape
    return hidden.view(count, tokens, width // size, size).transpose(1, 2)


def _windows(hidden: torch.Tensor, grid: tuple[int, int], side: int, shift: int) -> torch.Tensor:
    """[B, rows * columns, width] -> [B * windows, side * side, width], of the rolled grid."""
    rows, columns = grid
    width = hidden.shape[-1]
    laid = hidden.view(-1, rows, columns, width)
    if shift:
        laid = torch.roll(laid, (-shift, -shift), (1, 2))
    cut = laid.view(-1, rows // side, side, columns // side, side, width)
    return cut.transpose(2, 3).reshape(-1, side * side, width)


def _joined(windows: torch.Tensor, grid: tuple[int, int], side: int, shift: int) -> torch.Tensor:
    """The way back."""
    rows, columns = grid
    width = windows.shape[-1]
    cut = windows.view(-1, rows // side, columns // side, side, side, width)
    laid = cut.transpose(2, 3).reshape(-1, rows, columns, width)
    if shift:
        laid = torch.roll(laid, (shift, shift), (1, 2))
    return laid.reshape(-1, rows * columns, width)
