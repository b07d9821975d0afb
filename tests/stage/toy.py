"""Small stages to run for real, in this process or as `python -m tests.stage.toy CACHE INPUT OUT SECONDS`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from pocketvl.errors import DataError
from pocketvl.stage import Event, EventKind, Inputs, Stage, plan, publish, run


@dataclass(frozen=True)
class Letters(Stage):
    """Copies every letter file of a folder, in capitals."""

    folder: Path
    suffix: str = ".txt"
    pause_s: float = 0.0

    def requires(self, source: Inputs) -> None:
        if not list(source["folder"].glob(f"*{self.suffix}")):
            raise DataError(f"{source['folder']} has no *{self.suffix}; add one")

    def run(self, source: Inputs, out: Path) -> None:
        (out / "deep").mkdir()
        for path in sorted(source["folder"].glob(f"*{self.suffix}")):
            time.sleep(self.pause_s)
            (out / "deep" / path.name).write_text(path.read_text().upper())


@dataclass(frozen=True)
class Repeat(Stage):
    """Writes all texts of another stage's result, some times over, in pieces."""

    version: ClassVar[int] = 3
    tools: ClassVar[tuple[str, ...]] = ("numpy",)

    texts: Stage
    times: int = 3
    pause_s: float = 0.0

    def run(self, source: Inputs, out: Path) -> None:
        with (out / "all.txt").open("w") as stream:
            for turn in range(self.times):
                source.progress(turn, self.times, "turn")
                for path in sorted(source["texts"].rglob("*.txt")):
                    stream.write(path.read_text())
                    stream.flush()
                    time.sleep(self.pause_s)


@dataclass(frozen=True)
class Join(Stage):
    """Puts the results of several stages into one folder."""

    parts: tuple[Stage, ...]
    pause_s: float = 0.0

    def run(self, source: Inputs, out: Path) -> None:
        sizes = {}
        for number, part in enumerate(source.all("parts")):
            time.sleep(self.pause_s)
            data = (part / "all.txt").read_bytes()
            (out / f"part{number}.bin").write_bytes(data * 50)
            sizes[number] = len(data)
        (out / "manifest.json").write_text(json.dumps(sizes))

    def ensures(self, source: Inputs, result: Path) -> None:
        if len(list(result.glob("*.bin"))) != len(self.parts):
            raise DataError("a part is missing")


def chain(folder: Path, pause_s: float = 0.0) -> Join:
    """Four stages in a diamond: Letters; two Repeats of it; their Join."""
    letters = Letters(folder, pause_s=pause_s)
    return Join((Repeat(letters, 3, pause_s), Repeat(letters, 4, pause_s)), pause_s)


def written(folder: Path) -> dict[str, None] | None:
    """All that stands in a folder which holds a manifest."""
    if not (folder / "manifest.json").is_file():
        return None
    return {path.relative_to(folder).as_posix(): None for path in folder.rglob("*") if path.is_file()}


def main(cache: str, folder: str, out: str, pause_s: str) -> None:
    """Runs the chain and publishes its result; prints the number of each stage that was run."""

    def tell(event: Event) -> None:
        if event.kind in (EventKind.STARTED, EventKind.DONE):
            sys.stdout.write(f"{event.kind} {event.number}\n")
            sys.stdout.flush()

    last = chain(Path(folder), float(pause_s))
    results = run(plan([last]), Path(cache), tell)
    publish(results[last].folder, Path(out), written)


if __name__ == "__main__":
    main(*sys.argv[1:])
