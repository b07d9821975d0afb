"""Profiles with figures that are made up, for the tests of what reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from pocketvl_runtime.bench_result import (
    BenchResult,
    BundleIdentity,
    Conditions,
    ConditionSample,
    Inputs,
    Latency,
    Machine,
    Settings,
    Software,
    Sustained,
    SustainedWindow,
    Timing,
    VariantBench,
)

BOARD = Machine(
    "Example Board 1",
    "Cortex-A76",
    "aarch64",
    "neon+dotprod",
    True,
    4,
    4,
    8 << 30,
    "Linux 6.8",
    ("ondemand",),
)
MANIFEST = "ab" * 32


def latency(median: float, samples: Sequence[float] | None = None) -> Latency:
    kept = None if samples is None else tuple(samples)
    n = 30 if kept is None else len(kept)
    return Latency(0.9 * median, median, 1.2 * median, 2.0 * median, n, 1.5 * median, kept)


def timing(threads: int, total: float, samples: Sequence[float] | None = None) -> Timing:
    """Stages that take 90 % of a whole answer."""
    shares = {"decode": 0.1, "preprocess": 0.1, "tokens": 0.05, "image": 0.5, "text": 0.1, "post": 0.05}
    stages = {name: latency(share * total) for name, share in shares.items()}
    return Timing(threads, 12.0, {**stages, "total": latency(total, samples)}, cold_start_ms=800.0)


def profile(
    medians: Mapping[str, Mapping[int, float]],
    *,
    machine: Machine = BOARD,
    manifest: str = MANIFEST,
    warnings: Sequence[str] = (),
    throttled: bool | None = False,
    loads: Mapping[str, Sequence[float]] | None = None,
    samples: Sequence[float] | None = None,
) -> BenchResult:
    """A profile.

    Args:
        medians: variant -> threads -> milliseconds of a whole answer.
        machine: where.
        manifest: SHA-256 of the bundle's manifest.json.
        warnings: what makes it doubtful.
        throttled: whether it was.
        loads: variant -> median of each minute of a sustained load.
        samples: single runs of every whole answer.
    """
    variants = {
        name: VariantBench(
            Software("an-engine", "1.0"),
            tuple(timing(threads, total, samples) for threads, total in by_threads.items()),
            70_000_000,
            (),
        )
        for name, by_threads in medians.items()
    }
    return BenchResult(
        Software("pocketvl-runtime", "0.1.0"),
        machine,
        BundleIdentity("tiny-clip", manifest),
        Settings(30, 1, True, 0, Inputs.GOLDEN),
        variants,
        conditions=Conditions(
            1.0, (ConditionSample(0.0, None, 51.0, 0.1, None),), throttled, None, tuple(warnings)
        ),
        sustained=tuple(_load(name, minutes) for name, minutes in (loads or {}).items()),
    )


def emulated(result: BenchResult) -> BenchResult:
    return dataclasses.replace(result, machine=dataclasses.replace(result.machine, emulated=True))


def _load(variant: str, minutes: Sequence[float]) -> Sustained:
    windows = tuple(
        SustainedWindow(60.0 * number, median, 100, 2400.0 - 100 * number, 60.0 + 5 * number)
        for number, median in enumerate(minutes)
    )
    first, last = minutes[0], minutes[-1]
    return Sustained(variant, 4, 60.0 * len(minutes), windows, first, last, last / first)
