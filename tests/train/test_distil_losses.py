"""Losses of distillation are those of their sources."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pocketvl.train.distil_losses import (
    answer_response_loss,
    attention_loss,
    hidden_loss,
    relation_losses,
    token_mask,
)


def test_relations_do_not_care_where_and_how_large_but_how_they_lie() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(7, 5, generator=generator)
    turned, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    same = relation_losses(3 * rows @ turned + 1, rows)
    assert max(float(loss) for loss in same.values()) < 1e-6
    other = relation_losses(torch.randn(7, 5, generator=generator), rows)
    assert min(float(loss) for loss in other.values()) > 1e-2


def test_hidden_and_attention_losses_are_those_of_their_sources() -> None:
    generator = torch.Generator().manual_seed(1)
    wanted = 5 * torch.randn(4, 3, 6, generator=generator)
    assert hidden_loss((wanted,), (wanted,)) == 0
    assert hidden_loss((wanted.mean((0, 1)).expand(4, 3, 6),), (wanted,)) == pytest.approx(1.0)
    ids = torch.tensor([[7, 9, 9], [7, 5, 9], [7, 5, 5], [5, 7, 9]])  # 9 ends a text, and pads it
    counts = token_mask(ids, 9)
    assert counts.tolist() == [[True, True, False], [True] * 3, [True] * 3, [True] * 3]
    filled = wanted.clone()
    filled[0, 2] = 100.0
    assert hidden_loss((filled,), (wanted,), counts) == 0
    assert hidden_loss((filled,), (wanted,)) > 1
    wrong = wanted.clone()
    wrong[0, 1] = 100.0
    assert hidden_loss((wrong,), (wanted,), counts) > 1
    maps = torch.softmax(torch.randn(2, 3, 3, generator=generator), -1)
    others = maps.clone()
    others[0, 2] = 1 / 3
    assert float(attention_loss((others,), (maps,), counts[:2])) == pytest.approx(0, abs=1e-7)
    assert float(attention_loss((others,), (maps,))) > 1e-3
    assert float(attention_loss((maps,), (maps,))) == pytest.approx(0, abs=1e-7)
    uniform = torch.full_like(maps, 1 / 3)
    entropy = -(maps * maps.log()).sum(-1).mean()
    assert float(attention_loss((uniform,), (maps,))) == pytest.approx(float(np.log(3) - entropy), rel=1e-4)


def test_the_response_is_the_divergence_of_softened_answers() -> None:
    student, teacher = torch.tensor([[0.0, 2.0], [1.0, 1.0]]), torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    p, q = (F.softmax(each / 2, dim=-1) for each in (teacher, student))
    assert answer_response_loss(student, teacher, 2).item() == pytest.approx(
        4 * (p * (p / q).log()).sum(-1).mean().item(), rel=1e-5
    )
    assert answer_response_loss(teacher, teacher).item() == pytest.approx(0, abs=1e-6)
