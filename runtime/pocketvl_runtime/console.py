"""What the two commands share: one-line errors, exit codes, warnings and bars on stderr."""

from __future__ import annotations

import os
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO

import click

from pocketvl_runtime.errors import PocketVLError, shortened
from pocketvl_runtime.native_stderr import held_for_command

MAX_LINE_CHARS = 300
"""No error, warning or note is longer: what it quotes may come out of somebody else's file."""

_STEERING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # Unicode's control, format, surrogate and separator characters
_JOINERS = "\u200c\u200d"  # these are format characters too, but words and emoji are written with them


def run_command(command: click.Command, name: str) -> None:
    """Runs a click command and ends the process: 0 good, 1 one clear line on stderr, 2 wrong usage.

    What nobody expected is one line too; its traceback is shown where POCKETVL_DEBUG=1. Where the reader of
    stdout has gone away, click itself ends the process: quietly, with 1.
    """
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    try:
        with held_for_command():
            command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except (PocketVLError, Warning) as error:  # a warning where the user asked for -W error
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    except Exception as error:
        if os.environ.get("POCKETVL_DEBUG") == "1":
            raise
        _fail(f"unexpected {type(error).__name__}: {error}")
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
def bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr, drawn only where somebody looks; gives the callback that moves it."""
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
