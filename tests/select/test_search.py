"""The bit search finds nearly the best choice, goes on where it was stopped, and is shared by processes."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pocketvl.errors import RecipeError
from pocketvl.select import search
from pocketvl.select.search import (
    Budget,
    BudgetKind,
    Group,
    Outcome,
    Sampler,
    SearchSettings,
    Trial,
    Widths,
    best_first,
    enqueue,
    parse_budget,
    search_bits,
    starting_points,
)

ROOT = Path(__file__).parents[2]
OVERHEAD = 500
LOSSES = (0.030, 0.002, 0.011, 0.0005, 0.024, 0.006, 0.001, 0.015)
SIZES = (400, 900, 250, 700, 1200, 300, 800, 500)
ROLES = ("image_encoder", "text_encoder")
GROUPS = tuple(
    Group(ROLES[place % 2], (f"layers.{place}",), (4, 8), {4: size, 8: 2 * size}, {4: loss, 8: loss / 40})
    for place, (loss, size) in enumerate(zip(LOSSES, SIZES, strict=True))
)
BUDGET = Budget(BudgetKind.SIZE, OVERHEAD + sum(SIZES) + 2000.0)


def truth(widths: Widths) -> Outcome:
    """Losses add up, but are not those that one group alone shows: the greedy guess is not the best."""
    shown = {4: 1.0, 8: 1 / 40}
    lost = sum(
        loss * shown[bits] * (1 + 0.5 * (place % 3 == 1))
        for place, (loss, bits) in enumerate(zip(LOSSES, widths, strict=True))
    )
    size = sum(group.bytes_of[bits] for group, bits in zip(GROUPS, widths, strict=True))
    return Outcome(0.9 - lost, OVERHEAD + size)


def settings(trials: int, sampler: Sampler = Sampler.TPE, budget: Budget = BUDGET) -> SearchSettings:
    return SearchSettings(budget, trials, sampler)


class Counted:
    """Says what it was asked; stops, as a user would, once it was asked too often."""

    def __init__(self, most: int = 10_000) -> None:
        self.asked: list[Widths] = []
        self.most = most

    def __call__(self, widths: Widths) -> Outcome:
        if len(self.asked) == self.most:
            raise KeyboardInterrupt
        self.asked.append(widths)
        return truth(widths)


@pytest.mark.parametrize(
    ("text", "kind", "limit"),
    [
        ("size=1.2MB", BudgetKind.SIZE, 1.2e6),
        ("size = 800 kB", BudgetKind.SIZE, 8e5),
        ("size=1GB", BudgetKind.SIZE, 1e9),
        ("size=4096", BudgetKind.SIZE, 4096),
        ("size=4096B", BudgetKind.SIZE, 4096),
        ("latency_ms=8", BudgetKind.LATENCY_MS, 8),
        ("latency_ms=0.5", BudgetKind.LATENCY_MS, 0.5),
    ],
)
def test_budgets_are_read(text: str, kind: BudgetKind, limit: float) -> None:
    assert parse_budget(text) == Budget(kind, limit)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "size=1.2MB or latency_ms=8"),
        ("1.2MB", "size=1.2MB or latency_ms=8"),
        ("weight=3", "weight=3"),
        ("size", "a size such as"),
        ("size=", "a size such as"),
        ("size=0MB", "a size such as"),
        ("size=-1MB", "-1MB"),
        ("size=1.2TB", "1.2TB"),
        ("size=1e6", "1e6"),
        ("size=nan", "nan"),
        ("latency_ms=8MB", "is not milliseconds"),
        ("latency_ms=0", "is not milliseconds"),
    ],
)
def test_other_budgets_are_refused_and_named(text: str, named: str) -> None:
    with pytest.raises(RecipeError, match="^budget: .*" + named):
        parse_budget(text)


def test_a_search_needs_a_trial() -> None:
    with pytest.raises(RecipeError, match="at least one trial, not 0"):
        settings(0)


def test_the_greedy_start_fills_the_budget_and_the_extremes_are_there() -> None:
    points = starting_points(GROUPS, BUDGET, OVERHEAD)
    greedy, least, most = points
    assert (least, most) == ((4,) * 8, (8,) * 8)
    assert truth(least).size_bytes < truth(greedy).size_bytes <= BUDGET.limit
    narrow = [
        group.bytes_of[8] - group.bytes_of[4] for group, w in zip(GROUPS, greedy, strict=True) if w == 4
    ]
    assert truth(greedy).size_bytes + min(narrow) > BUDGET.limit  # no more fits in
    wide = [loss / size for loss, size, w in zip(LOSSES, SIZES, greedy, strict=True) if w == 8]
    assert max(loss / size for loss, size in zip(LOSSES, SIZES, strict=True)) in wide


def test_starts_under_a_limit_of_latency_lie_between_the_extremes() -> None:
    points = starting_points(GROUPS, Budget(BudgetKind.LATENCY_MS, 5), OVERHEAD)
    assert len(points) == len(set(points)) == 5
    sizes = [truth(widths).size_bytes for widths in points]
    assert sizes[3] < sizes[0] < sizes[1] < sizes[2] < sizes[4]


def test_a_budget_that_holds_everything_starts_with_everything() -> None:
    points = starting_points(GROUPS, Budget(BudgetKind.SIZE, 1e9), OVERHEAD)
    assert points == [(8,) * 8, (4,) * 8]


@pytest.mark.parametrize(("sampler", "trials", "margin"), [(Sampler.TPE, 50, 0.008), (Sampler.GP, 24, 0.001)])
def test_the_best_choice_within_the_budget_is_nearly_found(
    sampler: Sampler, trials: int, margin: float, tmp_path: Path
) -> None:
    every = (truth(widths) for widths in itertools.product((4, 8), repeat=len(GROUPS)))
    optimum = max(outcome.score for outcome in every if outcome.size_bytes <= BUDGET.limit)
    asked, chosen_by = Counted(), settings(trials, sampler)
    found = search_bits(GROUPS, asked, chosen_by, tmp_path / "study.log")  # without a greedy start
    best = best_first(found, BUDGET)[0]
    assert len(found) == trials
    assert best.outcome == truth(best.widths)
    assert best.outcome.size_bytes <= BUDGET.limit
    assert optimum - margin <= best.outcome.score <= optimum  # losses of single groups reach 0.03
    assert len(asked.asked) == len(set(asked.asked))  # none was evaluated again


def test_a_search_starts_with_the_choices_it_is_given(tmp_path: Path) -> None:
    points, asked = starting_points(GROUPS, BUDGET, OVERHEAD), Counted()
    enqueue(tmp_path / "study.log", GROUPS, settings(5), points)
    search_bits(GROUPS, asked, settings(5), tmp_path / "study.log")
    assert asked.asked[: len(points)] == points


@pytest.mark.parametrize("sampler", list(Sampler))
def test_a_search_that_is_stopped_goes_on(sampler: Sampler, tmp_path: Path) -> None:
    journal, asked = tmp_path / "study.log", Counted()
    first = search_bits(GROUPS, asked, settings(8, sampler), journal)
    again = search_bits(GROUPS, asked, settings(12, sampler), journal)
    assert len(again) == 12
    assert again[:8] == first
    assert asked.asked == list(dict.fromkeys(trial.widths for trial in again))  # each choice once
    assert search_bits(GROUPS, Counted(0), settings(12, sampler), journal) == again  # nothing is left to do


def test_a_search_that_goes_on_tries_what_it_would_have_tried(tmp_path: Path) -> None:
    whole = search_bits(GROUPS, truth, settings(14), tmp_path / "whole.log")
    for trials in (6, 9, 14):
        parts = search_bits(GROUPS, truth, settings(trials), tmp_path / "parts.log")
    assert parts == whole


def test_an_interrupted_trial_neither_blocks_nor_is_lost_where_it_was_a_start(tmp_path: Path) -> None:
    journal, points = tmp_path / "study.log", starting_points(GROUPS, BUDGET, OVERHEAD)
    enqueue(journal, GROUPS, settings(10), points)
    with pytest.raises(KeyboardInterrupt):
        search_bits(GROUPS, Counted(1), settings(10), journal)  # while it tries the second
    enqueue(journal, GROUPS, settings(10), points)
    asked = Counted()
    found = search_bits(GROUPS, asked, settings(10), journal)
    assert len(found) == 10
    assert asked.asked[:2] == [points[2], points[1]]
    assert points[0] not in asked.asked


def test_an_error_in_a_trial_is_told_and_the_next_run_goes_on(tmp_path: Path) -> None:
    def broken(widths: Widths) -> Outcome:
        raise RecipeError("no graph")

    with pytest.raises(RecipeError, match="no graph"):
        search_bits(GROUPS, broken, settings(4), tmp_path / "study.log")
    assert len(search_bits(GROUPS, truth, settings(4), tmp_path / "study.log")) == 4


KILLED = """
import sys, time
from pathlib import Path
from tests.select.test_search import GROUPS, settings
from pocketvl.select.search import search_bits
def hang(widths):
    print("started", flush=True)
    time.sleep(60)
