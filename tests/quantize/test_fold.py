"""Folding LayerNorms changes weights and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families import open_checkpoint
from pocketvl.quantize.fold import NormReaders, fold_layer_norms_, norm_readers
from tests.families.tiny import make_tiny_clip
from tests.lower.lowered import TOWERS, samples


class Normed(nn.Module):
    def __init__(self, residual: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.one, self.two = nn.Linear(6, 4, bias=False), nn.Linear(6, 4)
        self.residual = residual
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        normed = self.norm(x)
        y: torch.Tensor = self.one(normed) * self.two(normed)
        return y + normed[:, :4] if self.residual else y


def test_a_norm_that_only_linears_read_is_folded_into_each() -> None:
    module, x = Normed(residual=False).eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_layer_norms_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)
    assert (module.norm.weight == 1).all()
    assert (module.norm.bias == 0).all()
    assert module.one.bias is not None


def test_a_norm_that_something_else_reads_stays() -> None:
    module, x = Normed(residual=True).eval(), torch.ones(3, 6)
    before = module.norm.weight.clone()
    assert fold_layer_norms_(module, x) == ()
    assert torch.equal(module.norm.weight, before)


@pytest.mark.parametrize("tower", TOWERS)
def test_a_clip_tower_computes_the_same(tower: str, tmp_path: Path) -> None:
    source = open_checkpoint(make_tiny_clip(tmp_path / "clip"))
    module = source.tower("image_encoder") if tower == "pixels" else source.tower("text_encoder")
    data = torch.from_numpy(np.concatenate([feed[tower] for feed in samples(tower, 8, 3)]))
    with torch.no_grad():
        expected = module(data)
        folded = fold_layer_norms_(module, data[:1])
        assert torch.allclose(module(data), expected, atol=1e-5)
    assert len(folded) >= 4  # two in each of two layers


class Calls(nn.Module):
    """One LayerNorm called twice, two linears that may share their weights, and what else is asked for."""

    def __init__(self, tied: bool = False, borrowed: bool = False, second_input: bool = False) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(1)
        self.norm = nn.LayerNorm(6)
        self.one, self.two = nn.Linear(6, 6, bias=False), nn.Linear(6, 6)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=random))
        if tied:
            self.two.weight = self.one.weight
        self.borrowed, self.second_input = borrowed, second_input

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.one(self.norm(x)) + self.two(self.norm(x + 1))
        if self.borrowed:
            y = y + nn.functional.linear(x, self.one.weight)
        return self.two(y) if self.second_input else y


def test_a_norm_called_twice_is_folded_once() -> None:
    module, x = Calls().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_layer_norms_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)


@pytest.mark.parametrize("trouble", ["tied", "borrowed", "second_input"])
def test_a_norm_whose_readers_weights_serve_elsewhere_stays(trouble: str) -> None:
    module, x = Calls(**{trouble: True}).eval(), torch.ones(3, 6)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert fold_layer_norms_(module, x) == ()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_norm_without_a_shift_is_folded() -> None:
    module, x = Normed(residual=False).eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    module.norm.bias = None  # type: ignore[assignment]  # as LayerNorm(6, bias=False) has it
    with torch.no_grad():
        expected = module(x)
        assert fold_layer_norms_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)


def test_readers_are_named_in_the_order_of_the_graph() -> None:
    assert norm_readers(Normed(residual=False).eval(), torch.ones(3, 6)) == (
        NormReaders("norm", ("one", "two")),
    )


class Factorised(nn.Module):
    """A LayerNorm read by a linear that has become two of a lower rank."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.pair = nn.Sequential(nn.Linear(6, 2, bias=False), nn.Linear(2, 5))
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.pair(self.norm(x))
        return y


def test_of_two_factors_the_second_takes_the_shift() -> None:
    module, x = Factorised().eval(), torch.randn(3, 6, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = module(x)
        assert fold_layer_norms_(module, x) == ("norm",)
        assert torch.allclose(module(x), expected, atol=1e-5)
    assert module.pair[0].bias is None
