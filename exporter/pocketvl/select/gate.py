"""The gate: a variant ships only if its answers are the reference's, within a stated allowance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from pocketvl.errors import RecipeError
from pocketvl.evaluate.parity import ParityReport
from pocketvl.evaluate.report import GateResult, Report, VariantReport
from pocketvl.evaluate.tasks import Metric
from pocketvl_runtime.manifest import Precision, Role

__all__ = [
    "DEFAULT_ALLOWANCE_PP",
    "DEFAULT_PARITY",
    "GateResult",
    "GateSettings",
    "ParityLimits",
    "judge",
    "judge_report",
    "parse_gate",
]

DEFAULT_ALLOWANCE_PP: Mapping[Metric, float] = MappingProxyType(
    {Metric.MATCH_HARD: 1.0, Metric.RETRIEVAL_R1: 1.0}
)
"""Loss allowed against torch fp32, in percentage points."""


@dataclass(frozen=True)
class ParityLimits:
    """What an embedding may differ by; a limit that is None is not judged.

    Attributes:
        max_abs: largest absolute difference of a component.
        centred_cosine_min: smallest mean-centred cosine of any input.
        centred_cosine_median: median of the mean-centred cosines.
    """

    max_abs: float | None = None
    centred_cosine_min: float | None = None
    centred_cosine_median: float | None = None


DEFAULT_PARITY: Mapping[Precision, ParityLimits] = MappingProxyType(
    {
        Precision.FP32: ParityLimits(max_abs=1e-4, centred_cosine_min=0.99999),
        Precision.FP16: ParityLimits(centred_cosine_median=0.999),
        Precision.INT8: ParityLimits(centred_cosine_median=0.99),
        Precision.INT8DYN: ParityLimits(centred_cosine_median=0.99),
        Precision.INT4: ParityLimits(),  # embeddings move far while answers may hold: tasks alone judge it
    }
)


FEW_EMBEDDINGS = 100
FEW_EMBEDDINGS_MEDIAN = 0.95
"""Of fewer embeddings, centring takes away most of what they have, and the rounding of int8 weighs more."""


@dataclass(frozen=True)
class GateSettings:
    """What a variant may lose.

    Attributes:
        allowance_pp: per metric, the loss allowed against the reference, in percentage points; a metric
            that is not named is reported and not judged.
        required: metrics that somebody asked for by name: where they could not be measured, the gate fails.
        parity: per precision, what the embeddings may differ by.
    """

    allowance_pp: Mapping[Metric, float] = field(default_factory=lambda: dict(DEFAULT_ALLOWANCE_PP))
    required: frozenset[Metric] = frozenset()
    parity: Mapping[Precision, ParityLimits] = field(default_factory=lambda: dict(DEFAULT_PARITY))

    def __post_init__(self) -> None:
        for metric, allowance in self.allowance_pp.items():
            if not (math.isfinite(allowance) and allowance >= 0):
                what = f"gate: the allowance of {metric.value}"
                raise RecipeError(f"{what} must be 0 or more percentage points, not {allowance}")


def parse_gate(text: str | None) -> GateSettings:
    """Settings from `match_hard=0.5,retrieval_r1=1.0`; metrics not named keep their default allowance.

    Raises:
        RecipeError: a metric is unknown or named twice, or an allowance is not a number of 0 or more.
    """
    allowances = dict(DEFAULT_ALLOWANCE_PP)
    named: set[Metric] = set()
    for part in filter(None, (part.strip() for part in (text or "").split(","))):
        name, equals, number = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise RecipeError(f"gate: {part!r} is not of the form metric=points, as in match_hard=0.5")
        try:
            metric = Metric(name)
        except ValueError:
            known = ", ".join(metric.value for metric in Metric)
            raise RecipeError(f"gate: unknown metric {name!r}; there are {known}") from None
        if metric in named:
            raise RecipeError(f"gate: {name} is given twice")
        try:
            allowances[metric] = float(number)
        except ValueError:
            raise RecipeError(f"gate: the allowance of {name} must be a number, not {number!r}") from None
        named.add(metric)
    return GateSettings(allowances, frozenset(named))


def judge(variant: VariantReport, settings: GateSettings) -> GateResult:
    """Judges one variant by its point estimates.

    The loss of every metric that has an allowance is compared with it, and the embeddings with the limits
    of the variant's precision. Without task metrics parity alone is judged, and the result's notes say so.
    """
    failures: list[str] = []
    notes: list[str] = []
    for metric, allowance in settings.allowance_pp.items():
        measured = variant.metrics.get(metric)
        if measured is not None and measured.drop_pp is not None:
            if measured.drop_pp > allowance:
                dropped = f"dropped {measured.drop_pp:.3f} pp, {allowance:g} pp allowed"
                failures.append(f"{variant.name}: {metric.value} {dropped}")
        elif metric in settings.required:
            failures.append(
                f"{variant.name}: {metric.value} was asked for ({allowance:g} pp) but not measured"
            )
        elif variant.metrics:
            notes.append(f"{metric.value} could not be measured and was not judged")
    notes.extend(
        f"{metric.value} has no allowance and was not judged"
        for metric in variant.metrics
        if metric not in settings.allowance_pp
    )
    judged = {metric: pp for metric, pp in settings.allowance_pp.items() if metric in variant.metrics}
    limits = settings.parity.get(variant.precision, ParityLimits())
    if not judged:
        notes.append("no task metric was measured: parity alone was judged")
        if limits == ParityLimits():
            alone = f"{variant.precision.value} is judged by its answers alone"
            failures.append(f"{variant.name}: {alone}; give task data")
    integers = variant.precision.multiplies_integers
    few = [role for role, parity in variant.parity.items() if integers and _is_eased(parity, limits)]
    notes.extend(
        f"{role.value}: only {variant.parity[role].n} embeddings, so its centred_cosine_median is held to "
        f"{FEW_EMBEDDINGS_MEDIAN:g} instead of {limits.centred_cosine_median:g}"
        for role in few
    )
    eased = dataclasses.replace(limits, centred_cosine_median=FEW_EMBEDDINGS_MEDIAN)
    failures.extend(_parity_failures(variant, {r: eased if r in few else limits for r in variant.parity}))
    return GateResult(not failures, judged, failures=tuple(failures), notes=tuple(notes))


def judge_report(report: Report, settings: GateSettings) -> Report:
    """The same report with every variant's verdict in it; layers reverted so far are kept."""
    judged: dict[str, VariantReport] = {}
    for name, variant in report.variants.items():
        result = judge(variant, settings)
        reverted = variant.gate.reverted if variant.gate else ()
        judged[name] = dataclasses.replace(variant, gate=dataclasses.replace(result, reverted=reverted))
    return dataclasses.replace(report, variants=judged)


