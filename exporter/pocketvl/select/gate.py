"""The gate: a variant ships only if its answers are the reference's, within a stated allowance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from pocketvl.errors import RecipeError
from pocketvl.evaluate.report import GateResult, MetricReport, Report, VariantReport
from pocketvl.network.tolerances import DEFAULT_PARITY, ParityLimits
from pocketvl.tasks.metrics import Metric
from pocketvl.tasks.parity import ParityReport
from pocketvl.tasks.statistics import least_samples
from pocketvl_runtime.manifest import Precision

__all__ = [
    "DEFAULT_ALLOWANCE_PP",
    "Decision",
    "GateResult",
    "GateSettings",
    "decide",
    "judge",
    "judge_report",
    "parity_limits",
    "parse_gate",
]

DEFAULT_ALLOWANCE_PP: Mapping[Metric, float] = MappingProxyType(
    dict.fromkeys(
        (Metric.MATCH_HARD, Metric.RETRIEVAL_R1, Metric.ASK, Metric.KNN, Metric.ITM_HARD),
        1.0,
    )
)
"""Loss allowed against torch fp32, in percentage points."""


FEW_EMBEDDINGS = 100
FEW_EMBEDDINGS_MEDIAN = 0.95
"""Of fewer embeddings, centring takes away most of what they have, and the rounding of int8 weighs more."""


@dataclass(frozen=True)
class GateSettings:
    """Allowances of the gate.

    Attributes:
        allowance_pp: per metric, the loss allowed against the reference, in percentage points; a metric
            that is not named is reported and not judged.
        required: metrics that somebody asked for by name: where they could not be measured, the gate fails.
        parity: for every precision, what the outputs may differ by.
    """

    allowance_pp: Mapping[Metric, float] = field(default_factory=lambda: dict(DEFAULT_ALLOWANCE_PP))
    required: frozenset[Metric] = frozenset()
    parity: Mapping[Precision, ParityLimits] = field(default_factory=lambda: DEFAULT_PARITY)

    def __post_init__(self) -> None:
        for metric, allowance in self.allowance_pp.items():
            if not (math.isfinite(allowance) and allowance >= 0):
                what = f"gate: the allowance of {metric.value}"
                raise RecipeError(f"{what} must be 0 or more percentage points, not {allowance}")
        missing = [precision.value for precision in Precision if precision not in self.parity]
        if missing:
            raise RecipeError(f"gate: parity names no limits for {', '.join(missing)}")


def parse_gate(
    text: str | None,
    metrics: Collection[Metric] = tuple(Metric),
    parity: Mapping[Precision, ParityLimits] = DEFAULT_PARITY,
) -> GateSettings:
    """Settings from `match_hard=0.5,retrieval_r1=1.0`; metrics not named keep their default allowance.

    Args:
        text: the allowances.
        metrics: those of the model's task; of the others only those that are named are judged.
        parity: for every precision, what the outputs may differ by.

    Raises:
        RecipeError: a metric is unknown or named twice, or an allowance is not a number of 0 or more.
    """
    allowances = {m: allowance for m, allowance in DEFAULT_ALLOWANCE_PP.items() if m in metrics}
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
    return GateSettings(allowances, frozenset(named), parity)


class Decision(StrEnum):
    """The statistical decision on a loss.

    Within: no more is lost than allowed. Lost: more is. Undecided: the estimate is within the allowance, and
    what is known with 95 % confidence is not.
    """

    WITHIN = "within"
    LOST = "lost"
    UNDECIDED = "undecided"


def decide(drop_pp: float, limit_pp: float, n: int, allowance_pp: float) -> Decision:
    """Compare a loss and its upper limit with an allowance.

    With fewer samples than could ever prove the allowance, the estimate decides alone.

    Args:
        drop_pp: the estimate, in percentage points.
        limit_pp: upper end of its 95 % interval, in percentage points.
        n: samples that both were taken from.
        allowance_pp: the loss allowed, in percentage points.
    """
    if drop_pp > allowance_pp:
        return Decision.LOST
    return Decision.UNDECIDED if _can_prove(n, allowance_pp) and limit_pp > allowance_pp else Decision.WITHIN


def judge(variant: VariantReport, settings: GateSettings) -> GateResult:
    """Judge one variant: what it lost with 95 % confidence, and how far its outputs are.

    The upper limit of the paired loss of every metric that has an allowance is compared with it, and the
    parity of every port with the limits of the variant's precision. Without task metrics parity alone is
    judged, and the result's notes say so; they also say where samples were too few to prove anything.
    """
    failures: list[str] = []
    notes: list[str] = []
    judged: dict[Metric, float] = {}
    undecided: list[Metric] = []
    for metric, allowance in settings.allowance_pp.items():
        measured = variant.metrics.get(metric)
        if measured is not None and measured.drop_pp is not None:
            judged[metric] = allowance
            finding = _judge_loss(measured, measured.drop_pp, allowance)
            if finding.decision is Decision.UNDECIDED:
                undecided.append(metric)
            failures.extend(f"{variant.name}: {metric.value} {failure}" for failure in finding.failures)
            notes.extend(f"{metric.value}: {note}" for note in finding.notes)
        elif metric in settings.required:
            asked = f"{metric.value} was asked for ({allowance:g} pp) but not measured"
            failures.append(f"{variant.name}: {asked}")
        elif variant.metrics:
            notes.append(f"{metric.value} could not be measured and was not judged")
    notes.extend(
        f"{metric.value} has no allowance and was not judged"
        for metric in variant.metrics
        if metric not in settings.allowance_pp
    )
    parity = _judge_parity(variant, settings, alone=not judged)
    return GateResult(
        passed=not failures and not parity.failures,
        allowance_pp=judged,
        failures=(*failures, *parity.failures),
        undecided=tuple(undecided),
        notes=(*notes, *parity.notes),
    )


def judge_report(report: Report, settings: GateSettings) -> Report:
    """The same report with every variant's verdict in it; fallbacks found so far are kept."""
    judged: dict[str, VariantReport] = {}
    for name, variant in report.variants.items():
        result = judge(variant, settings)
        fallbacks = variant.gate.fallbacks if variant.gate else ()
        judged[name] = dataclasses.replace(variant, gate=dataclasses.replace(result, fallbacks=fallbacks))
    return dataclasses.replace(report, variants=judged)


