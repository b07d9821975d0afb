"""Taking inputs or outputs out of a linear, so that it is smaller and not just emptier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from pocketvl.errors import RecipeError


def linear(module: nn.Module, name: str) -> nn.Linear:
    """The linear of that name.

    Raises:
        RecipeError: it is something else; a factorised one, for example, can no longer be pruned.
    """
    child = module.get_submodule(name)
    if not isinstance(child, nn.Linear):
        raise RecipeError(f"{name} is {type(child).__name__}, not a linear; prune before factorising")
    return child


def keep_outputs_(module: nn.Module, name: str, kept: Sequence[int]) -> None:
    """Leaves a linear these outputs, in this order."""
    child, rows = linear(module, name), torch.tensor(kept, dtype=torch.long)
    bias = None if child.bias is None else child.bias.detach()[rows]
    module.set_submodule(name, linear_with(child.weight.detach()[rows], bias, child))


def keep_inputs_(
    module: nn.Module, name: str, kept: Sequence[int], means: torch.Tensor | None = None
) -> None:
    """Leaves a linear these inputs, in this order.

    Args:
        module: holds the linear; changed in place.
        name: of the linear.
        kept: places of the inputs that stay.
        means: [inputs], what each input is on average: what is taken away goes on as a constant, where the
            linear has a bias.
    """
    child, columns = linear(module, name), torch.tensor(kept, dtype=torch.long)
    weight = child.weight.detach()
    bias = None if child.bias is None else child.bias.detach().clone()
    if bias is not None and means is not None:
        gone = torch.ones(child.in_features, dtype=torch.bool)
        gone[columns] = False
        bias += (weight[:, gone].double() @ means.double()[gone]).to(bias.dtype)
    module.set_submodule(name, linear_with(weight[:, columns], bias, child))


def check_kept(kept: Sequence[int], count: int, what: str) -> None:
    """Raises RecipeError unless `kept` are places below `count`, at least one, each once and in order."""
    if not kept:
        raise RecipeError(f"all {count} {what} would go; at least one has to stay")
    if list(kept) != sorted(set(kept)) or kept[0] < 0 or kept[-1] >= count:
        raise RecipeError(f"{what}: places 0 to {count - 1}, each once and in order, not {list(kept)[:8]}")


def linear_with(weight: torch.Tensor, bias: torch.Tensor | None, like: nn.Linear) -> nn.Linear:
    """A linear of copies of these, trained or not as another one is."""
    outputs, inputs = weight.shape
    made = nn.Linear(inputs, outputs, bias is not None, device="meta")
    made.weight = nn.Parameter(weight.clone(), like.weight.requires_grad)
    if bias is not None:
        made.bias = nn.Parameter(bias.clone(), like.weight.requires_grad)
    return made.train(like.training)
