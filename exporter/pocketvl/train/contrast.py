"""Contrastive losses of pictures and texts."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def contrastive_loss(
    image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, groups: torch.Tensor | None = None
) -> torch.Tensor:
    """Symmetric InfoNCE over the batch, with each picture's hard negatives among its wrong texts.

    Args:
        image: float [B, D], L2-normalised.
        texts: float [B, 1 + K, D], L2-normalised: the true text of each picture, then K false ones.
        scale: factor on the similarities, the inverse of the temperature.
        groups: int64 [B], equal where true texts are equal: each is true of all pictures of its group, and
            their shares of the target are equal. None: no two are.

    Source: Radford et al. 2021 (arXiv 2103.00020); hard negatives among the texts, Yuksekgonul et al. 2023
    (arXiv 2210.01936); several true texts, Yang et al. 2022, "UniCL" (arXiv 2204.03610), equations 2 to 4.
    """
    target = torch.arange(len(image), device=image.device)
    among = image @ texts[:, 0].T  # [B, B]
    hard = torch.einsum("bd,bkd->bk", image, texts[:, 1:])
    if groups is not None:
        fits = _fits(groups).to(among)
        shares = fits / fits.sum(dim=1, keepdim=True)  # symmetric: rows of a group are equal
        to_text = F.cross_entropy(
            scale * torch.cat([among, hard], dim=1), torch.cat([shares, torch.zeros_like(hard)], dim=1)
        )
        return (to_text + F.cross_entropy(scale * among.T, shares)) / 2
    to_text = F.cross_entropy(scale * torch.cat([among, hard], dim=1), target)
    to_image = F.cross_entropy(scale * among.T, target)
    return (to_text + to_image) / 2


def sigmoid_loss(
    image: torch.Tensor,
    texts: torch.Tensor,
    scale: torch.Tensor,
    bias: float,
    groups: torch.Tensor | None = None,
) -> torch.Tensor:
    """Binary cross-entropy of every pair in the batch and of the hard negatives, summed over texts.

    Args:
        image: float [B, D], L2-normalised.
        texts: as in `contrastive_loss`.
        scale: factor on the similarities.
        bias: is added then.
        groups: as in `contrastive_loss`; a pair of one group fits.

    Source: Zhai et al. 2023 (arXiv 2303.15343), equation 1 and algorithm 1.
    """
    among = scale * (image @ texts[:, 0].T) + bias  # [B, B]
    hard = scale * torch.einsum("bd,bkd->bk", image, texts[:, 1:]) + bias
    fits = torch.eye(len(image), device=image.device) if groups is None else _fits(groups).to(among)
    signs = 2 * fits - 1
    return (F.softplus(-signs * among).sum() + F.softplus(hard).sum()) / len(image)


def pairwise_loss(image: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """The true text against each of its hard negatives, one at a time; arguments as in `contrastive_loss`."""
    similarity = torch.einsum("bd,bkd->bk", image, texts)
    return F.softplus(scale * (similarity[:, 1:] - similarity[:, :1])).mean()


def _fits(groups: torch.Tensor) -> torch.Tensor:
    """Which text is true of which picture, bool [B, B]."""
    return groups[:, None] == groups[None]
