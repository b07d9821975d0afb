"""A sustained load, in windows."""

from __future__ import annotations

import time

import pytest

from pocketvl_runtime.bench_result import ConditionSample, Sustained
from pocketvl_runtime.sustained import Answers, answer_for, summarize


def answers(*pairs: tuple[float, float]) -> Answers:
    found = Answers()
    for at_s, ms in pairs:
        found.at_s.append(at_s)
        found.ms.append(ms)
    return found


def load(duration_s: float, found: Answers, begin_s: float = 0.0, **more: list[ConditionSample]) -> Sustained:
    return summarize("v", 2, duration_s, found, more.get("samples", []), begin_s)


def test_answers_go_on_for_the_time_asked_for() -> None:
    told: list[float] = []

    def answer() -> float:
        time.sleep(0.01)
        return 10.0

    begin = time.perf_counter()
    found = answer_for(1.2, answer, told.append)
    assert 1.2 <= time.perf_counter() - begin < 3
    assert list(found.at_s) == sorted(found.at_s)
    assert found.at_s[0] == 0
    assert 1 < found.at_s[-1] < 1.2 or len(found.at_s) < 20
    assert told[0] >= 1


def test_a_slow_answer_is_one_all_the_same() -> None:
    def answer() -> float:
        time.sleep(0.05)
        return 50.0

    found = answer_for(0.01, answer, lambda elapsed: None)
    assert list(found.ms) == [50.0]


def test_windows_are_equal_parts_of_the_time() -> None:
    found = load(3.0, answers((0, 1), (0.5, 3), (1.0, 4), (2.9, 8), (2.95, 10)))
    assert [(w.at_s, w.median_ms, w.n) for w in found.windows] == [
        (0.0, 2.0, 2),
        (1.0, 4.0, 1),
        (2.0, 9.0, 2),
    ]
    assert (found.first_ms, found.last_ms, found.slowdown) == (2.0, 9.0, 4.5)
    long = load(600.0, answers(*((float(t), 1.0) for t in range(600))))
    assert {window.n for window in long.windows} == {10}
    assert len(long.windows) == 60


def test_of_a_long_load_the_first_and_the_last_minute_count() -> None:
    found = load(
        180.0, answers(*((float(t), 1.0 if t < 60 else 5.0 if t < 120 else 2.0) for t in range(180)))
    )
    assert (found.first_ms, found.last_ms, found.slowdown) == (1.0, 2.0, 2.0)


def test_a_window_without_an_answer_is_left_out() -> None:
    found = load(4.0, answers((0, 2500.0), (2.5, 2600.0)))
    assert [(window.at_s, window.n) for window in found.windows] == [(0.0, 1), (2.0, 1)]
    assert (found.first_ms, found.last_ms) == (2500.0, 2600.0)


def test_a_window_has_the_samples_that_were_taken_in_it() -> None:
    def at(seconds: float, mhz: float, celsius: float | None) -> ConditionSample:
        return ConditionSample(seconds, (mhz, 100.0), celsius, None, None)

    samples = [at(5, 999, 10), at(10, 2000, 50), at(10.9, 1000, 60), at(11.5, 800, None), at(12.5, 1, 1)]
    found = load(2.0, answers((0, 1), (1, 1)), 10.0, samples=samples)
    assert [(w.mhz, w.temperature_c) for w in found.windows] == [(1500.0, 55.0), (800.0, None)]


@pytest.mark.parametrize("duration", [0.5, 1.0, 59.9, 3600.0])
def test_windows_are_at_most_sixty_and_no_shorter_than_a_second(duration: float) -> None:
    found = load(duration, answers(*((k * duration / 240, 1.0) for k in range(240))))
    assert 1 <= len(found.windows) <= 60
    assert sum(window.n for window in found.windows) == 240
