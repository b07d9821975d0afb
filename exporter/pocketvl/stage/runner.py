"""Orders stages, checks them all, then runs those whose results are not in the cache yet."""

from __future__ import annotations

import enum
import functools
import hashlib
import importlib.metadata
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.launch import call_others, is_called, is_first
from pocketvl.stage.base import Inputs, Stage, empty_fields, links, settings
from pocketvl.stage.store import Sealed, Store
from pocketvl_runtime.disk import full_disk, reason
from pocketvl_runtime.errors import PocketVLError

_LOOK_AGAIN = 0.2  # seconds


class PlanError(StageError):
    """A plan cannot run as it stands; nothing of it has run.

    Attributes:
        problems: one line each, all that were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


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


_Located = dict[str, tuple[Path | Result, ...]]


class Results:
    """The results of a plan, found by stage: `results[stage].folder`."""

    def __init__(self, results: Mapping[str, Result]) -> None:
        self._results = dict(results)

    def __getitem__(self, stage: Stage) -> Result:
        return self._results[_identity(stage, {})]

    def __iter__(self) -> Iterator[Result]:
        return iter(self._results.values())

    def __len__(self) -> int:
        return len(self._results)


def plan(stages: Sequence[Stage]) -> Plan:
    """Order stages with all that they need, and check every one of them.

    Args:
        stages: the ones whose results are wanted; what they need comes along by itself.

    Raises:
        PlanError: inputs are missing, tools are not installed, settings have no JSON, or a stage's `requires`
            says no.
    """
    try:
        ordered = _ordered(stages)
    except StageError as error:
        raise PlanError([str(error)]) from error
    problems = _namesakes(ordered) + [problem for stage in ordered for problem in _problems(stage)]
    if problems:
        raise PlanError(list(dict.fromkeys(problems)))
    return Plan(tuple(ordered), tuple(stages))


def run(
    plan: Plan, cache: Path, progress: Callable[[Event], None] | None = None, *, verify: bool = False
) -> Results:
    """Run what is not in the cache, in order; after a kill, the next run goes on from the last one sealed.

    Of a launch of several processes the first does that; the others join in the stages that resume, and wait
    for the results of all.

    Args:
        plan: from `plan()`.
        cache: folder for results; made if missing, may be shared by processes that run at the same time.
        progress: called with every event.
        verify: read cached results and inputs byte by byte instead of trusting unchanged file times.

    Raises:
        StageError: a stage could not read or write, wrote nothing, or its input changed meanwhile; or the
            cache cannot be used.
        PocketVLError: what a stage itself raised; its result is not kept.
    """
    store = Store(cache, verify=verify)
    with store.in_use():
        try:
            return _Run(store, plan, progress or (lambda event: None)).results()
        finally:
            store.contents.save()


def drop(results: Results, cache: Path) -> None:
    """Remove the files of results that need not be kept; where other processes use the cache, nothing.

    Args:
        results: of `run`; folders of stages that do not keep their results are gone afterwards.
        cache: where they are.
    """
    passing = (result for result in results if not result.stage.keeps)
    Store(cache).drop((result.stage.name, result.ingredients) for result in passing)


class _Run:
    """A plan being run."""

    def __init__(self, store: Store, plan: Plan, report: Callable[[Event], None]) -> None:
        self._plan = plan
        self._known: dict[int, str] = {}
        self._done: dict[str, Result] = {}
        self._desks = {
            self._id(stage): _Desk(store, stage, number, len(plan.stages), report)
            for number, stage in enumerate(plan.stages, start=1)
        }

    def results(self) -> Results:
        """The results of all stages; those of the wanted ones with their files."""
        for identity, desk in self._desks.items():
            self._done[identity] = desk.found(self._inputs(desk.stage)) or self._make(identity)
        for identity in map(self._id, self._plan.wanted):
            if self._done[identity].is_dropped:
                self._done[identity] = self._make(identity)
        return Results(self._done)

    def _make(self, identity: str) -> Result:
        """Make a result, and before that those that it is made from where their files were dropped."""
        desk = self._desks[identity]
        for at in chain.from_iterable(self._inputs(desk.stage).values()):
            if isinstance(at, Result) and at.is_dropped:
                needed = self._id(at.stage)
                self._done[needed] = self._make(needed)
        return desk.made(self._inputs(desk.stage))

    def _inputs(self, stage: Stage) -> _Located:
        return {
            name: tuple(at if isinstance(at, Path) else self._done[self._id(at)] for at in each)
            for name, each in links(stage).items()
        }

    def _id(self, stage: Stage) -> str:
        return _identity(stage, self._known)


@dataclass(frozen=True)
class _Desk:
    """One stage being run."""

    store: Store
    stage: Stage
    number: int
    total: int
    report: Callable[[Event], None]

    def found(self, inputs: _Located) -> Result | None:
        """What is in the cache, if only what its files hashed to."""
        begin = time.perf_counter()
        sealed = self.store.find(self.stage.name, self._ingredients(inputs))
        return None if sealed is None else self._told(sealed, EventKind.CACHED, begin)

    def made(self, inputs: _Located) -> Result:
        """The result with its files."""
        begin = time.perf_counter()
        ingredients = self._ingredients(inputs)
        sealed = self.store.find(self.stage.name, ingredients)
        if sealed is not None and not sealed.is_dropped:  # after one of its inputs was made again
            return self._told(sealed, EventKind.CACHED, begin)
        self._say(EventKind.STARTED)
        return self._told(self._made(inputs, ingredients), EventKind.DONE, begin)

    def _told(self, sealed: Sealed, kind: EventKind, begin: float) -> Result:
        if self.stage.resumes and is_first():
            self.store.drop_work(self.stage.name, sealed.ingredients)
        self._say(kind, seconds=time.perf_counter() - begin)
        was_cached, digest = kind is EventKind.CACHED, sealed.digest
        return Result(self.stage, sealed.folder, digest, was_cached, sealed.ingredients, sealed.is_dropped)

    def _made(self, inputs: _Located, ingredients: dict[str, object]) -> Sealed:
        if not is_first():
            return self._follow(inputs, ingredients)
        return self._resume(inputs, ingredients) if self.stage.resumes else self._seal(inputs, ingredients)

    def _follow(self, inputs: _Located, ingredients: dict[str, object]) -> Sealed:
        """Wait for what the launch's first process makes; help where all of them are needed."""
        work, helped = self.store.work_of(self.stage.name, ingredients), not self.stage.resumes
        while (found := self.store.find(self.stage.name, ingredients)) is None or found.is_dropped:
            if not helped and is_called(work):
                with self.store.draft(self.stage.name) as out:
                    self._run(inputs, out, work)
                helped = True
            else:
                time.sleep(_LOOK_AGAIN)  # where the first one fails, the launcher ends us all
        return found

    def _resume(self, inputs: _Located, ingredients: dict[str, object]) -> Sealed:
        """Go on in the stage's work folder, unless another process came to the end there meanwhile."""
        with self.store.work_folder(self.stage.name, ingredients) as work:
            found = self.store.find(self.stage.name, ingredients)
            if found is not None:
                return found
            call_others(work)
            return self._seal(inputs, ingredients, work)

    def _seal(
        self,
        inputs: _Located,
        ingredients: dict[str, object],
        work: Path | None = None,
    ) -> Sealed:
        with self.store.draft(self.stage.name) as out:
            source = self._run(inputs, out, work)
            with _stage_errors(self.stage, out):
                self.stage.ensures(source, out)
                if self._ingredients(inputs) != ingredients:
                    raise StageError(f"{self.stage.title}: an input changed while it ran; run it again")
                return self.store.seal(self.stage.name, ingredients, out)

    def _run(self, inputs: _Located, out: Path, work: Path | None) -> Inputs:
        """Lets the stage write its result into `out`; gives what it was told of its inputs."""
        paths = {
            name: tuple(at if isinstance(at, Path) else at.folder for at in each)
            for name, each in inputs.items()
        }
        source = Inputs(
            empty_fields(self.stage) | paths,
            lambda done, total, what: self._say(EventKind.PROGRESS, progress=(done, total, what)),
            work,
        )
        with _stage_errors(self.stage, out):
            self.stage.run(source, out)
        return source

    def _ingredients(self, inputs: _Located) -> dict[str, object]:
        def digest(at: Path | Result) -> str:
            return self.store.contents.of(at) if isinstance(at, Path) else at.digest

        reads = {name: (path,) for name, path in self.stage.reads().items()}
        return {
            "stage": self.stage.name,
            "version": self.stage.version,
            "settings": settings(self.stage),
            "inputs": {name: [digest(at) for at in each] for name, each in (inputs | reads).items()},
            "tools": {tool: installed_version(tool) for tool in ("pocketvl", *self.stage.tools)},
            "environment": dict(self.stage.environment()),
        }

    def _say(
        self, kind: EventKind, *, seconds: float = 0.0, progress: tuple[int, int, str] = (0, 0, "")
    ) -> None:
        self.report(Event(kind, self.stage, self.number, self.total, seconds, progress))


