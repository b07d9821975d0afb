"""Which variant, at how many threads, a device should run: the smallest loss within limits, then speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pocketvl.errors import RecipeError
from pocketvl.evaluate.report import VariantReport
from pocketvl.tasks.metrics import Metric
from pocketvl_runtime.bench_result import TOTAL, BenchResult
from pocketvl_runtime.manifest import Status


@dataclass(frozen=True)
class Candidate:
    """A variant at a thread count, as it was measured on one device.

    Attributes:
        variant: its name.
        threads: of an inference.
        is_accepted: whether it passed the gate.
        size_bytes: sum of its graph files.
        latency_ms: median of whole answers.
        loss_pp: what the task loses against torch fp32, in percentage points, a gain being no loss; None: no
            task was measured.
        distance: 1 minus the lowest median centred cosine of an output to torch's; stands in for the loss
            where no task was measured.
        sustained_ms: median of whole answers at the end of a sustained load; None: not measured.
    """

    variant: str
    threads: int
    is_accepted: bool
    size_bytes: int
    latency_ms: float
    loss_pp: float | None
    distance: float
    sustained_ms: float | None = None


@dataclass(frozen=True)
class Limits:
    """What a choice must keep to; None: no limit.

    Attributes:
        latency_ms: median of whole answers.
        size_bytes: sum of the graph files.
        loss_pp: loss of the task, in percentage points, as it was estimated.
        threads: the thread count; None: any that was measured.
    """

    latency_ms: float | None = None
    size_bytes: float | None = None
    loss_pp: float | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        for name, limit in (("latency", self.latency_ms), ("size", self.size_bytes)):
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise RecipeError(f"the largest {name} must be above 0, not {limit:g}")
        if self.loss_pp is not None and not (math.isfinite(self.loss_pp) and self.loss_pp >= 0):
            raise RecipeError(f"the largest loss must be 0 or more percentage points, not {self.loss_pp:g}")


@dataclass(frozen=True)
class Judged:
    """A candidate, and why it was passed over: "" for the one that was chosen."""

    candidate: Candidate
    reason: str


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        chosen: None where nothing keeps to the limits.
        closest: where nothing does, the accepted one that goes least beyond them.
        judged: all candidates, the best first, those that were passed over for a limit last.
    """

    chosen: Candidate | None
    closest: Candidate | None
    judged: tuple[Judged, ...]


def candidates_of(
    variants: Sequence[VariantReport], profile: BenchResult, metric: Metric | None = None
) -> list[Candidate]:
    """What was measured both of the answers and on the device.

    Args:
        variants: of the bundle's report; those that the profile lacks are left out.
        profile: of the same bundle.
        metric: whose loss counts; by default the metric that loses most.

    Raises:
        RecipeError: the metric was not measured.
    """
    loads = {(load.variant, load.threads): load.last_ms for load in profile.sustained}
    found = []
    for variant in variants:
        loss_pp = _loss(variant, metric)
        closest = min((each.centred_cosine_median for each in variant.parity.values()), default=1.0)
        timed = profile.variants.get(variant.name)
        found += [
            Candidate(
                variant.name,
                timing.threads,
                variant.status is Status.ACCEPTED,
                variant.size_bytes,
                timing.stages[TOTAL].median,
                loss_pp,
                1.0 - closest,
                loads.get((variant.name, timing.threads)),
            )
            for timing in (() if timed is None else timed.timings)
        ]
    return found


def choose(candidates: Sequence[Candidate], limits: Limits) -> Choice:
    """The accepted candidate within the limits that loses least; of several the quickest, then the smallest.

    Args:
        candidates: all of one bundle on one device.
        limits: what it must keep to.

    Raises:
        RecipeError: the loss is limited where none was measured.
    """
    if limits.loss_pp is not None and any(each.loss_pp is None for each in candidates):
        raise RecipeError("a loss cannot be limited where no task was measured; verify the bundle with data")
    ordered = sorted(candidates, key=_rank)
    reasons = [_obstacle(each, limits) for each in ordered]
    chosen = next((each for each, reason in zip(ordered, reasons, strict=True) if reason is None), None)
    judged = [
        Judged(each, reason if reason is not None else _behind(each, chosen))
        for each, reason in zip(ordered, reasons, strict=True)
    ]
    allowed = [each for each in ordered if _exclusion(each, limits) is None]
    return Choice(
        chosen,
        min(allowed, key=lambda each: _excess(each, limits), default=None) if chosen is None else None,
        tuple(sorted(judged, key=lambda each: _obstacle(each.candidate, limits) is not None)),
    )


def _loss(variant: VariantReport, metric: Metric | None) -> float | None:
    if metric is not None and metric not in variant.metrics:
        known = ", ".join(each.value for each in variant.metrics) or "none"
        raise RecipeError(f"{variant.name} was not measured by {metric.value}; the report has {known}")
    losses = [each.drop_pp or 0.0 for name, each in variant.metrics.items() if metric in (None, name)]
    return max(0.0, *losses) if losses else None


def _rank(candidate: Candidate) -> tuple[float, float, int, int, str]:
    lost = candidate.distance if candidate.loss_pp is None else candidate.loss_pp
    return lost, candidate.latency_ms, candidate.size_bytes, candidate.threads, candidate.variant


def _exclusion(candidate: Candidate, limits: Limits) -> str | None:
    """Why a candidate is out whatever its figures are."""
    if not candidate.is_accepted:
        return "did not pass the gate"
    if limits.threads not in (None, candidate.threads):
        return f"not at {limits.threads} threads"
    return None


def _obstacle(candidate: Candidate, limits: Limits) -> str | None:
    """Why a candidate does not keep to the limits; None where it does."""
    out = _exclusion(candidate, limits)
    if out is not None:
        return out
    beyond = [
        text
        for value, limit, text in (
            (candidate.latency_ms, limits.latency_ms, f"takes {candidate.latency_ms:.2f} ms"),
            (candidate.size_bytes, limits.size_bytes, f"has {candidate.size_bytes / 1e6:.2f} MB"),
            (candidate.loss_pp or 0.0, limits.loss_pp, f"loses {candidate.loss_pp or 0.0:.2f} pp"),
        )
        if limit is not None and value > limit
    ]
    return ", ".join(beyond) or None


def _behind(candidate: Candidate, chosen: Candidate | None) -> str:
    """Why a candidate that keeps to the limits is not the one; "" where it is."""
    if chosen is None or candidate is chosen:
        return ""
    own, best = _rank(candidate), _rank(chosen)
    if own[0] > best[0]:
        return "loses more"
    if own[1] > best[1]:
        return "slower"
    return "larger" if own[2] > best[2] else "no better"


def _excess(candidate: Candidate, limits: Limits) -> float:
    """How far a candidate goes beyond limits, in shares of each, the worst; of the loss, in points."""
    shares = [0.0]
    if limits.latency_ms is not None:
        shares.append(candidate.latency_ms / limits.latency_ms - 1)
    if limits.size_bytes is not None:
        shares.append(candidate.size_bytes / limits.size_bytes - 1)
    if limits.loss_pp is not None:
        shares.append((candidate.loss_pp or 0.0) - limits.loss_pp)
    return max(shares)
