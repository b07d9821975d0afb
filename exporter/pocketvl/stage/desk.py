"""One stage of a plan being run: found in the cache, or made and sealed."""

from __future__ import annotations

import functools
import importlib.metadata
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.launch import call_others, is_called, is_first
from pocketvl.stage.base import Inputs, Stage, empty_fields, settings
from pocketvl.stage.memory import trimmed_memory
from pocketvl.stage.results import Event, EventKind, Located, Result
from pocketvl.stage.store import Sealed, Store
from pocketvl.stage.worker import Worker
from pocketvl_runtime.disk import full_disk, reason
from pocketvl_runtime.errors import PocketVLError

_LOOK_AGAIN = 0.2  # seconds


@dataclass(frozen=True)
class Desk:
    """One stage being run."""

    store: Store
    stage: Stage
    number: int
    total: int
    report: Callable[[Event], None]

    def found(self, inputs: Located) -> Result | None:
        """What is in the cache, if only what its files hashed to."""
        begin = time.perf_counter()
        sealed = self.store.find(self.stage.name, self._ingredients(inputs))
        return None if sealed is None else self._told(sealed, EventKind.CACHED, begin)

    def made(self, inputs: Located) -> Result:
        """The result with its files."""
        begin = time.perf_counter()
        ingredients = self._ingredients(inputs)
        sealed = self.store.find(self.stage.name, ingredients)
        if sealed is not None and not sealed.is_dropped:  # after one of its inputs was made again
            return self._told(sealed, EventKind.CACHED, begin)
        self._say(EventKind.STARTED)
        return self._told(self._made(inputs, ingredients), EventKind.DONE, begin)

    def is_long(self, inputs: Located) -> bool:
        """Whether the stage is long work that another process can do meanwhile."""
        return self.stage.is_long(Inputs(self._paths(inputs)))

    def is_cached(self, inputs: Located) -> bool:
        """Whether there is nothing to do."""
        return self.store.find(self.stage.name, self._ingredients(inputs)) is not None

    @contextmanager
    def started(self, inputs: Located, worker: Worker) -> Iterator[Pending]:
        """Gives the work to another process; inside, what comes of it can be waited for."""
        ingredients, paths = self._ingredients(inputs), self._paths(inputs)
        with self.store.draft(self.stage.name) as out:
            self._say(EventKind.STARTED)
            yield Pending(self, inputs, ingredients, out, worker.run(self.stage, paths, out))

    def taken_back(self, pending: Pending) -> Result:
        """The result of work that was given away, and not begun: it is done here."""
        begin = time.perf_counter()
        self._run(pending.inputs, pending.out, None)
        sealed = self._sealed(pending.inputs, pending.ingredients, pending.out)
        return self._told(sealed, EventKind.DONE, begin)

    def awaited(self, pending: Pending) -> Result:
        """The result of work that was given away."""
        with _stage_errors(self.stage, pending.out):
            seconds = pending.seconds.result()
        sealed = self._sealed(pending.inputs, pending.ingredients, pending.out)
        return self._told(sealed, EventKind.DONE, time.perf_counter() - seconds)

    def _told(self, sealed: Sealed, kind: EventKind, begin: float) -> Result:
        if self.stage.resumes and is_first():
            self.store.drop_work(self.stage.name, sealed.ingredients)
        self._say(kind, seconds=time.perf_counter() - begin)
        was_cached, digest = kind is EventKind.CACHED, sealed.digest
        return Result(self.stage, sealed.folder, digest, was_cached, sealed.ingredients, sealed.is_dropped)

    def _made(self, inputs: Located, ingredients: dict[str, object]) -> Sealed:
        if not is_first():
            return self._follow(inputs, ingredients)
        return self._resume(inputs, ingredients) if self.stage.resumes else self._seal(inputs, ingredients)

    def _follow(self, inputs: Located, ingredients: dict[str, object]) -> Sealed:
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

    def _resume(self, inputs: Located, ingredients: dict[str, object]) -> Sealed:
        """Go on in the stage's work folder, unless another process came to the end there meanwhile."""
        with self.store.work_folder(self.stage.name, ingredients) as work:
            found = self.store.find(self.stage.name, ingredients)
            if found is not None:
                return found
            call_others(work)
            return self._seal(inputs, ingredients, work)

    def _seal(self, inputs: Located, ingredients: dict[str, object], work: Path | None = None) -> Sealed:
        with self.store.draft(self.stage.name) as out:
            self._run(inputs, out, work)
            return self._sealed(inputs, ingredients, out)

    def _run(self, inputs: Located, out: Path, work: Path | None) -> None:
        """Lets the stage write its result into `out`."""
        source = Inputs(
            self._paths(inputs),
            lambda done, total, what: self._say(EventKind.PROGRESS, progress=(done, total, what)),
            work,
        )
        with trimmed_memory(), _stage_errors(self.stage, out):
            self.stage.run(source, out)

    def _sealed(self, inputs: Located, ingredients: dict[str, object], out: Path) -> Sealed:
        """Checks and seals what the stage wrote into `out`."""
        with _stage_errors(self.stage, out):
            self.stage.ensures(Inputs(self._paths(inputs)), out)
            if self._ingredients(inputs) != ingredients:
                raise StageError(f"{self.stage.title}: an input changed while it ran; run it again")
            return self.store.seal(self.stage.name, ingredients, out)

    def _paths(self, inputs: Located) -> dict[str, tuple[Path, ...]]:
        """What the stage is told of its inputs."""
        paths = {
            name: tuple(at if isinstance(at, Path) else at.folder for at in each)
            for name, each in inputs.items()
        }
        return empty_fields(self.stage) | paths

    def _ingredients(self, inputs: Located) -> dict[str, object]:
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


@dataclass(frozen=True)
class Pending:
    """Work that another process does.

    Attributes:
        desk: of the stage.
        inputs: of the stage.
        ingredients: of its result.
        out: where the result is being written.
        seconds: will tell how long the work took, or what it failed with.
    """

    desk: Desk
    inputs: Located
    ingredients: dict[str, object]
    out: Path
    seconds: Future[float]

    @property
    def waits(self) -> bool:
        """Whether it has not begun, and could as well be done here."""
        return self.desk.stage.goes_along and not self.seconds.running() and not self.seconds.done()

    def result(self) -> Result:
        """Wait for the work, or do it here if it has not begun and may be done here, and seal it.

        Raises:
            PocketVLError: it failed.
        """
        if self.waits and self.seconds.cancel():
            return self.desk.taken_back(self)
        return self.desk.awaited(self)


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


@functools.cache
def installed_version(tool: str) -> str:
    """The installed version of a distribution; read once, since stages ask a thousand times."""
    return importlib.metadata.version(tool)