search_bits(GROUPS, hang, settings(4), Path(sys.argv[1]))
"""


def test_a_trial_of_a_killed_process_blocks_nobody(tmp_path: Path) -> None:
    journal = tmp_path / "study.log"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(journal)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "started\n"
    process.kill()
    process.communicate()
    begin = time.perf_counter()
    found = search_bits(GROUPS, truth, settings(4), journal)
    assert [trial.number for trial in found] == [1, 2, 3, 4]
    assert time.perf_counter() - begin < 20


def test_a_lock_of_a_killed_process_is_broken_whatever_the_journals_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search, "_LOCK_GRACE_S", 3)
    journal = Path("work", "study.log")
    search_bits(GROUPS, truth, settings(1), journal)
    Path("work", "study.log.lock").touch()
    assert len(search_bits(GROUPS, truth, settings(2), journal)) == 2


def other_groups() -> tuple[Group, ...]:
    return (*GROUPS[:-1], Group("text_encoder", ("other",), (4, 8), {4: 1, 8: 2}, {4: 0.1, 8: 0.0}))


@pytest.mark.parametrize(
    ("groups", "budget"),
    [
        (other_groups(), BUDGET),
        (GROUPS[:-1], BUDGET),
        (GROUPS, Budget(BudgetKind.SIZE, BUDGET.limit + 1)),
        (GROUPS, Budget(BudgetKind.LATENCY_MS, BUDGET.limit)),
    ],
)
def test_the_study_of_another_search_is_refused(
    groups: Sequence[Group], budget: Budget, tmp_path: Path
) -> None:
    journal = tmp_path / "study.log"
    before = search_bits(GROUPS, truth, settings(2), journal)
    with pytest.raises(RecipeError, match="study of another search"):
        search_bits(groups, truth, settings(3, budget=budget), journal)
    with pytest.raises(RecipeError, match="study of another search"):
        enqueue(journal, groups, settings(3, budget=budget), [])
    assert search_bits(GROUPS, Counted(0), settings(2), journal) == before


def take_part(journal: Path, ready: Callable[[], object], asked: Path) -> None:
    def slow(widths: Widths) -> Outcome:
        with asked.open("a") as out:
            out.write(json.dumps([os.getpid(), widths]) + "\n")
        time.sleep(0.04)
        return truth(widths)

    ready()
    enqueue(journal, GROUPS, settings(24), starting_points(GROUPS, BUDGET, OVERHEAD))
    search_bits(GROUPS, slow, settings(24), journal)


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    import optuna  # noqa: F401  # so that both forks begin at once

    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    journal, asked = tmp_path / "study.log", tmp_path / "asked.jsonl"
    processes = [context.Process(target=take_part, args=(journal, barrier.wait, asked)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    lines = [json.loads(line) for line in asked.read_text().splitlines()]
    found = search_bits(GROUPS, Counted(0), settings(24), journal)
    assert 24 <= len(found) <= 25  # the other one may be at its last
    by_process = [sum(line[0] == process.pid for line in lines) for process in processes]
    assert min(by_process) >= 5
    distinct = {tuple(widths) for _, widths in lines}
    assert len(lines) - len(distinct) <= 3  # only what both tried at the very same time
    assert distinct == {trial.widths for trial in found}


def test_the_best_come_first_once_each_and_within_the_budget() -> None:
    budget = Budget(BudgetKind.SIZE, 100)
    trials = [
        Trial(0, (4, 4), Outcome(0.5, 80)),
        Trial(1, (8, 8), Outcome(0.9, 101)),
        Trial(2, (4, 8), Outcome(0.7, 100)),
        Trial(3, (8, 4), Outcome(0.7, 90)),
        Trial(4, (4, 8), Outcome(0.7, 100)),
    ]
    assert [trial.number for trial in best_first(trials, budget)] == [3, 2, 0]
    assert best_first(trials, Budget(BudgetKind.SIZE, 10)) == ()


def test_a_limit_of_latency_needs_latencies() -> None:
    budget = Budget(BudgetKind.LATENCY_MS, 5)
    trials = [Trial(0, (4,), Outcome(0.9, 1, 5.1)), Trial(1, (8,), Outcome(0.5, 9, 4.9))]
    assert [trial.number for trial in best_first(trials, budget)] == [1]
    with pytest.raises(RecipeError, match="latencies that were measured"):
        Outcome(0.5, 100).cost(budget)


def test_a_choice_tried_before_is_not_evaluated_again(tmp_path: Path) -> None:
    groups, asked = GROUPS[:2], list[Widths]()

    def outcome(widths: Widths) -> Outcome:
        asked.append(widths)
        return Outcome(0.1 * sum(widths), sum(widths))

    told: list[tuple[int, int]] = []
    found = search_bits(
        groups,
        outcome,
        settings(14, budget=Budget(BudgetKind.SIZE, 12)),
        tmp_path / "study.log",
        lambda done, total, what: told.append((done, total)),
    )
    assert len(found) == 14
    assert len(asked) == len(set(asked)) <= 4
    assert told == [(done, 14) for done in range(15)]
    by_widths = {trial.widths: trial.outcome for trial in found}
    assert all(trial.outcome == by_widths[trial.widths] for trial in found)


def test_a_search_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code = (
        "import sys; from pathlib import Path; from tests.select.test_search import *\n"
        "enqueue(Path(sys.argv[1]), GROUPS, settings(2), [(8,) * 8])\n"
        "search_bits(GROUPS, truth, settings(2), Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "study.log")], cwd=ROOT, check=True)
    assert capfd.readouterr() == ("", "")
