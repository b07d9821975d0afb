"""By how much variants miss the gate: which components are to blame, and how much better they must get."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pocketvl.evaluate.report import VariantReport
from pocketvl.select.gate import Decision, GateSettings, decide, parity_limits
from pocketvl_runtime.manifest import component_of


@dataclass(frozen=True)
class Shortfall:
    """What quantization costs too much.

    Attributes:
        components: whose outputs are too far from the reference's; empty where answers were lost, for which
            any may be to blame.
        share: of what quantization takes from the outputs' cosine, what has to go, above 0 and at most 1.
            An estimate.
    """

    components: frozenset[str]
    share: float


def shortfall(variants: Iterable[VariantReport], settings: GateSettings) -> Shortfall | None:
    """The largest shortfall of several variants; None where none fails by what was measured.

    An answer changes where scores move by more than what lies between the best two, and they move by the root
    of what is lost of the cosine: to halve a loss of answers takes three quarters of that.
    """
    answers: list[float] = []
    outputs: dict[str, float] = {}
    for variant in variants:
        answers.extend(_of_answers(variant, settings))
        for component, share in _of_outputs(variant, settings):
            outputs[component] = max(share, outputs.get(component, 0.0))
    if not answers and not outputs:
        return None
    return Shortfall(frozenset() if answers else frozenset(outputs), max([*answers, *outputs.values()]))


def _of_answers(variant: VariantReport, settings: GateSettings) -> Iterator[float]:
    """By each metric that fails, what has to go."""
    for metric, allowance in settings.allowance_pp.items():
        measured = variant.metrics.get(metric)
        if measured is None or measured.drop_pp is None:
            continue
        limit = 100.0 if measured.drop_ci95 is None else measured.drop_ci95[1]
        if decide(measured.drop_pp, limit, measured.n, allowance) is not Decision.WITHIN:
            yield 1 - (allowance / max(measured.drop_pp, limit)) ** 2


def _of_outputs(variant: VariantReport, settings: GateSettings) -> Iterator[tuple[str, float]]:
    """By each output that is too far from the reference's: its component, and what has to go."""
    for port, limits in parity_limits(variant, settings).items():
        parity = variant.parity[port]
        if parity.non_finite:
            yield component_of(port), 1.0
        for got, floor in (
            (parity.centred_cosine_median, limits.centred_cosine_median),
            (parity.centred_cosine_min, limits.centred_cosine_min),
        ):
            if floor is not None and got < floor:
                yield component_of(port), 1 - (1 - floor) / (1 - got)
