"""Low-rank factorisation of linears: y = W x + b becomes y = U (V x) + b, where that is smaller.

Plain: the truncated SVD, the best approximation of the weights. Activation-aware: the best approximation of
what comes out for the inputs that calibration saw, by way of a whitening matrix S with S S^T = E[x x^T]: the
SVD is that of W S, and S^-1 goes into V.

Source: Wang et al., 2024, "SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
Compression", arXiv 2403.07378, section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from pocketvl.errors import RecipeError
from pocketvl.settings import Share
from pocketvl.train.method import ComponentwiseMethod, MethodInputs, Trait

if TYPE_CHECKING:
    import torch
    from torch import nn

    from pocketvl.families.checkpoint import Checkpoint

_DAMPING = 1e-6
"""Least strength of a direction, in parts of the inputs' mean square: what never varies has no inverse."""


@dataclass(frozen=True)
class LowRank(ComponentwiseMethod):
    """Replaces linears inside layers by two of a lower rank, where that saves weights.

    Attributes:
        energy: part of the squared singular values that is kept, layer by layer; or
        ratio: part of each linear's weights that goes.
        whitened: weigh errors by the inputs that data gives, and not all weights alike.
    """

    kind: ClassVar[str] = "low-rank"
    makes: ClassVar[frozenset[Trait]] = frozenset({Trait.FACTORIZED})
    refuses: ClassVar[Mapping[Trait, str]] = {
        Trait.SPARSE: "sparsify comes before low-rank, which would fill the zeros: leave one of them out"
    }

    energy: Share | None = None
    ratio: Share | None = None
    whitened: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.energy is None) == (self.ratio is None):
            raise RecipeError("say either energy or ratio")

    def title(self, fraction: float) -> str:
        return "factorise linears"

    def apply(self, checkpoint: Checkpoint, inputs: MethodInputs) -> dict[str, object]:
        from pocketvl.compress.gradients import second_moments
        from pocketvl.compress.shrink import layer_linears, linear

        done: dict[str, object] = {}
        for component in self.changed(checkpoint):
            names = layer_linears(checkpoint, component)
            moments = second_moments(checkpoint, inputs.data, component) if self.whitened else {}
            for index, name in enumerate(names):
                child = linear(checkpoint.model, name)
                factors = factorise(child.weight, moments.get(name))
                rank, full = self._rank(factors, child), min(child.in_features, child.out_features)
                done[name] = [rank if factorise_(checkpoint.model, name, factors, rank) else full, full]
                inputs.progress(index + 1, len(names), "factorising")
        return done

    def _rank(self, factors: Factors, child: nn.Linear) -> int:
        if self.energy is not None:
            return factors.rank_for_energy(self.energy)
        assert self.ratio is not None
        weights = child.in_features * child.out_features
        return max(1, int((1 - self.ratio) * weights / (child.in_features + child.out_features)))


@dataclass(frozen=True, eq=False)
class Factors:
    """Singular values of a linear's weights, or of what comes out of it, and what they belong to.

    Attributes:
        left: float64 [outputs, n].
        values: float64 [n], descending.
        right: float64 [n, inputs].
    """

    left: NDArray[np.float64]
    values: NDArray[np.float64]
    right: NDArray[np.float64]

    def rank_for_energy(self, energy: float) -> int:
        """The least rank that keeps this part of the sum of squared singular values.

        Raises:
            RecipeError: the part is not above 0 and at most 1.
        """
        if not 0 < energy <= 1:
            raise RecipeError(f"energy must be above 0 and at most 1, not {energy}")
        squares = np.square(self.values)
        if squares.sum() == 0:
            return 1
        kept = np.cumsum(squares) / squares.sum()
        return min(int(np.searchsorted(kept, energy - 1e-12) + 1), len(squares))

    def at_rank(self, rank: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """U [outputs, rank] and V [rank, inputs], the singular values shared out evenly between them.

        Raises:
            RecipeError: there is no such rank.
        """
        if not 1 <= rank <= len(self.values):
            raise RecipeError(f"rank must be 1 to {len(self.values)}, not {rank}")
        roots = np.sqrt(self.values[:rank])
        return self.left[:, :rank] * roots, roots[:, None] * self.right[:rank]


def factorise(weight: torch.Tensor, second_moment: NDArray[np.floating] | None = None) -> Factors:
    """The singular value decomposition of a linear's weights, whitened by its inputs where these are given.

    Args:
        weight: [outputs, inputs].
        second_moment: [inputs, inputs], the mean of x x^T over what goes in.
    """
    values = weight.detach().double().numpy()
    if second_moment is None:
        left, singular, right = np.linalg.svd(values, full_matrices=False)
        return Factors(left, singular, right)
    moment = np.asarray(second_moment, np.float64)
    strengths, directions = np.linalg.eigh(moment)
    least = max(_DAMPING * float(np.diag(moment).mean()), 1e-30)
    roots = np.sqrt(np.maximum(strengths, least))  # S = directions * roots
    left, singular, whitened = np.linalg.svd(values @ (directions * roots), full_matrices=False)
    return Factors(left, singular, (whitened / roots) @ directions.T)


def saves(inputs: int, outputs: int, rank: int) -> bool:
    """Whether two linears of this rank have fewer weights than the one."""
    return rank * (inputs + outputs) < inputs * outputs


def factorise_(module: nn.Module, name: str, factors: Factors, rank: int) -> bool:
    """Replace a linear by two of a lower rank, where that saves weights.

    Args:
        module: changed in place, if at all.
        name: of the linear; it becomes an `nn.Sequential` of two, the second with its bias.
        factors: of its weights.
        rank: of what stands in its place.

    Returns:
        Whether it was done.
    """
    import torch
    from torch import nn

    from pocketvl.compress.shrink import linear, linear_with

    child = linear(module, name)
    if not saves(child.in_features, child.out_features, rank):
        return False
    left, right = (torch.from_numpy(each).to(child.weight.dtype) for each in factors.at_rank(rank))
    bias = None if child.bias is None else child.bias.detach()
    first, second = linear_with(right, None, child), linear_with(left, bias, child)
    module.set_submodule(name, nn.Sequential(first, second).train(child.training))
    return True