def _is_eased(parity: ParityReport, limits: ParityLimits) -> bool:
    wanted = limits.centred_cosine_median
    return wanted is not None and wanted > FEW_EMBEDDINGS_MEDIAN and parity.n < FEW_EMBEDDINGS


def _parity_failures(variant: VariantReport, limits: Mapping[Role, ParityLimits]) -> list[str]:
    if not variant.parity:
        return [f"{variant.name}: parity was not measured, so nothing vouches for it"]
    return [
        f"{variant.name}: {role.value} {failure}"
        for role, parity in variant.parity.items()
        for failure in _role_failures(parity, limits[role])
    ]


def _role_failures(parity: ParityReport, limits: ParityLimits) -> list[str]:
    failures = []
    if parity.non_finite:
        failures.append(f"gave NaN or infinity for {parity.non_finite} of {parity.n} inputs, 0 allowed")
    if limits.max_abs is not None and parity.max_abs > limits.max_abs:
        failures.append(f"max_abs {parity.max_abs:.2e}, at most {limits.max_abs:.2e} allowed")
    floors = (
        ("centred_cosine_min", parity.centred_cosine_min, limits.centred_cosine_min),
        ("centred_cosine_median", parity.centred_cosine_median, limits.centred_cosine_median),
    )
    failures.extend(
        f"{name} {measured:.6f}, at least {floor:g} required"
        for name, measured, floor in floors
        if floor is not None and measured < floor
    )
    return failures
