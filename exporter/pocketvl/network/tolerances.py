"""Parity tolerances by precision: how far a variant's outputs may be from torch's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pocketvl_runtime.manifest import Precision


@dataclass(frozen=True)
class ParityLimits:
    """Limits on the difference of embeddings; a limit that is None is not judged.

    Attributes:
        max_abs: largest absolute difference of a component.
        centred_cosine_min: smallest mean-centred cosine of any input.
        centred_cosine_median: median of the mean-centred cosines.
    """

    max_abs: float | None = None
    centred_cosine_min: float | None = None
    centred_cosine_median: float | None = None

    @property
    def by_answers_alone(self) -> bool:
        """Whether there is no limit, so that only measured answers can judge a variant."""
        return self == ParityLimits()


DEFAULT_PARITY: Mapping[Precision, ParityLimits] = MappingProxyType(
    {
        Precision.FP32: ParityLimits(max_abs=1e-4, centred_cosine_min=0.99999),
        Precision.FP16: ParityLimits(centred_cosine_median=0.999),
        Precision.INT8: ParityLimits(centred_cosine_median=0.99),
        Precision.INT8DYN: ParityLimits(centred_cosine_median=0.99),
        Precision.INT4: ParityLimits(),  # embeddings move far while answers may hold
        Precision.INT2: ParityLimits(),
        Precision.MIXED: ParityLimits(),
    }
)
