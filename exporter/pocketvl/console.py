"""What the host's command line shows while it works: one line a stage, a bar for what takes long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from pocketvl.launch import is_first
from pocketvl.stage import Event, EventKind


def _console() -> Console:
    """Of several processes in one launch, only the first tells what it does."""
    return Console(stderr=True, highlight=False, quiet=not is_first())


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=console.quiet or not console.is_terminal,
    )


@contextmanager
def stage_lines() -> Iterator[Callable[[Event], None]]:
    """Prints every stage on stderr as it ends, with a live bar where somebody watches."""
    console = _console()
    with _progress(console) as shown:
        task = shown.add_task("", total=None)

        def tell(event: Event) -> None:
            place = f"[{event.number}/{event.total}] {event.stage.title}"
            if event.kind is EventKind.STARTED:
                shown.reset(task, description=place, total=None)
                if not console.is_terminal:
                    console.print(f"{place} ...", markup=False)
            elif event.kind is EventKind.PROGRESS:
                done, total, what = event.progress
                shown.update(
                    task, completed=done, total=total, description=f"{place}: {what}" if what else place
                )
            elif event.kind is EventKind.DONE:
                console.print(f"{place}: done in {event.seconds:.1f} s", markup=False)

        yield tell


@contextmanager
def bar() -> Iterator[Callable[[int, int, str], None]]:
    """One live bar on stderr; where nobody watches, a line now and then."""
    console = _console()
    with _progress(console) as shown:
        task = shown.add_task("", total=None)
        last = {"tenth": -1, "total": -1}

        def tell(done: int, total: int, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what)
            tenth = 20 * done // max(total, 1)
            if not console.is_terminal and (tenth, total) != (last["tenth"], last["total"]):
                last.update(tenth=tenth, total=total)
                console.print(f"{done}/{total} {what}", markup=False)

        yield tell


def trial_lines(done: int, total: int, what: str) -> None:
    """Prints a search's progress on stderr, a line a trial."""
    Console(stderr=True, highlight=False).print(f"trial {done}/{total}: {what}", markup=False)
