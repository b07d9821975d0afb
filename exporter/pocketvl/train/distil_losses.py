"""Distillation losses of a student against its teacher."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pocketvl.train.loop import Losses

_TINY = 1e-12


def embedding_losses(student: torch.Tensor, teacher: torch.Tensor) -> Losses:
    """Losses of a component's embeddings against the teacher's.

    Args:
        student: float [B, D].
        teacher: float [B, D]; B is 2 or more.

    Returns:
        "cosine": the mean of 1 - cosine. "centred": the squared distance of embeddings whose batch's mean is
        taken off, relative to the teacher's squares: embeddings of one component have much in common, and
        what they are used for is in the rest.
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
        teacher: the same of the teacher.
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


def sigmoid_affinity_loss(
    student: tuple[torch.Tensor, torch.Tensor],
    teacher: tuple[torch.Tensor, torch.Tensor],
    logit_scale: float,
    logit_bias: float,
    temperature: float = 1.0,
) -> torch.Tensor:
    """KL(teacher || student) of whether each text fits each picture, summed over texts; the mean of pictures.

    Args:
        student: as in `affinity_loss`.
        teacher: the same of the teacher.
        logit_scale: what a cosine is multiplied by.
        logit_bias: is added then.
        temperature: as in `affinity_loss`.

    Source: `affinity_loss`, with the sigmoids of Zhai et al., 2023 (arXiv 2303.15343), in place of softmaxes.
    """
    found, wanted = (
        (logit_scale * (images @ texts.T) + logit_bias) / temperature for images, texts in (student, teacher)
    )
    shares = wanted.sigmoid()
    apart = shares * (F.logsigmoid(wanted) - F.logsigmoid(found))
    apart = apart + (1 - shares) * (F.logsigmoid(-wanted) - F.logsigmoid(-found))
    return temperature**2 * apart.sum() / len(found)


def answer_response_loss(
    student: torch.Tensor, teacher: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """KL(teacher || student) of the softmaxes over answers, the mean over questions.

    Args:
        student: logits, float [B, answers].
        teacher: the same of the teacher.
        temperature: divides the logits; the loss is multiplied by its square, so that gradients keep
            their size.

    Source: Hinton et al., 2015 (arXiv 1503.02531), section 2.
    """
    found, wanted = ((each / temperature).log_softmax(-1) for each in (student, teacher))
    return temperature**2 * F.kl_div(found, wanted, reduction="batchmean", log_target=True)


def relation_losses(student: torch.Tensor, teacher: torch.Tensor) -> Losses:
    """How far the distances and the angles between a batch's samples are from the teacher's.

    Args:
        student: float [B, D].
        teacher: float [B, D']; B is 3 or more.

    Returns:
        "distance": the Huber loss of all pairs' distances, each side's divided by its mean. "angle": that of
        the cosines of all triples' angles.

    Source: Park et al., 2019, "Relational Knowledge Distillation" (arXiv 1904.05068), equations 3 to 8.
    """
    return {
        "distance": F.smooth_l1_loss(_distances(student), _distances(teacher)),
        "angle": F.smooth_l1_loss(_angles(student), _angles(teacher)),
    }


def token_mask(ids: torch.Tensor, pad_id: int) -> torch.Tensor:
    """Which tokens are not padding, bool [B, T].

    They are all to the last one that is not the padding token, and the one after it: where one token both
    ends and pads texts, that one ends the text.

    Args:
        ids: int [B, T].
        pad_id: the padding token.
    """
    indices = torch.arange(ids.shape[1], device=ids.device)
    last = ((ids != pad_id) * indices).amax(1, keepdim=True)
    return indices <= last + 1


def hidden_loss(
    student: tuple[torch.Tensor, ...], teacher: tuple[torch.Tensor, ...], counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Squared distance of hidden states, relative to how much the teacher's vary; the mean over layers.

    Args:
        student: float [B, T, width] for each of the layers that are compared.
        teacher: the same, of the same widths.
        counts: bool [B, T], the tokens that are compared; None: all.

    Source: Romero et al., 2015, "FitNets" (arXiv 1412.6550), equation 3; each layer is divided by its
    variance, for hidden states grow with depth.
    """
    losses = []
    for found, wanted in zip(_counted(student, counts), _counted(teacher, counts), strict=True):
        spread = (wanted - wanted.mean(0)).square().mean().clamp(min=_TINY)
        losses.append((found - wanted).square().mean() / spread)
    return torch.stack(losses).mean()


def attention_loss(
    student: tuple[torch.Tensor, ...], teacher: tuple[torch.Tensor, ...], counts: torch.Tensor | None = None
) -> torch.Tensor:
    """KL(teacher || student) of attention maps, the mean over heads, queries and layers.

    Args:
        student: float [B, T, T] for each of the attentions that are compared: the mean over heads, so that
            the two may have different numbers of them.
        teacher: the same.
        counts: bool [B, T], the queries that are compared; None: all.

    Source: Wang et al., 2020, "MiniLM" (arXiv 2002.10957), equation 2, on means instead of single heads.
    """
    losses = []
    for found, wanted in zip(_counted(student, counts), _counted(teacher, counts), strict=True):
        difference = wanted.clamp(min=_TINY).log() - found.clamp(min=_TINY).log()
        losses.append((wanted * difference).sum(-1).mean())
    return torch.stack(losses).mean()


def _counted(values: tuple[torch.Tensor, ...], counts: torch.Tensor | None) -> list[torch.Tensor]:
    """[B, T, width] each -> [N, width], of the tokens that count."""
    return [each.flatten(0, 1) if counts is None else each[counts] for each in values]


def _distances(rows: torch.Tensor) -> torch.Tensor:
    """Distances [B, B], divided by the mean of those that are not of a sample to itself."""
    squares = (rows[:, None] - rows[None]).square().sum(-1)
    found = squares.clamp(min=_TINY).sqrt() * (1 - torch.eye(len(rows), device=rows.device))
    mean: torch.Tensor = found.sum() / (len(rows) * (len(rows) - 1))
    return found / mean.clamp(min=_TINY)


def _angles(rows: torch.Tensor) -> torch.Tensor:
    """Cosines [B, B, B] of the angle at the second sample, between the first and the third."""
    towards = F.normalize(rows[None] - rows[:, None], dim=-1)  # [B, B, D]
    return torch.einsum("jid,jkd->jik", towards, towards)
