"""Folding LayerNorms changes weights and nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pocketvl.families import open_source
from pocketvl.quantize.fold import fold_layer_norms_
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
    source = open_source(make_tiny_clip(tmp_path / "clip"))
    module = source.image_encoder if tower == "pixels" else source.text_encoder
    data = torch.from_numpy(np.concatenate([feed[tower] for feed in samples(tower, 8, 3)]))
    with torch.no_grad():
        expected = module(data)
        folded = fold_layer_norms_(module, data[:1])
        assert torch.allclose(module(data), expected, atol=1e-5)
    assert len(folded) >= 4  # two in each of two layers
