"""Where nobody watches, a log shows that long work goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from pocketvl import console
from pocketvl.stage import Event, EventKind, Inputs, Stage


@dataclass(frozen=True)
class Work(Stage):
    """A stage that is only shown."""

    @property
    def title(self) -> str:
        return "work hard"

    def run(self, source: Inputs, out: Path) -> None:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "HEARTBEAT_S", 0.05)


def wait_for(text: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What stderr holds once the text is in it."""
    seen, end = "", time.monotonic() + 20
    while text not in seen:
        assert time.monotonic() < end, seen
        time.sleep(0.01)
        seen += capsys.readouterr().err
    return seen


def test_a_stage_that_takes_long_says_again_what_it_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with console.stage_lines() as show:
        show(Event(EventKind.STARTED, Work(), 1, 3))
        wait_for("[1/3] work hard (0 s so far)", capsys)
        show(Event(EventKind.PROGRESS, Work(), 1, 3, progress=(5, 90, "samples")))
        wait_for("[1/3] work hard: 5/90 samples (0 s so far)", capsys)
        show(Event(EventKind.DONE, Work(), 1, 3, seconds=0.2))
        assert "done in 0.2 s" in wait_for("done", capsys)
        time.sleep(0.2)
    assert "so far" not in capsys.readouterr().err  # nothing is being done any more


def test_a_bar_does_so_too(capsys: pytest.CaptureFixture[str]) -> None:
    with console.bar() as show:
        show(1, 1000, "scenes")
        wait_for("1/1000 scenes (0 s so far)", capsys)
        show(1000, 1000, "scenes")
        wait_for("1000/1000 scenes", capsys)
        time.sleep(0.2)
    assert "so far" not in capsys.readouterr().err
