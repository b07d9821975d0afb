"""Losses with which a quantized model learns to answer as the float model does."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pocketvl.train.loop import Losses

_TINY = 1e-12


def tower_losses(student: torch.Tensor, teacher: torch.Tensor) -> Losses:
    """How far a tower's embeddings are from the float tower's.

    Args:
        student: float [B, D].
        teacher: float [B, D]; B is 2 or more.

    Returns:
        "cosine": the mean of 1 - cosine. "centred": the squared distance of embeddings whose batch's mean is
        taken off, relative to the teacher's squares: embeddings of one tower have much in common, and what
        they are used for is in the rest.
    """
    cosine = 1 - F.cosine_similarity(student, teacher, dim=-1).mean()
    wanted = teacher - teacher.mean(0)
    apart = (student - student.mean(0) - wanted).square().sum()
    return {"cosine": cosine, "centred": apart / wanted.square().sum().clamp(min=_TINY)}


def affinity_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    logit_scale: float,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(teacher || student) of the softmaxes over texts for each picture, and over pictures for each text.

    Args:
        student: image embeddings float [B, D] and text embeddings float [M, D], L2-normalised.
        teacher: the same of the float model.
        logit_scale: what a cosine is multiplied by.
        temperature: divides the logits; the loss is multiplied by its square, so that gradients keep
            their size.

    Source: Wu et al., 2023, "TinyCLIP" (arXiv 2309.12314), affinity mimicking; the square, Hinton et
    al., 2015 (arXiv 1503.02531), section 2.
    """
    found, wanted = (logit_scale / temperature * (images @ texts.T) for images, texts in (student, teacher))
    ways = [(found, wanted), (found.T, wanted.T)]
    losses = [
        F.kl_div(a.log_softmax(-1), b.log_softmax(-1), reduction="batchmean", log_target=True)
        for a, b in ways
    ]
    return temperature**2 * (losses[0] + losses[1]) / 2
