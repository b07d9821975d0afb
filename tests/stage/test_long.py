"""Long work is done by another process, beside what does not need it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketvl.errors import DataError
from pocketvl.stage import Event, EventKind, Inputs, plan, run, schedule
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
