"""Plans, what happens while one runs, and what comes of it."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pocketvl.stage.base import Stage, links, settings


class EventKind(enum.StrEnum):
    """Kinds of events."""

    STARTED = "started"
    PROGRESS = "progress"
    CACHED = "cached"
    DONE = "done"


@dataclass(frozen=True)
class Event:
    """An event while a plan runs, for the user to see.

    Attributes:
        kind: what happened.
        stage: to which stage.
        number: its index in the plan, from 1.
        total: how many stages the plan has.
        seconds: how long it took, with DONE and CACHED.
        progress: (done, total, what) within the stage, with PROGRESS.
    """

    kind: EventKind
    stage: Stage
    number: int
    total: int
    seconds: float = 0.0
    progress: tuple[int, int, str] = (0, 0, "")


@dataclass(frozen=True)
class Plan:
    """Checked stages, each after those it needs.

    Attributes:
        stages: every stage once; equal stages count as one.
        wanted: those whose results will be read.
    """

    stages: tuple[Stage, ...]
    wanted: tuple[Stage, ...] = ()


@dataclass(frozen=True)
class Result:
    """The result of a stage.

    Attributes:
        stage: the stage.
        folder: its files; to be read only.
        digest: sha256 over their names and contents.
        was_cached: whether it was there already.
        ingredients: JSON of name, version, settings, tools, environment and the digests of inputs; no paths,
            no times.
        is_dropped: whether its files are gone; never of a wanted stage.
    """

    stage: Stage
    folder: Path
    digest: str
    was_cached: bool
    ingredients: dict[str, object]
    is_dropped: bool = False


Located = dict[str, tuple[Path | Result, ...]]


class Results:
    """The results of a plan, found by stage: `results[stage].folder`."""

    def __init__(self, results: Mapping[str, Result]) -> None:
        self._results = dict(results)

    def __getitem__(self, stage: Stage) -> Result:
        return self._results[identity_of(stage, {})]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)


def identity_of(stage: Stage, known: dict[int, str]) -> str:
    """Equal for equal stages, without reading any input; `known` remembers by object."""
    if id(stage) not in known:
        needs = {
            name: [identity_of(at, known) if isinstance(at, Stage) else str(at.absolute()) for at in each]
            for name, each in links(stage).items()
        }
        body = [type(stage).__module__, type(stage).__qualname__, settings(stage), needs]
        known[id(stage)] = hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
    return known[id(stage)]
