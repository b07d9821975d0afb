"""Whatever happens, a command ends with a status and at most one line about it."""

from __future__ import annotations

import click
import pytest

from pocketvl_runtime.console import printable, run_command
from pocketvl_runtime.errors import InputError


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
