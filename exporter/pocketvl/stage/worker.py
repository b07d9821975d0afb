"""A worker process that runs stages, one at a time, beside this one.

It is started by itself and not by `multiprocessing`, which imports the main module again: a script that
exports a model without asking for its `__name__` would run once more in there.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from pocketvl.errors import StageError
from pocketvl.launch import set_up_process
from pocketvl.stage.base import Inputs, Stage
from pocketvl.stage.memory import trimmed_memory

_PROGRAM = "from pocketvl.stage.worker import serve; serve()"

Paths = Mapping[str, tuple[Path, ...]]


class Worker:
    """The process, and what waits for it."""

    def __init__(self, process: subprocess.Popen[bytes], thread: ThreadPoolExecutor) -> None:
        self._process = process
        self._thread = thread

    def run(self, stage: Stage, paths: Paths, out: Path) -> Future[float]:
        """Let it run a stage after those before.

        Args:
            stage: which.
            paths: of its inputs.
            out: an empty folder for its result.

        Returns:
            Will be the seconds it took, or the error that the stage raised.
        """
        return self._thread.submit(self._run, pickle.dumps((stage, paths, out)), stage.title)

    def warm_up(self, stage: Stage) -> None:
        """Let it get ready for a stage; what goes wrong is told when that is run."""
        self._thread.submit(self._run, pickle.dumps((stage, None, None)), stage.title)

    def _run(self, job: bytes, title: str) -> float:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(job)
            process.stdin.flush()
            found = pickle.load(process.stdout)  # from our own process
        except (OSError, EOFError) as error:
            raise StageError(f"{title}: the process that did it ended ({process.wait()})") from error
        if isinstance(found, Exception):
            raise found
        seconds: float = found
        return seconds


@contextmanager
def worker_process() -> Iterator[Worker]:
    """Start the process; at the end it is gone, whatever it was doing."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    thread = ThreadPoolExecutor(1)
    try:
        yield Worker(process, thread)
    finally:
        process.kill()
        thread.shutdown(cancel_futures=True)
        process.communicate()


def serve() -> None:
    """In the process: run stages from stdin until there are no more; what they print goes to stderr.

    What interrupts a command reaches all of its processes; this one leaves it to the one that started it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    set_up_process()
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        while _serve_one(sys.stdin.buffer, answers):
            pass


def _serve_one(jobs: BinaryIO, answers: BinaryIO) -> bool:
    try:
        stage, paths, out = pickle.load(jobs)  # from the process that started this one
    except EOFError:
        return False
    begin = time.perf_counter()
    found: float | Exception
    try:
        if out is None:
            stage.warm_up()
        else:
            with trimmed_memory():
                stage.run(Inputs(paths), out)
        found = time.perf_counter() - begin
    except Exception as error:
        found = _portable(error)
    pickle.dump(found, answers)
    answers.flush()
    return True


def _portable(error: Exception) -> Exception:
    """An error as it is, or what it says where it cannot be sent to another process."""
    try:
        pickle.loads(pickle.dumps(error))  # our own
    except Exception:
        return StageError(f"{type(error).__name__}: {error}")
    return error
