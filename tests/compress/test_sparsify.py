"""The least of the weights go, in a layer, among all, or two of every four, and stay away in training."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pocketvl.compress.methods.sparsify import sparsity_masks, two_four_masks
from pocketvl.compress.settings import Scope
from pocketvl.compress.shrink import linear
from pocketvl.compress.sparsity import hold_masks_, release_masks_
from pocketvl.errors import RecipeError

NAMES = ("small", "large")


@pytest.fixture
def module() -> nn.ModuleDict:
    torch.manual_seed(0)
    made = nn.ModuleDict({"small": nn.Linear(8, 6), "large": nn.Linear(8, 10)})
    with torch.no_grad():
        linear(made, "large").weight.mul_(10)
    return made


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.75])
def test_in_each_layer_that_part_goes_and_the_least_of_it(module: nn.ModuleDict, sparsity: float) -> None:
    for name, mask in sparsity_masks(module, NAMES, sparsity).items():
        weights = linear(module, name).weight.detach().abs()
        assert int((~mask).sum()) == int(sparsity * weights.numel())
        if sparsity:
            assert weights[~mask].max() <= weights[mask].min()


def test_among_all_the_layer_of_small_weights_pays(module: nn.ModuleDict) -> None:
    masks = sparsity_masks(module, NAMES, 0.4, Scope.GLOBAL)
    gone = {name: int((~mask).sum()) for name, mask in masks.items()}
    assert sum(gone.values()) == int(0.4 * 128)
    assert gone["small"] > gone["large"]
    weights = torch.cat([linear(module, name).weight.detach().abs().flatten() for name in NAMES])
    stays = torch.cat([masks[name].flatten() for name in NAMES])
    assert weights[~stays].max() <= weights[stays].min()


def test_two_of_every_four_stay(module: nn.ModuleDict) -> None:
    for name, mask in two_four_masks(module, NAMES).items():
        assert (mask.reshape(-1, 4).sum(1) == 2).all()
        fours = linear(module, name).weight.detach().abs().reshape(-1, 4)
        kept = torch.where(mask.reshape(-1, 4), fours, 0).sum(1)
        torch.testing.assert_close(kept, fours.topk(2, dim=1).values.sum(1))
    with pytest.raises(RecipeError, match="odd has 6 inputs"):
        two_four_masks(nn.ModuleDict({"odd": nn.Linear(6, 2)}), ("odd",))


def test_equal_weights_go_in_order() -> None:
    module = nn.ModuleDict({"same": nn.Linear(4, 1)})
    nn.init.ones_(linear(module, "same").weight)
    assert sparsity_masks(module, ("same",), 0.5)["same"].tolist() == [[False, False, True, True]]
    assert two_four_masks(module, ("same",))["same"].tolist() == [[True, True, False, False]]


def test_what_went_stays_away_while_the_rest_learns(module: nn.ModuleDict) -> None:
    masks = sparsity_masks(module, NAMES, 0.5)
    before = {name: linear(module, name).weight.detach().clone() for name in NAMES}
    hold_masks_(module, masks)
    optimizer = torch.optim.AdamW(module.parameters(), 0.1, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        x = torch.randn(16, 8)
        (module["small"](x).square().mean() + module["large"](x).square().mean()).backward()
        optimizer.step()
    release_masks_(module, masks)
    for name, mask in masks.items():
        weight = linear(module, name).weight
        assert isinstance(weight, nn.Parameter)
        assert (weight[~mask] == 0).all()
        assert (weight[mask] != before[name][mask]).all()
    assert set(module.state_dict()) == {f"{name}.{part}" for name in NAMES for part in ("weight", "bias")}


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5])
def test_such_a_sparsity_there_is_not(module: nn.ModuleDict, sparsity: float) -> None:
    with pytest.raises(RecipeError, match="sparsity"):
        sparsity_masks(module, NAMES, sparsity)