@dataclass(frozen=True)
class _Finding:
    decision: Decision
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _can_prove(n: int, allowance_pp: float) -> bool:
    least = least_samples(allowance_pp)
    return least is not None and n >= least


def _judge_loss(measured: MetricReport, drop_pp: float, allowance_pp: float) -> _Finding:
    # without an interval nothing is known with confidence but that no more than everything was lost
    limit_pp = 100.0 if measured.drop_ci95 is None else measured.drop_ci95[1]
    decision = decide(drop_pp, limit_pp, measured.n, allowance_pp)
    shown_pp = math.ceil(1000 * limit_pp) / 1000  # beyond an allowance, it never reads as within
    bound = f"at most {shown_pp:.3f} pp with 95 % confidence (n = {measured.n:,})"
    failures: tuple[str, ...] = ()
    if decision is Decision.LOST:
        failures = (f"dropped {drop_pp:.3f} pp, {bound}; {allowance_pp:g} pp allowed",)
    elif decision is Decision.UNDECIDED:
        seen = f"dropped {drop_pp:.3f} pp, and {bound}"
        failures = (f"is not proved: {seen}; {allowance_pp:g} pp allowed: give more --data or allow more",)
    notes = () if _can_prove(measured.n, allowance_pp) else (_too_few(measured.n, allowance_pp),)
    return _Finding(decision, failures, notes)


def _too_few(n: int, allowance_pp: float) -> str:
    least = least_samples(allowance_pp)
    if least is None:
        return f"no number of samples proves {allowance_pp:g} pp: judged by the point estimate"
    wanted = f"{n:,} samples are too few to prove {allowance_pp:g} pp with 95 % confidence"
    return f"{wanted} (at least {least:,}): judged by the point estimate"


def parity_limits(variant: VariantReport, settings: GateSettings) -> dict[str, ParityLimits]:
    """By port, the limits on a variant's outputs; of few embeddings they are eased."""
    limits = settings.parity[variant.precision]
    eased = dataclasses.replace(limits, centred_cosine_median=FEW_EMBEDDINGS_MEDIAN)
    integers = variant.precision.multiplies_integers
    return {
        port: eased if integers and _is_eased(parity, limits) else limits
        for port, parity in variant.parity.items()
    }


def _judge_parity(variant: VariantReport, settings: GateSettings, *, alone: bool) -> _Finding:
    """Compare the embeddings with the limits; `alone` where no task was measured beside them."""
    notes: list[str] = []
    failures: list[str] = []
    limits = settings.parity[variant.precision]
    if alone:
        notes.append("no task metric was measured: parity alone was judged")
        if limits.by_answers_alone:
            by_answers = f"{variant.precision.value} is judged by its answers alone"
            failures.append(f"{variant.name}: {by_answers}; give task data")
    held = parity_limits(variant, settings)
    notes.extend(
        f"{port}: only {variant.parity[port].n} rows, so its centred_cosine_median is held to "
        f"{eased.centred_cosine_median:g} instead of {limits.centred_cosine_median:g}"
        for port, eased in held.items()
        if eased != limits
    )
    failures.extend(_parity_failures(variant, held))
    decision = Decision.LOST if failures else Decision.WITHIN
    return _Finding(decision, tuple(failures), tuple(notes))


def _is_eased(parity: ParityReport, limits: ParityLimits) -> bool:
    wanted = limits.centred_cosine_median
    return wanted is not None and wanted > FEW_EMBEDDINGS_MEDIAN and parity.n < FEW_EMBEDDINGS


def _parity_failures(variant: VariantReport, limits: Mapping[str, ParityLimits]) -> list[str]:
    if not variant.parity:
        return [f"{variant.name}: parity was not measured, so nothing vouches for it"]
    return [
        f"{variant.name}: {port} {failure}"
        for port, parity in variant.parity.items()
        for failure in _port_failures(parity, limits[port])
    ]


def _port_failures(parity: ParityReport, limits: ParityLimits) -> list[str]:
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
