"""After a stage that makes the process grow, what nothing refers to is looked for."""

from __future__ import annotations

import gc
import mmap

import pytest

from pocketvl.stage.memory import trimmed_memory

LARGE = 100 << 20


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    found: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: found.append(1))
    return found


def test_it_is_looked_for_where_the_process_has_grown(looks: list[int]) -> None:
    with mmap.mmap(-1, LARGE) as memory:  # the C library might hand out again what an earlier test has freed
        with trimmed_memory():
            memory[:: mmap.PAGESIZE] = b"x" * (LARGE // mmap.PAGESIZE)
        assert len(looks) == 1


def test_and_nowhere_else(looks: list[int]) -> None:
    with trimmed_memory():
        bytearray(1 << 20)
    assert looks == []
