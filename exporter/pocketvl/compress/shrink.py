"""Taking inputs or outputs out of a linear, so that it is smaller and not just emptier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pocketvl.errors import RecipeError
from pocketvl.families.checkpoint import Checkpoint
from pocketvl.families.layers.compression import shape_of


def linear(module: nn.Module, name: str) -> nn.Linear:
    """The linear of that name.

    Raises:
        RecipeError: it is something else; a factorised one, for example, can no longer be pruned.
    """
    child = module.get_submodule(name)
    if not isinstance(child, nn.Linear):
        raise RecipeError(f"{name} is {type(child).__name__}, not a linear; prune before factorising")
    return child


def layer_linears(checkpoint: Checkpoint, component: str) -> list[str]:
    """Names of the whole linears inside a component's layers, without projections and factorised ones."""
    prefix = checkpoint.stack(component).name
    return [
        name
        for name, child in checkpoint.model.named_modules()
        if name.startswith(f"{prefix}.")
        and isinstance(child, nn.Linear)
        and shape_of(checkpoint.model.get_submodule(name.rpartition(".")[0])) is None
    ]


def prune_outputs_(module: nn.Module, name: str, keep: Sequence[int]) -> None:
    """Remove all outputs of a linear but these, and order them so."""
    child, rows = linear(module, name), torch.tensor(keep, dtype=torch.long)
    bias = None if child.bias is None else child.bias.detach()[rows]
    module.set_submodule(name, linear_with(child.weight.detach()[rows], bias, child))


def prune_inputs_(
    module: nn.Module, name: str, keep: Sequence[int], means: torch.Tensor | None = None
) -> None:
    """Remove all inputs of a linear but these, and order them so.

    Args:
        module: holds the linear; changed in place.
        name: of the linear.
        keep: indices of the inputs to keep.
        means: [inputs], the mean of each input: those of the removed ones go into the bias, if any.
    """
    child, columns = linear(module, name), torch.tensor(keep, dtype=torch.long)
    weight = child.weight.detach()
    bias = None if child.bias is None else child.bias.detach().clone()
    if bias is not None and means is not None:
        gone = torch.ones(child.in_features, dtype=torch.bool)
        gone[columns] = False
        bias += (weight[:, gone].double() @ means.double()[gone]).to(bias.dtype)
    module.set_submodule(name, linear_with(weight[:, columns], bias, child))


def check_keep(keep: Sequence[int], count: int, what: str) -> None:
    """Raise RecipeError unless `keep` are indices below `count`, at least one, each once and in order."""
    if not keep:
        raise RecipeError(f"all {count} {what} would go; at least one has to stay")
    if list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= count:
        raise RecipeError(f"{what}: indices 0 to {count - 1}, each once and in order, not {list(keep)[:8]}")


def linear_with(weight: torch.Tensor, bias: torch.Tensor | None, like: nn.Linear) -> nn.Linear:
    """A linear of copies of these, trained or not as another one is."""
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias is not None, device="meta")
    made.weight = nn.Parameter(weight.clone(), like.weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.clone(), like.weight.requires_grad)
    return made.train(like.training)
