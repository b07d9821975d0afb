"""`pocketvl data tabletop`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.stage import (
    Event,
    Inputs,
    Stage,
    check_replaceable,
    plan,
    publish,
    read_record,
    run,
    write_record,
)
from pocketvl.tabletop.folder import check_tabletop, write_tabletop


@dataclass(frozen=True)
class PaintTabletop(Stage):
    """Scenes of the tabletop world as a dataset folder."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("pillow", "numpy")

    seed: int
    count: int
    size: int

    @property
    def title(self) -> str:
        return f"paint {self.count} scenes"

    def requires(self, source: Inputs) -> None:
        check_tabletop(self.seed, self.count, self.size)

    def run(self, source: Inputs, out: Path) -> None:
        write_tabletop(out, self.seed, self.count, self.size, source.progress)
        write_record(out)


def make_tabletop(
    stage: PaintTabletop, out: Path, cache: Path, progress: Callable[[Event], None] | None = None
) -> None:
    """Paints the scenes, or takes them from the cache, and puts the folder in its place.

    Raises:
        DataError: the settings are out of range.
        StageError: something else stands at `out`.
    """
    planned = plan([stage])
    check_replaceable(out, read_record)
    publish(run(planned, cache, progress)[stage].folder, out, read_record)
