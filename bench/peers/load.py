"""How busy other programs keep the machine, before and while something is timed; which rounds count."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from pocketvl.errors import DataError
from pocketvl_runtime.sensors import ROOT, ProcessorTime

LIMIT = 0.3
"""Processors that other programs may keep busy."""
LEAST_ROUNDS = 10
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class OtherLoad:
    """Counts processors that programs other than this one and its workers keep busy."""

    def __init__(self, workers: Iterable[int] = (), root: Path = ROOT) -> None:
        """Args: workers: process ids that are no other load. root: of the file system."""
        self._processors, self._workers, self._root = ProcessorTime(root), tuple(workers), root
        self._before = self._now()

    def since(self) -> tuple[float, float]:
        """Processors that others, and the workers, kept busy since the last call; 0 where it is not told."""
        before, self._before = self._before, self._now()
        seconds = max(self._before[0] - before[0], 1e-9)
        busy, own, workers = (self._before[index] - before[index] for index in (1, 2, 3))
        return max(0.0, (busy - own - workers) / seconds), workers / seconds

    def _now(self) -> tuple[float, float, float, float]:
        workers = sum(process_cpu_s(pid, self._root) for pid in self._workers)
        return time.perf_counter(), self._processors.busy_s() or 0.0, time.process_time(), workers


def process_cpu_s(pid: int, root: Path = ROOT) -> float:
    """CPU seconds that a process has used, all its threads; 0: it is gone."""
    try:
        fields = (root / f"proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S  # utime, stime: fields 14 and 15 of proc(5)


def check_before(busy: float, any_load: bool) -> None:
    """Refuse a machine that others use.

    Raises:
        DataError: more than `LIMIT` processors are busy, and that is not allowed.
    """
    if busy > LIMIT and not any_load:
        raise DataError(
            f"other programs keep {busy:.2f} processors busy, and at most {LIMIT} may be: wait, or measure "
            "with --any-load, which the page says"
        )


def quiet_rounds(busy: Sequence[float]) -> tuple[tuple[int, ...], bool]:
    """Indices of the rounds that count, and whether too few were quiet, so that all do.

    Args:
        busy: of each round, processors that others kept busy.
    """
    quiet = tuple(index for index, load in enumerate(busy) if load <= LIMIT)
    if len(quiet) >= min(LEAST_ROUNDS, len(busy)):
        return quiet, False
    return tuple(range(len(busy))), True
