"""The processes of one launch (`torchrun`, `accelerate launch`), which train together, and workers of one.

All of them run the same command. What is not training is done by the first of them alone; the others wait
for what it leaves in the cache, which all of them must be able to read. To a training the first one calls
them, for it alone knows whether somebody else has come to its end meanwhile.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.pool import Pool
from pathlib import Path

from pocketvl_runtime.cpus import usable_processors

_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
_RANKS = ("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK")
_OF_A_LAUNCH = ("MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT")
_CALL = "launch"
_SPINS = 5_000


def set_up_process() -> None:
    """Prepare a process of pocketvl's own, before it imports torch.

    A thread of OpenMP (GNU's, which torch's wheels bring) that waits for the others looks 300,000 times
    before it gives up its processor: as long as what it waits for takes, where another process is at work on
    the same processors. And torchao, which transformers imports, makes torch warn of what concerns nobody.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPINS))
    logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)


def processes() -> int:
    """How many there are; 1 for a command that was started by itself."""
    return _number(_SIZES, 1)


def is_first() -> bool:
    """Whether this process is the first of its launch, or the only one."""
    return processes() == 1 or _number(_RANKS, 0) == 0


def call_others(work: Path) -> None:
    """Tell the other processes of this launch to work in a folder, too."""
    if processes() > 1:
        (work / _CALL).write_text(_launch(), encoding="utf-8")


def is_called(work: Path) -> bool:
    """Whether the first process of this launch wants the others to work in a folder."""
    try:
        return (work / _CALL).read_text(encoding="utf-8") == _launch()
    except OSError:
        return False


@contextmanager
def worker_processes(count: int | None = None) -> Iterator[Pool]:
    """Processes that share some work, as many as there are processors to use where nothing is said.

    What interrupts a command reaches all of its processes; these leave it to the one that started them, which
    ends them, whatever happens.
    """
    with _interrupts_ignored():  # which they inherit
        processes = multiprocessing.get_context("spawn").Pool(count or usable_processors())
    with processes:
        yield processes


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _launch() -> str:
    """Identify this launch among those before it."""
    return " ".join(os.environ.get(name, "") for name in _OF_A_LAUNCH)


def _number(names: tuple[str, ...], otherwise: int) -> int:
    return next((int(os.environ[name]) for name in names if os.environ.get(name, "").isdigit()), otherwise)