@contextmanager
def _stage_errors(stage: Stage, out: Path) -> Iterator[None]:
    """Lets pocketvl's errors through, makes one line of the system's, and marks the rest, which are bugs.

    Where the system or a library gave up, a full disk comes first: what they say of that is of no help.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, PocketVLError) and error.__cause__ is None:
            raise
        cache = out.parent.parent
        full = full_disk(error, cache, Path(tempfile.gettempdir()))
        if full is not None:
            raise StageError(
                f"{stage.title} failed: {full}; free some space or name other folders with --cache and TMPDIR"
            ) from error
        if isinstance(error, OSError):
            where = f"writing to {cache}" if error.filename is None else error.filename
            raise StageError(f"{stage.title} failed: {reason(error)} ({where})") from error
        if not isinstance(error, PocketVLError):
            error.add_note(f"while running the stage {stage.title}")
        raise


def _ordered(stages: Sequence[Stage]) -> list[Stage]:
    ordered: dict[str, Stage] = {}
    known: dict[int, str] = {}

    def add(stage: Stage) -> None:
        identity = _identity(stage, known)
        if identity in ordered:
            return
        for each in links(stage).values():
            for at in each:
                if isinstance(at, Stage):
                    add(at)
        ordered[identity] = stage

    for stage in stages:
        add(stage)
    return list(ordered.values())


def _identity(stage: Stage, known: dict[int, str]) -> str:
    """Equal for equal stages, without reading any input; `known` remembers by object."""
    if id(stage) not in known:
        needs = {
            name: [_identity(at, known) if isinstance(at, Stage) else str(at.absolute()) for at in each]
            for name, each in links(stage).items()
        }
        body = [type(stage).__module__, type(stage).__qualname__, settings(stage), needs]
        known[id(stage)] = hashlib.sha256(json.dumps(body, sort_keys=True).encode("ascii")).hexdigest()
    return known[id(stage)]


def _problems(stage: Stage) -> list[str]:
    problems = [
        f"{stage.title} needs the package {tool}, which is not installed; install pocketvl[export]"
        for tool in stage.tools
        if not _is_installed(tool)
    ]
    paths = empty_fields(stage)
    for name, each in links(stage).items():
        at = tuple(path for path in each if isinstance(path, Path))
        problems += [f"{stage.title}: {name}: {path} does not exist" for path in at if not path.exists()]
        if len(at) == len(each):
            paths[name] = at
    if not problems:
        try:
            stage.requires(Inputs(paths))
        except PocketVLError as error:
            problems.append(f"{stage.title}: {error}")
        except OSError as error:
            problems.append(f"{stage.title}: cannot read {error.filename}: {error.strerror or error}")
    return problems


def _namesakes(stages: Sequence[Stage]) -> list[str]:
    classes: dict[str, type[Stage]] = {}
    for stage in stages:
        classes.setdefault(stage.name, type(stage))
    return [
        f"two kinds of stages are called {stage.name}: {classes[stage.name]!r} and {type(stage)!r}"
        for stage in stages
        if classes[stage.name] is not type(stage)
    ]


def _is_installed(tool: str) -> bool:
    try:
        installed_version(tool)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


@functools.cache
def installed_version(tool: str) -> str:
    """The installed version of a distribution; read once, since stages ask a thousand times."""
    return importlib.metadata.version(tool)
