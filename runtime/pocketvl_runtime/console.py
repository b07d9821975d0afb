"""What the two commands share: one-line errors, exit codes, warnings and bars on stderr."""

from __future__ import annotations

import os
import signal
import sys
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from typing import TextIO

import click

from pocketvl_runtime.disk import full_disk, reason
from pocketvl_runtime.errors import PocketVLError, shortened
from pocketvl_runtime.native_stderr import held_for_command
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.signals import SAID, EndRequested, signals_raised

MAX_LINE_CHARS = 300
"""No error, warning or note is longer: what it quotes may come out of somebody else's file."""

_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control, format, surrogate and separator characters
_JOINERS = "\u200c\u200d"  # these are format characters too, but words and emoji are written with them


def run_command(command: click.Command, name: str) -> None:
    """Runs a click command and ends the process: 0 good, 1 one clear line on stderr, 2 wrong usage.

    What nobody expected is one line too; its traceback is shown where POCKETVL_DEBUG=1. Where the reader of
    stdout has gone away, click itself ends the process: quietly, with 1. A signal that asks for the end
    (SIGINT, SIGTERM, SIGHUP) is an exception, so that what is temporary goes; the status is 128 + its number.
    """
    warnings.showwarning = _show_warning
    _open_streams()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    try:
        with signals_raised(), held_for_command():
            command.main(prog_name=name, standalone_mode=False)
        _flush_stdout()
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 128 + signal.SIGINT)
    except EndRequested as asked:
        _fail(SAID[asked.number], 128 + asked.number)
    except (PocketVLError, Warning) as error:  # a warning where the user asked for -W error
        _fail(str(error))
    except OSError as error:
        if _drop_stdout():
            _fail(f"stdout: {reason(error)}")
        place = f"{error.filename}: " if error.filename else ""
        _fail(full_disk(error) or place + reason(error))
    except Exception as error:
        if os.environ.get("POCKETVL_DEBUG") == "1":
            raise
        _fail(full_disk(error) or f"unexpected {type(error).__name__}: {error}")
    sys.exit(0)


def printable(text: str) -> str:
    """A text as it may be shown: what would steer the terminal, or breaks the line, is escaped."""
    return "".join(
        c.encode("unicode_escape").decode("ascii")
        if unicodedata.category(c) in _STEERING and c not in _JOINERS
        else c
        for c in text
    )


@contextmanager
def bar(label: str, *, as_lines: bool = False) -> Iterator[Progress]:
    """A progress bar on stderr, drawn only where somebody looks; gives the callback that moves it.

    Args:
        label: what is done.
        as_lines: for a program that reads them, lines `DONE/TOTAL WHAT` instead of the bar.
    """
    if as_lines:
        yield lambda done, total, what: click.echo(f"{done}/{total} {what}", err=True)
        return
    if not sys.stderr.isatty():
        yield lambda done, total, what: None
        return
    shown = {"length": 0, "done": 0}
    with click.progressbar(length=1, label=label, file=sys.stderr) as drawn:

        def tell(done: int, total: int, what: str) -> None:
            drawn.length = total
            drawn.label = what or label
            drawn.update(done - shown["done"])
            shown["done"] = done

        yield tell


def say_line(kind: str, message: str) -> None:
    """Says `kind: message` on stderr: one line, printable, of at most `MAX_LINE_CHARS`."""
    most = MAX_LINE_CHARS - len(kind) - 2
    line = shortened(" ".join(message.split()), most)
    click.echo(f"{kind}: {shortened(printable(line), most)}", err=True)  # what was escaped is longer


def _open_streams() -> None:
    """Gives the null device to whoever was started without stdin, stdout or stderr.

    Their numbers would be those of the next files that are opened, and into these went what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            _open_null(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - until the end


def _open_null(number: int) -> None:
    """Opens the null device under a number, for programs that are started from here, too."""
    handle = os.open(os.devnull, os.O_RDWR)
    if handle != number:
        os.dup2(handle, number)
        os.close(handle)
    os.set_inheritable(number, True)


def _flush_stdout() -> None:
    """Writes what stdout still holds, while somebody can be told that it cannot."""
    with suppress(ValueError):  # it is closed
        sys.stdout.flush()


def _drop_stdout() -> bool:
    """Whether stdout takes no more; if so, the interpreter does not try again at its end."""
    try:
        _flush_stdout()
    except OSError:
        _open_null(sys.stdout.fileno())
        return True
    return False


def _fail(message: str, code: int = 1) -> None:
    say_line("error", message)
    sys.exit(code)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    if not issubclass(category, DeprecationWarning | FutureWarning):
        say_line("warning", str(message))
