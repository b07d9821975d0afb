"""Long work is done by another process, beside what does not need it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from pocketvl.errors import DataError
from pocketvl.stage import Event, EventKind, Inputs, Stage, plan, run, schedule
from tests.stage.toy import Join, Letters, Repeat


@dataclass(frozen=True)
class Long(Repeat):
    """A `Repeat` that says which process it ran in."""

    fails: bool = False

    def is_long(self, source: Inputs) -> bool:
        return any(source["texts"].rglob("*.txt"))

    def run(self, source: Inputs, out: Path) -> None:
        if self.fails:
            raise DataError("the texts are too short")
        super().run(source, out)
        (out / "process").write_text(str(os.getpid()))


@pytest.fixture(autouse=True)
def two_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "usable_processors", lambda: 2)


@pytest.fixture
def letters(tmp_path: Path) -> Letters:
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "a.txt").write_text("a" * 20)
    return Letters(folder)


def test_long_work_is_done_elsewhere_and_others_go_on(letters: Letters, tmp_path: Path) -> None:
    long, short = Long(letters), Repeat(letters, 2)
    told: list[Event] = []
    results = run(plan([Join((long, short))]), tmp_path / "cache", told.append)
    assert (results[long].folder / "all.txt").read_text() == "A" * 60
    assert int((results[long].folder / "process").read_text()) != os.getpid()
    steps = [(event.kind, event.stage) for event in told if event.kind is not EventKind.PROGRESS]
    assert steps.index((EventKind.STARTED, short)) < steps.index((EventKind.DONE, long))
    again: list[Event] = []
    run(plan([Join((long, short))]), tmp_path / "cache", again.append)
    assert {event.kind for event in again} == {EventKind.CACHED}


def test_two_of_them_take_turns_in_one_process(letters: Letters, tmp_path: Path) -> None:
    first, then = Long(letters, 1), Long(letters, 2)
    results = run(plan([first, then]), tmp_path / "cache")
    processes = {(results[stage].folder / "process").read_text() for stage in (first, then)}
    assert len(processes) == 1


@dataclass(frozen=True)
class Along(Long):
    """What another process does where it is there."""

    goes_along: ClassVar[bool] = True

    def is_long(self, source: Inputs) -> bool:
        return False


def test_short_work_goes_along_where_the_process_is_there(letters: Letters, tmp_path: Path) -> None:
    along, long, here = Along(letters, 1), Long(letters, 2), Repeat(letters, 2, pause_s=2.0)

    def process(stages: list[Stage], cache: str) -> int:
        folder = run(plan(stages), tmp_path / cache)[along].folder
        return int((folder / "process").read_text())

    assert process([along], "alone") == os.getpid()
    assert process([long, along, here], "both") != os.getpid()


def test_and_is_taken_back_where_this_one_has_nothing_else_to_do(letters: Letters, tmp_path: Path) -> None:
    along, long = Along(letters, 1), Long(letters, 2, pause_s=2.0)
    told: list[Event] = []
    results = run(plan([long, along]), tmp_path / "cache", told.append)
    assert int((results[along].folder / "process").read_text()) == os.getpid()
    assert int((results[long].folder / "process").read_text()) != os.getpid()
    steps = [(event.kind, event.stage) for event in told if event.kind is not EventKind.PROGRESS]
    assert steps.index((EventKind.DONE, along)) < steps.index((EventKind.DONE, long))
    assert len(steps) == 6  # each begins and ends once, the letters too


@dataclass(frozen=True)
class Warm(Long):
    """Says whether its process was made ready for it."""

    expected: bool = True

    def may_be_long(self) -> bool:
        return self.expected

    def warm_up(self) -> None:
        os.environ["READY"] = "yes"

    def run(self, source: Inputs, out: Path) -> None:
        super().run(source, out)
        (out / "ready").write_text(os.environ.get("READY", "no"))


@pytest.mark.parametrize(("expected", "ready"), [(True, "yes"), (False, "no")])
def test_the_process_gets_ready_while_inputs_are_made(
    expected: bool, ready: str, letters: Letters, tmp_path: Path
) -> None:
    before = Repeat(letters, 2)
    warm = Warm(before, 1, expected=expected)
    folder = run(plan([warm]), tmp_path / "cache")[warm].folder
    assert (folder / "ready").read_text() == ready


def test_no_process_gets_ready_for_what_is_there(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm = Warm(Repeat(letters, 2), 1)
    run(plan([warm]), tmp_path / "cache")
    started: list[int] = []
    monkeypatch.setattr(schedule, "worker_process", lambda: started.append(1))
    run(plan([warm, Repeat(letters, 5)]), tmp_path / "cache")
    assert not started


def test_what_another_process_has_done_is_taken_before_more_is_done_here(
    letters: Letters, tmp_path: Path
) -> None:
    long = Long(letters)
    after, others = Along(long), tuple(Repeat(letters, times, pause_s=0.5) for times in (4, 1))
    told: list[Event] = []
    run(plan([Join((long, *others, after))]), tmp_path / "cache", told.append)
    steps = [(event.kind, event.stage) for event in told if event.kind is not EventKind.PROGRESS]
    assert steps.index((EventKind.STARTED, after)) < steps.index((EventKind.STARTED, others[1]))


@dataclass(frozen=True)
class Settings(Along):
    """Says how long OpenMP's threads of the process look for work."""

    def run(self, source: Inputs, out: Path) -> None:
        (out / "spins").write_text(os.environ.get("GOMP_SPINCOUNT", ""))


@pytest.mark.parametrize(("policy", "spins"), [(None, "5000"), ("ACTIVE", "")])
def test_threads_of_the_process_soon_give_up_their_processor(
    policy: str | None, spins: str, letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    if policy is not None:
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    told = Settings(letters)
    stages = [Long(letters), told, Repeat(letters, 2, pause_s=2.0)]
    folder = run(plan(stages), tmp_path / "cache")[told].folder
    assert (folder / "spins").read_text() == spins


def test_on_one_processor_it_is_done_here(
    letters: Letters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule, "usable_processors", lambda: 1)
    long = Long(letters)
    folder = run(plan([long]), tmp_path / "cache")[long].folder
    assert int((folder / "process").read_text()) == os.getpid()


def test_what_fails_elsewhere_fails_here_and_leaves_nothing(letters: Letters, tmp_path: Path) -> None:
    cache, wanted = tmp_path / "cache", Join((Long(letters, fails=True), Repeat(letters, 2)))
    with pytest.raises(DataError, match="the texts are too short"):
        run(plan([wanted]), cache)
    assert list((cache / "long").iterdir()) == []
    assert len(list((cache / "repeat").iterdir())) == 1


def test_what_fails_here_ends_the_other_process(letters: Letters, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    long = Long(letters, 100, pause_s=1.0)
    with pytest.raises(ValueError, match="non-negative"):
        run(plan([Join((long, Repeat(letters, pause_s=-2.0)))]), cache)
    assert list((cache / "long").iterdir()) == []
