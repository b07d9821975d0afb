"""The runner notices what must not happen, names it, saves it, and goes on."""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pocketvl_runtime.errors import InputError
from tests.fuzz.runner import Limits, run, save
from tests.fuzz.target import Finding, refusal
from tests.fuzz.toy import Toy

LIMITS = Limits(cpu_seconds=1, seconds=4, size_bytes=50 * 2**20)
GROWTH = 100 * 2**20


def _crash() -> str:
    os.write(2, b"the engine says why\n")
    os.kill(os.getpid(), signal.SIGSEGV)
    return "never"


def _compute() -> str:
    begun = time.process_time()
    while time.process_time() < begun + 1.1:
        pass
    return "late"


def _wait() -> str:
    time.sleep(60)
    return "never"


def _grow() -> str:
    with mmap.mmap(-1, GROWTH) as memory:  # from the system: an allocator might have as much to spare
        memory[:: mmap.PAGESIZE] = b"x" * (GROWTH // mmap.PAGESIZE)
    return "grown"


def _raise(error: BaseException) -> str:
    raise error


LINE = _raise.__code__.co_firstlineno + 1
DEEDS: dict[str, tuple[Callable[[], str], str, str]] = {
    "answers": (lambda: "an answer", "an answer", ""),
    "refuses": (lambda: refusal(InputError("no picture")), "InputError", ""),
    "refuses in two lines": (
        lambda: refusal(InputError("no\npicture")),
        "InputError whose message is not one line",
        "no",
    ),
    "says nothing": (lambda: refusal(InputError("")), "InputError whose message is not one line", "''"),
    "says too much": (
        lambda: refusal(InputError("x" * 5000)),
        "InputError whose message has more than 2000 characters",
        "xxx",
    ),
    "finds": (lambda: _raise(Finding("wrong", "2 for 3")), "wrong", "2 for 3"),
    "raises": (
        lambda: _raise(ValueError("7")),
        f"ValueError in test_runner.py:{LINE}, _raise",
        "ValueError: 7",
    ),
    "panics": (
        lambda: _raise(BaseException("p")),
        f"BaseException in test_runner.py:{LINE}, _raise",
        "BaseException: p",
    ),
    "crashes": (_crash, "dies of SIGSEGV", "the engine says why"),
    "ends": (lambda: os._exit(3), "ends the process with 3", "ends the process with 3"),
    "computes": (_compute, "computes for too long", "then: late"),
    "waits": (_wait, "does not come to an end", "does not come to an end"),
    "grows": (_grow, "takes too much memory", "MiB, then: "),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_what_happens_is_named_and_the_next_case_is_run(
    deed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    act, outcome, detail = DEEDS[deed]
    first = Toy().make(random.Random("toy:5")).what
    monkeypatch.setattr(Toy, "check", lambda _, case: act() if case.what == first else "the next")
    result, after = run(Toy(), [5, 6], tmp_path / "log", LIMITS)
    assert result.outcome == outcome
    assert result.is_finding == bool(detail)
    assert detail in result.detail
    assert (result.what, after.outcome) == (first, "the next")


def test_a_finding_is_saved_with_what_shows_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Toy, "check", lambda *_: _raise(ValueError("7")))
    (result,) = run(Toy(), [5], tmp_path / "log", LIMITS)
    place = save(result, Toy(), tmp_path / "found")
    assert place.name == "toy-5"
    assert (place / "folder_input").read_bytes() == b"input"
    told = json.loads((place / "finding.json").read_text())
    assert told["reproduce"] == ".venv/bin/python -m tests.fuzz --target toy --case 5"
    assert "ValueError: 7" in told["detail"]
