"""Whatever happens, a command ends with a status and at most one line about it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import click
import pytest

from pocketvl_runtime.console import printable, run_command, say_line
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.native_stderr import native_stderr

ESCAPED = r"\x1b"


def failing(error: BaseException) -> click.Command:
    @click.command()
    def command() -> None:
        raise error

    return command


def run(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["it"])
    with pytest.raises(SystemExit) as stop:
        run_command(failing(error), "it")
    return stop.value.code


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("a picture\nis none"), 1, "error: a picture is none"),
        (RuntimeError("one\n  two"), 1, "error: unexpected RuntimeError: one two"),
        (KeyError("x"), 1, "error: unexpected KeyError: 'x'"),
        (RecursionError(), 1, "error: unexpected RecursionError:"),
        (MemoryError(), 1, "error: unexpected MemoryError:"),
        (UserWarning("its end was cut off"), 1, "error: its end was cut off"),
        (FileNotFoundError(2, "No such file", "x"), 1, "error: x: No such file"),
        (InputError("\x1b[31mred\x07 \u202eder"), 1, r"error: \x1b[31mred\x07 \u202eder"),
        (InputError("a" * 10**6 + "; copy it"), 1, f"error: {'a' * 146}\u2026{'a' * 137}; copy it"),
        (
            InputError("\x1b" * 400),
            1,
            f"error: {ESCAPED * 36}{ESCAPED[:2]}\u2026{ESCAPED[2:]}{ESCAPED * 36}",
        ),
        (RuntimeError("b" * 1000), 1, f"error: unexpected RuntimeError: {'b' * 121}\u2026{'b' * 146}"),
        (OSError(2, "No such file", "x" * 1000), 1, f"error: {'x' * 146}\u2026{'x' * 132}: No such file"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
    ],
)
def test_an_error_is_one_line(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("POCKETVL_DEBUG", raising=False)
    assert run(error, monkeypatch) == code
    told = capsys.readouterr()
    assert (told.out, told.err.strip()) == ("", line)


def test_debugging_shows_where_it_happened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["it"])
    monkeypatch.setenv("POCKETVL_DEBUG", "1")
    with pytest.raises(RuntimeError, match="here"):
        run_command(failing(RuntimeError("here")), "it")
    assert run(InputError("known"), monkeypatch) == 1
    monkeypatch.setenv("POCKETVL_DEBUG", "0")
    assert run(RuntimeError("here"), monkeypatch) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve 日本　語 🦊", "naïve 日本　語 🦊"),
        ("👩‍👩‍👧 क्‍ष", "👩‍👩‍👧 क्‍ष"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("a\r\nb\tc\x7f\x9b", r"a\r\nb\tc\x7f\x9b"),
        ("\u202egnp.exe\u2066", r"\u202egnp.exe\u2066"),
        ("\u2028\u2029\udcff", r"\u2028\u2029\udcff"),
    ],
)
def test_what_would_steer_the_terminal_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_warnings_and_notes_are_short_too(capsys: pytest.CaptureFixture[str]) -> None:
    for kind in ("warning", "note"):
        say_line(kind, "x\n" * 1000)
        line = capsys.readouterr().err
        assert len(line) == 301
        assert line.startswith(f"{kind}: x x x")


def command(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of which `code` is the body."""
    lines = "\n    ".join(code.splitlines())
    program = (
        "import os, threading, click\n"
        "from pocketvl_runtime.console import run_command\n"
        "from pocketvl_runtime.errors import InputError\n"
        "from pocketvl_runtime.native_stderr import native_stderr\n"
        f"@click.command()\ndef it():\n    {lines}\n"
        "run_command(it, 'it')\n"
    )
    environment = os.environ | {"POCKETVL_DEBUG": "0"} | environment
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=False
    )


FAILING = "with native_stderr():\n    os.write(2, b'thread panicked\\n')\n    raise InputError('it failed')"


def test_what_native_code_says_of_an_error_is_held_back_in_a_command() -> None:
    assert command(FAILING).stderr == "error: it failed\n"
    assert command(FAILING, POCKETVL_DEBUG="1").stderr == "thread panicked\nerror: it failed\n"


def test_what_native_code_says_without_an_error_is_shown() -> None:
    code = "for k in range(2):\n    with native_stderr():\n        os.write(2, b'said %d\\n' % k)"
    assert command(code).stderr == "said 0\nsaid 1\n"


def test_threads_that_hold_back_at_once_do_not_wait_for_each_other() -> None:
    code = (
        "barrier = threading.Barrier(4, timeout=20)\n"
        "def say():\n"
        "    with native_stderr():\n"
        "        barrier.wait()\n"
        "        os.write(2, b'said\\n')\n"
        "threads = [threading.Thread(target=say) for _ in range(4)]\n"
        "[thread.start() for thread in threads]\n"
        "[thread.join() for thread in threads]"
    )
    assert command(code).stderr == "said\n" * 4


def test_a_library_leaves_stderr_alone(capfd: pytest.CaptureFixture[str]) -> None:
    with native_stderr():
        os.write(2, b"said\n")
        assert capfd.readouterr().err == "said\n"  # at once


@pytest.mark.parametrize(
    ("number", "line"),
    [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "terminated"), (signal.SIGHUP, "hung up")],
)
@pytest.mark.parametrize("within", ["plain", "finalizer"])
def test_a_signal_is_one_line_even_if_it_comes_while_an_object_is_finalized(
    number: signal.Signals,
    line: str,
    within: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    class Last:
        def __del__(self) -> None:
            signal.raise_signal(number)

    @click.command()
    def command() -> None:
        if within == "plain":
            signal.raise_signal(number)
        else:
            last = Last()
            del last
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)

    monkeypatch.setattr("sys.argv", ["it"])
    before = [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]
    with pytest.raises(SystemExit) as stop:
        run_command(command, "it")
    assert stop.value.code == 128 + number
    assert capfd.readouterr().err.strip() == f"error: {line}"
    assert before == [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]


def test_the_same_request_twice_does_not_disturb_the_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left: list[str] = []

    @click.command()
    def command() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            signal.raise_signal(signal.SIGTERM)
            left.append("in order")

    monkeypatch.setattr("sys.argv", ["it"])
    with pytest.raises(SystemExit):
        run_command(command, "it")
    assert left == ["in order"]
