"""The losses of a head that answers every pair by itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from pocketvl.train.contrast import sigmoid_loss
from pocketvl.train.distil_losses import sigmoid_affinity_loss


def rows(*shape: int, seed: int) -> torch.Tensor:
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return F.normalize(drawn, dim=-1)


def test_without_hard_negatives_it_is_the_loss_of_transformers() -> None:
    from transformers import SiglipConfig, SiglipModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision, text = {**small, "image_size": 8, "patch_size": 4}, {**small, "vocab_size": 20}
    model = SiglipModel(SiglipConfig(vision_config=vision, text_config=text)).train(False)
    with torch.no_grad():
        model.logit_scale.fill_(1.5)
        model.logit_bias.fill_(-2.0)
        ids, pixels = torch.randint(0, 20, (5, 64)), torch.randn(5, 3, 8, 8)
        wanted = model(input_ids=ids, pixel_values=pixels, return_loss=True)
    found = sigmoid_loss(wanted.image_embeds, wanted.text_embeds[:, None], torch.tensor(1.5).exp(), -2.0)
    assert float(found) == pytest.approx(float(wanted.loss), rel=1e-5)


def test_hard_negatives_are_texts_that_do_not_fit() -> None:
    image, texts = rows(4, 6, seed=1), rows(4, 3, 6, seed=2)
    scale = torch.tensor(7.0)
    logits = 7 * torch.einsum("bd,bkd->bk", image, texts[:, 1:]) - 1
    added = sigmoid_loss(image, texts, scale, -1.0) - sigmoid_loss(image, texts[:, :1], scale, -1.0)
    assert float(added) == pytest.approx(float(-F.logsigmoid(-logits).sum() / 4), rel=1e-5)


def test_distillation_is_the_divergence_of_each_pairs_two_answers() -> None:
    student, teacher = ((rows(2, 4, seed=s), rows(3, 4, seed=s + 1)) for s in (0, 5))
    found, wanted = (((5 * a @ b.T - 1) / 2).sigmoid().double() for a, b in (student, teacher))
    apart = wanted * (wanted / found).log() + (1 - wanted) * ((1 - wanted) / (1 - found)).log()
    expected = 4 * float(apart.sum(1).mean())
    assert float(sigmoid_affinity_loss(student, teacher, 5.0, -1.0, 2.0)) == pytest.approx(expected, rel=1e-4)
    assert float(sigmoid_affinity_loss(teacher, teacher, 5.0, -1.0)) == pytest.approx(0, abs=1e-6)
