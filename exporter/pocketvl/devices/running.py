"""Runs a command that benches, here or behind a connection: progress meanwhile, one error where it fails."""

from __future__ import annotations

import queue
import re
import subprocess
import tempfile
import time
from collections.abc import Sequence
from threading import Thread
from typing import IO

from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.progress import Progress

PROGRESS_OPTION = "--progress-lines"
"""Makes `pocketvl-run bench` say `DONE/TOTAL WHAT` on stderr, a line a round."""

_PROGRESS = re.compile(r"(\d+)/(\d+) (.*)")
_POLL_S = 0.1
_END_S = 5.0
_MOST_LINES = 50


class CommandError(BackendError):
    """A command ended with an error, or was ended because it took too long.

    Attributes:
        status: its exit status; None where it was ended.
        lines: the last lines that it wrote to stderr, without progress.
    """

    def __init__(self, message: str, status: int | None, lines: Sequence[str]) -> None:
        super().__init__(message)
        self.status = status
        self.lines = tuple(lines)


def run_command(
    command: Sequence[str],
    what: str,
    timeout_s: float | None = None,
    progress: Progress | None = None,
) -> str:
    """Runs a command to its end, and gives what it wrote to stdout.

    Whatever ends this call ends the command too.

    Args:
        command: program and arguments.
        what: what it does, for messages, e.g. "the bench of tflite-int8".
        timeout_s: seconds that it may take; None: any time.
        progress: told of the progress lines on its stderr.

    Raises:
        CommandError: it ended with an error, or took too long.
        BackendError: it cannot be started.
    """
    with tempfile.TemporaryFile() as written:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=written, stderr=subprocess.PIPE, bufsize=0
            )
        except OSError as error:
            raise BackendError(f"{what} cannot start: {command[0]}: {error.strerror or error}") from error
        try:
            lines = _follow(process, timeout_s, progress)
        finally:
            _end(process)
        status = None if lines is None else process.returncode
        if lines is None:
            raise CommandError(f"{what} took longer than {timeout_s:g} s and was ended", None, ())
        if status != 0:
            last = lines[-1].removeprefix("error: ") if lines else f"exit status {status}"
            raise CommandError(f"{what} failed: {last}", status, lines)
        written.seek(0)
        return written.read().decode("utf-8", "replace")


def _follow(
    process: subprocess.Popen[bytes], timeout_s: float | None, progress: Progress | None
) -> list[str] | None:
    """The last lines of a process's stderr, when it has ended; None: it takes too long.

    Its end is what counts, not that of stderr, which what it started in the background may keep open.
    """
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    assert process.stderr is not None
    reader = Thread(target=_read, args=(process.stderr, said), daemon=True)
    reader.start()
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    lines: list[str] = []
    while process.poll() is None:
        if deadline is not None and time.monotonic() > deadline:
            return None
        _take(said, _POLL_S, lines, progress)
    reader.join(_POLL_S)
    while not said.empty():
        _take(said, 0, lines, progress)
    return lines


def _take(said: queue.SimpleQueue[str], wait_s: float, lines: list[str], progress: Progress | None) -> None:
    try:
        line = said.get(timeout=wait_s)
    except queue.Empty:
        return
    news = _PROGRESS.fullmatch(line)
    if news is None:
        lines.append(line)
        del lines[:-_MOST_LINES]
    elif progress is not None:
        progress(int(news[1]), int(news[2]), news[3])


def _read(stderr: IO[bytes], said: queue.SimpleQueue[str]) -> None:
    for line in stderr:
        text = line.decode("utf-8", "replace").strip()
        if text:
            said.put(text)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process that still runs, at first so that it can put things in order."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
