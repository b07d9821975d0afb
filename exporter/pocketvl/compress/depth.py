"""Pruning whole layers of a transformer.

Source: block influence, Men et al., 2024, "ShortGPT: Layers in Large Language Models are More Redundant Than
You Expect" (arXiv 2403.03853), section 3: a layer whose output points where its input did changes little.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from pocketvl.compress.costs import Example
from pocketvl.compress.shrink import check_kept
from pocketvl.errors import DataError


def layer_influence(module: nn.Module, layers: nn.ModuleList, feeds: Iterable[Example]) -> torch.Tensor:
    """What each layer does: 1 - the mean cosine of its input and its output, over samples and positions.

    Args:
        module: in eval mode; runs the layers.
        layers: hidden states in, hidden states out.
        feeds: inputs of the module, each one tensor or all of them.

    Returns:
        float64 [layers].

    Raises:
        DataError: there are no samples.
    """
    sums = torch.zeros(len(layers), dtype=torch.float64)
    count = 0

    def watch(place: int) -> Any:
        def after(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            found = output[0] if isinstance(output, tuple) else output
            sums[place] += F.cosine_similarity(before.double(), found.double(), dim=-1).mean(-1).sum()

        return after

    with ExitStack() as stack, torch.no_grad():
        for place, layer in enumerate(layers):
            stack.callback(layer.register_forward_hook(watch(place), with_kwargs=True).remove)
        for feed in feeds:
            inputs = feed if isinstance(feed, tuple) else (feed,)
            module(*inputs)
            count += len(inputs[0])
    if count == 0:
        raise DataError("no samples to measure the layers' influence on")
    return 1 - sums / count


def keep_layers_(owner: nn.Module, name: str, kept: list[int]) -> None:
    """Removes all layers but these.

    Args:
        owner: holds the layers; changed in place.
        name: of its ModuleList.
        kept: places of those that stay, ascending.

    Raises:
        RecipeError: none would be left, or there is no such layer.
    """
    layers = owner.get_submodule(name)
    assert isinstance(layers, nn.ModuleList)
    check_kept(kept, len(layers), f"layers of {name}")
    owner.set_submodule(name, nn.ModuleList(layers[place] for place in kept))
