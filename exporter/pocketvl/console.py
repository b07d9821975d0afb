"""Progress output of the command line: one line a stage, a bar for long work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event as Ended
from threading import Thread
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from pocketvl.launch import is_first
from pocketvl.stage import Event, EventKind

if TYPE_CHECKING:
    from pocketvl.pipelines.forecast import Forecast

HEARTBEAT_S = 30.0


def _console() -> Console:
    """A console on stderr; of several processes in one launch, only the first prints."""
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
    """Print every stage on stderr as it ends, with a live bar where somebody watches."""
    console = _console()
    with _progress(console) as shown, _heartbeat(console) as now:
        task = shown.add_task("", total=None)

        def show(event: Event) -> None:
            label = f"[{event.number}/{event.total}] {event.stage.title}"
            now(_doing(label, event))
            if event.kind is EventKind.STARTED:
                shown.reset(task, description=label, total=None)
                if not console.is_terminal:
                    console.print(f"{label} ...", markup=False)
            elif event.kind is EventKind.PROGRESS:
                done, total, what = event.progress
                shown.update(
                    task, completed=done, total=total, description=f"{label}: {what}" if what else label
                )
            elif event.kind is EventKind.DONE:
                console.print(f"{label}: done in {event.seconds:.1f} s", markup=False)

        yield show


def _doing(label: str, event: Event) -> str:
    """What a stage is doing after an event; empty when it is done."""
    if event.kind in (EventKind.DONE, EventKind.CACHED):
        return ""
    done, total, what = event.progress
    return f"{label}: {done}/{total} {what}".rstrip() if total else label


@contextmanager
def _heartbeat(console: Console) -> Iterator[Callable[[str], None]]:
    """Where nobody watches, print every 30 seconds what is being done, so that a log shows that it goes on.

    Yields:
        Takes what is being done; empty: nothing.
    """
    doing, ended = [""], Ended()
    begin = time.monotonic()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            if doing[0]:
                console.print(f"{doing[0]} ({time.monotonic() - begin:.0f} s so far)", markup=False)

    thread = Thread(target=beat, name="heartbeat", daemon=True)
    if not console.is_terminal and not console.quiet:
        thread.start()
    try:
        yield partial(doing.__setitem__, 0)
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


@contextmanager
def bar() -> Iterator[Callable[[int, int, str], None]]:
    """One live bar on stderr; where nobody watches, a line now and then."""
    console = _console()
    with _progress(console) as shown, _heartbeat(console) as now:
        task = shown.add_task("", total=None)
        last = {"tenth": -1, "total": -1}

        def show(done: int, total: int, what: str) -> None:
            shown.update(task, completed=done, total=total, description=what)
            now(f"{done}/{total} {what}" if done < total else "")
            tenth = 20 * done // max(total, 1)
            if not console.is_terminal and (tenth, total) != (last["tenth"], last["total"]):
                last.update(tenth=tenth, total=total)
                console.print(f"{done}/{total} {what}", markup=False)

        yield show


def print_forecast(forecast: Forecast) -> None:
    """Print what a compression would do, on stdout."""
    table = Table(box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("", "stage", "about", "memory"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for number, stage in enumerate(forecast.stages, start=1):
        lines = "\n".join((stage.title, *(f"  {each}" for each in stage.details)))
        memory = "" if stage.memory_bytes is None else f"{stage.memory_bytes / 1e9:.1f} GB"
        table.add_row(str(number), lines, "" if stage.seconds is None else _time(stage.seconds), memory)
    console = Console(highlight=False, markup=False)
    console.print(table)
    most = f"{forecast.memory_bytes / 1e9:.1f} GB"
    console.print(
        f"{forecast.samples:,} samples; about {_time(forecast.seconds)} of learning on this machine, and at "
        f"most about {most} of memory. Measured on a few steps of the model as it is: what has been pruned "
        "takes less."
    )


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{seconds / 3600:.1f} h"


def trial_lines(done: int, total: int, what: str) -> None:
    """Print a search's progress on stderr, a line a trial."""
    Console(stderr=True, highlight=False).print(f"trial {done}/{total}: {what}", markup=False)
