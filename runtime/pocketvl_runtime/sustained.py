"""A variant that answers without a pause, and how its latency changes as the machine warms up."""

from __future__ import annotations

import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from pocketvl_runtime.bench_result import ConditionSample, Sustained, SustainedWindow
from pocketvl_runtime.conditions import fastest_mhz

_MOST_WINDOWS = 60
_MINUTE_S = 60.0


@dataclass(frozen=True)
class Answers:
    """Whole answers, one after the other.

    Attributes:
        at_s: when each began, in seconds since the first one did.
        ms: how long each took.
    """

    at_s: array[float] = field(default_factory=lambda: array("d"))
    ms: array[float] = field(default_factory=lambda: array("d"))

    def between(self, begin_s: float, end_s: float) -> Sequence[float]:
        """Milliseconds of those that began in a part of the time."""
        return self.ms[bisect_left(self.at_s, begin_s) : bisect_left(self.at_s, end_s)]


def answer_for(duration_s: float, answer: Callable[[], float], tell: Callable[[float], None]) -> Answers:
    """Answers again and again, at least once.

    Args:
        duration_s: no answer begins later than this many seconds after the first.
        answer: gives one answer, and tells how many milliseconds it took.
        tell: told about once a second how many have passed.
    """
    answers, begin, told = Answers(), time.perf_counter(), 0.0
    elapsed = 0.0
    while elapsed < duration_s or not answers.ms:
        answers.at_s.append(elapsed)
        answers.ms.append(answer())
        elapsed = time.perf_counter() - begin
        if elapsed - told >= 1:
            told = elapsed
            tell(elapsed)
    return answers


def summarize(
    variant: str,
    threads: int,
    duration_s: float,
    answers: Answers,
    samples: Sequence[ConditionSample],
    begin_s: float,
) -> Sustained:
    """The load as windows of equal length, its first and its last minute.

    Args:
        variant: that answered.
        threads: of an inference.
        duration_s: for how long, in seconds.
        answers: what was measured.
        samples: of the machine, of a longer time.
        begin_s: when the load began, on the samples' clock.
    """
    count = max(1, min(_MOST_WINDOWS, int(duration_s)))
    length = duration_s / count
    windows = []
    for k in range(count):
        begin, end = k * length, (k + 1) * length if k + 1 < count else float("inf")
        taken = answers.between(begin, end)
        if taken:
            seen = [sample for sample in samples if begin <= sample.at_s - begin_s < begin + length]
            windows.append(
                SustainedWindow(begin, _median(taken), len(taken), fastest_mhz(seen), _celsius(seen))
            )
    span = _MINUTE_S if duration_s >= 2 * _MINUTE_S else length
    first = answers.between(0, span)
    last = answers.between(duration_s - span, float("inf"))
    first_ms = _median(first) if first else windows[0].median_ms
    last_ms = _median(last) if last else windows[-1].median_ms
    slowdown = last_ms / first_ms
    return Sustained(variant, threads, duration_s, tuple(windows), first_ms, last_ms, slowdown)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


def _celsius(samples: Sequence[ConditionSample]) -> float | None:
    found = [sample.temperature_c for sample in samples if sample.temperature_c is not None]
    return fmean(found) if found else None
