"""Two profiles side by side, and what differs of where they were measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pocketvl.devices.table import aligned
from pocketvl_runtime.bench_result import BenchResult, Latency, in_order

_MOST_NAMED = 4


@dataclass(frozen=True)
class ComparedStage:
    """One stage of one variant at one thread count in both profiles.

    Attributes:
        variant: its name.
        threads: of an inference.
        stage: "total", or what it is made of.
        a: in the first profile.
        b: in the second.
    """

    variant: str
    threads: int
    stage: str
    a: Latency
    b: Latency

    @property
    def p10_ratio(self) -> float | None:
        """The second's tenth percentile over the first's; None where that is 0."""
        return self.b.p10 / self.a.p10 if self.a.p10 else None

    @property
    def median_ratio(self) -> float | None:
        """The second's median over the first's; None where that is 0."""
        return self.b.median / self.a.median if self.a.median else None

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it; milliseconds."""
        return {
            "variant": self.variant,
            "threads": self.threads,
            "stage": self.stage,
            "a": {"p10": self.a.p10, "median": self.a.median},
            "b": {"p10": self.b.p10, "median": self.b.median},
            "ratio": {"p10": self.p10_ratio, "median": self.median_ratio},
        }


@dataclass(frozen=True)
class ProfileComparison:
    """Two profiles side by side.

    Attributes:
        differences: what differs of bundles, machines and settings, and what makes figures doubtful.
        stages: what both measured; empty where a machine was emulated.
        only_a: "variant at N threads" that only the first measured.
        only_b: likewise the second.
    """

    differences: tuple[str, ...]
    stages: tuple[ComparedStage, ...]
    only_a: tuple[str, ...]
    only_b: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {
            "differences": list(self.differences),
            "stages": [stage.to_json() for stage in self.stages],
            "only_a": list(self.only_a),
            "only_b": list(self.only_b),
        }


def compare_profiles(a: BenchResult, b: BenchResult) -> ProfileComparison:
    """What both profiles measured, and what else is different.

    Profiles of different bundles are compared too, since that is how a smaller model is held against a larger
    one; it is the first difference then. Where a machine was emulated there is nothing to compare.
    """
    emulated = bool(a.machine.emulated or b.machine.emulated)
    ours, theirs = _timings(a), _timings(b)
    stages = tuple(
        ComparedStage(*key, stage, of_stage[stage], theirs[key][stage])
        for key, of_stage in ours.items()
        if key in theirs
        for stage in in_order(set(of_stage).intersection(theirs[key]))
    )
    return ProfileComparison(
        tuple(_differences(a, b)),
        () if emulated else stages,
        tuple(
            f"{variant} at {threads} threads" for variant, threads in ours if (variant, threads) not in theirs
        ),
        tuple(
            f"{variant} at {threads} threads" for variant, threads in theirs if (variant, threads) not in ours
        ),
    )


def comparison_lines(comparison: ProfileComparison, a: str, b: str) -> Iterator[str]:
    """The comparison for people, what differs first.

    Args:
        comparison: of two profiles.
        a: what to call the first.
        b: what to call the second.
    """
    yield f"A: {a}"
    yield f"B: {b}"
    yield from comparison.differences
    for name, only in (("A", comparison.only_a), ("B", comparison.only_b)):
        if only:
            more = len(only) - _MOST_NAMED
            shown = ", ".join(only[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
            yield f"only in {name}: {shown}"
    if comparison.stages:
        yield from aligned(list(_rows(comparison.stages)))
    else:
        yield "nothing to compare"


def _timings(result: BenchResult) -> dict[tuple[str, int], Mapping[str, Latency]]:
    return {
        (name, timing.threads): timing.stages
        for name, variant in result.variants.items()
        for timing in variant.timings
    }


def _differences(a: BenchResult, b: BenchResult) -> Iterator[str]:
    if a.bundle.manifest_file_sha256 != b.bundle.manifest_file_sha256:
        names = (f"{each.bundle.name} ({each.bundle.manifest_file_sha256[:12]})" for each in (a, b))
        yield f"different bundles: {' | '.join(names)}: equal names of variants are different graphs"
    for name, each in (("A", a), ("B", b)):
        if each.machine.emulated:
            yield f"{name} was measured under emulation: its figures are no device's, and none is shown"
    for what, value, other in _facts(a, b):
        if value != other:
            yield f"{what}: {value} | {other}"
    for name, each in (("A", a), ("B", b)):
        if each.conditions is not None:
            if each.conditions.throttled:
                yield f"{name} was throttled"
            yield from (f"{name} is doubtful: {warning}" for warning in each.conditions.warnings)


def _facts(a: BenchResult, b: BenchResult) -> Iterator[tuple[str, str, str]]:
    """What decides about latencies, in words, of both."""
    for what in ("device", "cpu", "isa", "usable_processors", "governors", "mhz_max", "os"):
        value, other = (_worded(getattr(each.machine, what)) for each in (a, b))
        yield what.replace("_", " "), value, other
    engines = [
        ", ".join(sorted({f"{v.engine.name} {v.engine.version}" for v in each.variants.values()}))
        for each in (a, b)
    ]
    yield "engines", engines[0], engines[1]
    for what in ("runs", "warmup_runs", "interleaved", "inputs"):
        value, other = (_worded(getattr(each.settings, what)) for each in (a, b))
        yield what.replace("_", " "), value, other


def _worded(value: object) -> str:
    if value is None or value == ():
        return "not known"
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _rows(stages: tuple[ComparedStage, ...]) -> Iterator[Sequence[str]]:
    yield ("ms", "threads", "stage", "A p10", "B p10", "B/A", "A median", "B median", "B/A")
    for each in stages:
        yield (
            each.variant,
            str(each.threads),
            each.stage,
            f"{each.a.p10:.2f}",
            f"{each.b.p10:.2f}",
            _ratio(each.p10_ratio),
            f"{each.a.median:.2f}",
            f"{each.b.median:.2f}",
            _ratio(each.median_ratio),
        )


def _ratio(ratio: float | None) -> str:
    return "-" if ratio is None else f"{ratio:.2f}"
