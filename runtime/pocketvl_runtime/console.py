"""What the two commands share: one-line errors, exit codes, warnings and bars on stderr."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import TextIO

import click

from pocketvl_runtime.errors import PocketVLError


def run_command(command: click.Command, name: str) -> None:
    """Runs a click command and ends the process: 0 good, 1 one clear line on stderr, 2 wrong usage.

    Where the reader of stdout has gone away, click itself ends the process: quietly, with 1.
    """
    warnings.showwarning = _show_warning
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that is not UTF-8 is no reason to fail
    try:
        command.main(prog_name=name, standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
    except PocketVLError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    sys.exit(0)


@contextmanager
def bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr, drawn only where somebody looks; gives the callback that moves it."""
    shown = {"length": 0, "done": 0}
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as drawn:

        def tell(done: int, total: int, what: str) -> None:
            drawn.length = total
            drawn.label = what or label
            drawn.update(done - shown["done"])
            shown["done"] = done

        yield tell


def _fail(message: str, code: int = 1) -> None:
    line = " ".join(message.split())
    click.echo("error: " + line.encode("utf-8", "backslashreplace").decode("utf-8"), err=True)
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
        click.echo(f"warning: {message}", err=True)
