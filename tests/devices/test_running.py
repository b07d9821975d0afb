"""Commands that bench: what they say while they run, and how they end."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from pocketvl.devices.running import CommandError, run_command
from pocketvl_runtime.errors import BackendError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_stdout_is_the_answer_and_stderr_tells_progress() -> None:
    told: list[tuple[int, int, str]] = []
    code = (
        "import sys\n"
        "for k in range(1, 4): print(f'{k}/3 timing', 'a b', file=sys.stderr)\n"
        "print('warning: hot', file=sys.stderr)\n"
        "print('x' * 300_000)\n"
    )
    answer = run_command(python(code), "it", 60, lambda *news: told.append(news))
    assert answer == "x" * 300_000 + "\n"
    assert told == [(k, 3, "timing a b") for k in (1, 2, 3)]


def test_progress_is_told_while_it_runs() -> None:
    code = "import sys, time; print('1/2 a', file=sys.stderr, flush=True); time.sleep(1.5)"
    begin, told = time.monotonic(), []
    run_command(python(code), "it", 60, lambda *news: told.append(time.monotonic()))
    assert told[0] < time.monotonic() - 1
    assert begin < told[0]


def test_the_last_line_of_an_error_is_in_the_message() -> None:
    code = "import sys; print('1/2 a\\nnote: x\\nerror: no such file', file=sys.stderr); sys.exit(1)"
    with pytest.raises(CommandError, match=r"^the bench failed: no such file$") as caught:
        run_command(python(code), "the bench")
    assert (caught.value.status, caught.value.lines) == (1, ("note: x", "error: no such file"))


def test_a_silent_error_has_its_status() -> None:
    with pytest.raises(CommandError, match=r"^it failed: exit status 3$"):
        run_command(python("raise SystemExit(3)"), "it")


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"^it cannot start: .*/none: No such file or directory$"):
        run_command([str(tmp_path / "none")], "it")


def test_what_takes_too_long_is_ended() -> None:
    begin = time.monotonic()
    with pytest.raises(CommandError, match=r"^it took longer than 0\.5 s and was ended$") as caught:
        run_command(python("import time; time.sleep(60)"), "it", 0.5)
    assert caught.value.status is None
    assert time.monotonic() - begin < 20


def test_an_interruption_ends_the_command(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(done: int, total: int, what: str) -> None:
        raise StopError

    pid = tmp_path / "pid"
    code = (
        f"import os, sys, time; open({str(pid)!r}, 'w').write(str(os.getpid()))\n"
        "print('1/2 a', file=sys.stderr, flush=True); time.sleep(60)"
    )
    with pytest.raises(StopError):
        run_command(python(code), "it", 60, stop)
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


def test_what_goes_on_in_the_background_is_not_waited_for() -> None:
    code = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)'])\n"  # it keeps stderr open
        "print('done')\n"
    )
    begin = time.monotonic()
    assert run_command(python(code), "it", 60) == "done\n"
    assert time.monotonic() - begin < 20
