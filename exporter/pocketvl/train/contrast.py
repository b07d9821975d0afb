"""Contrastive losses of pictures and texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def contrastive_loss(image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """Symmetric InfoNCE over the batch, with each picture's hard negatives among its wrong texts.

    Args:
        image: float [B, D], L2-normalised.
        texts: float [B, 1 + K, D], L2-normalised: the true text of each picture, then K false ones.
        scale: factor on the similarities, the inverse of the temperature.

    Source: Radford et al. 2021 (arXiv 2103.00020); hard negatives among the texts, Yuksekgonul et al. 2023
    (arXiv 2210.01936).
    """
    target = torch.arange(len(image), device=image.device)
    among = image @ texts[:, 0].T  # [B, B]
    hard = torch.einsum("bd,bkd->bk", image, texts[:, 1:])
    to_text = F.cross_entropy(scale * torch.cat([among, hard], dim=1), target)
    to_image = F.cross_entropy(scale * among.T, target)
    return (to_text + to_image) / 2


def pairwise_loss(image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The true text against each of its hard negatives, one at a time; arguments as in `contrastive_loss`."""
    similarity = torch.einsum("bd,bkd->bk", image, texts)
    return F.softplus(scale * (similarity[:, 1:] - similarity[:, :1])).mean()
