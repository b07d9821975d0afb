"""What is shown while rows are worked on: a bar over rows, one for the stage at hand, and the time in all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.results.rows import Row
from pocketvl.stage import Event, EventKind

StageProgress = Callable[[Event], None]


@contextmanager
def rows_shown(rows: Sequence[Row], what: str) -> Iterator[Callable[[Row], StageProgress]]:
    """Show rows on stderr, one line each as it ends; the function given is called as each begins."""
    console, begin = Console(stderr=True, highlight=False), time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(28), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        over_rows, over_stage = shown.add_task(what, total=len(rows)), shown.add_task("", total=None)

        def started(row: Row) -> StageProgress:
            index = rows.index(row)
            shown.update(over_rows, completed=index, description=f"{what} {row.name}")
            if not console.is_terminal:
                console.print(f"[{index + 1}/{len(rows)}] {what} {row.name}", markup=False)

            def progress(event: Event) -> None:
                title = event.stage.title
                if event.kind is EventKind.STARTED:
                    shown.reset(over_stage, description=title, total=None)
                elif event.kind is EventKind.PROGRESS:
                    done, total, news = event.progress
                    shown.update(over_stage, completed=done, total=total, description=f"{title}: {news}"[:60])
                elif event.kind is EventKind.DONE:
                    console.print(f"  {row.name}: {title}: {event.seconds:.1f} s", markup=False)

            return progress

        yield started
        shown.update(over_rows, completed=len(rows))
    console.print(f"{what}: {len(rows)} rows, {time.perf_counter() - begin:.0f} s in all", markup=False)
