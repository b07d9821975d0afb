"""Factors approximate best what they are asked to approximate, and stand only where they save."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pocketvl.compress.methods.low_rank import factorise, factorise_
from pocketvl.compress.shrink import linear
from pocketvl.errors import RecipeError


def correlated(count: int, width: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.normal(size=(width, width)) * np.logspace(0, -2, width)[:, None]
    return random.normal(size=(count, width)) @ mixing


@pytest.mark.parametrize("whitened", [False, True])
def test_at_full_rank_nothing_is_lost(whitened: bool) -> None:
    torch.manual_seed(0)
    weight, x = torch.randn(7, 12), correlated(100, 12)
    factors = factorise(weight, x.T @ x / 100 if whitened else None)
    left, right = factors.at_rank(7)
    np.testing.assert_allclose(left @ right, weight.double().numpy(), atol=1e-8)
    assert (np.diff(factors.values) <= 0).all()


def test_plain_factors_are_best_for_weights_and_whitened_ones_for_outputs() -> None:
    torch.manual_seed(1)
    weight, x = torch.randn(24, 16), correlated(500, 16)
    true = weight.double().numpy()
    plain, whitened = factorise(weight), factorise(weight, x.T @ x / 500)
    for rank in (2, 5, 9):
        products = {name: np.matmul(*each.at_rank(rank)) for name, each in (("p", plain), ("w", whitened))}
        in_weights = {name: np.square(each - true).sum() for name, each in products.items()}
        in_outputs = {name: np.square(x @ (each - true).T).sum() for name, each in products.items()}
        assert in_weights["p"] < in_weights["w"]
        assert in_outputs["w"] < 0.5 * in_outputs["p"]
        # what is lost is the energy of the singular values that went
        assert in_outputs["w"] / 500 == pytest.approx(np.square(whitened.values[rank:]).sum(), rel=1e-3)


def test_inputs_that_never_vary_do_no_harm() -> None:
    torch.manual_seed(2)
    weight, x = torch.randn(6, 5), correlated(50, 5)
    x[:, [1, 3]] = 0
    left, right = factorise(weight, x.T @ x / 50).at_rank(3)
    assert np.isfinite(left @ right).all()
    lost = x @ (left @ right - weight.double().numpy()).T
    assert np.square(lost).sum() < 1e-6 * np.square(x @ weight.double().numpy().T).sum()


@given(st.floats(0.01, 1.0), st.integers(0, 10_000))
@settings(deadline=None, max_examples=50)
def test_the_rank_for_an_energy_is_the_least_that_keeps_it(energy: float, seed: int) -> None:
    weight = torch.from_numpy(np.random.default_rng(seed).normal(size=(6, 9)))
    factors = factorise(weight)
    rank, squares = factors.rank_for_energy(energy), np.square(factors.values)
    assert squares[:rank].sum() >= (energy - 1e-9) * squares.sum()
    assert rank == 1 or squares[: rank - 1].sum() < energy * squares.sum()


@pytest.mark.parametrize("has_bias", [True, False])
def test_two_linears_answer_like_one(has_bias: bool) -> None:
    torch.manual_seed(3)
    first, second = torch.randn(4, 20), torch.randn(32, 4)
    module = nn.ModuleDict({"wide": nn.Linear(20, 32, bias=has_bias).requires_grad_(False)})
    linear(module, "wide").weight.copy_(second @ first)  # of rank 4
    x = torch.randn(10, 20)
    expected = module["wide"](x)
    factors = factorise(linear(module, "wide").weight)
    assert factors.rank_for_energy(0.999999) == 4
    assert factorise_(module, "wide", factors, 4)
    torch.testing.assert_close(module["wide"](x), expected, rtol=1e-4, atol=1e-4)
    shapes = [tuple(linear(module["wide"], place).weight.shape) for place in ("0", "1")]
    assert shapes == [(4, 20), (32, 4)]
    assert not any(parameter.requires_grad for parameter in module.parameters())
    with pytest.raises(RecipeError, match="not a linear"):
        factorise_(module, "wide", factors, 4)


def test_where_nothing_is_saved_nothing_is_done() -> None:
    module = nn.ModuleDict({"one": nn.Linear(8, 8)})
    assert not factorise_(module, "one", factorise(linear(module, "one").weight), 4)
    assert isinstance(module["one"], nn.Linear)


@pytest.mark.parametrize(
    ("method", "value"), [("rank_for_energy", 0.0), ("rank_for_energy", 1.1), ("at_rank", 0), ("at_rank", 9)]
)
def test_what_makes_no_sense_is_said(method: str, value: float) -> None:
    with pytest.raises(RecipeError, match="must be"):
        getattr(factorise(torch.eye(8)), method)(value)
