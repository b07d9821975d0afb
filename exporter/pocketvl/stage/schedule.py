"""In which order the stages of a plan run, and which of them in another process beside the others."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from itertools import chain

from pocketvl.launch import processes
from pocketvl.stage.base import Stage, links
from pocketvl.stage.desk import Desk, Pending
from pocketvl.stage.results import Event, Located, Plan, Result, Results, identity_of
from pocketvl.stage.store import Store
from pocketvl.stage.worker import Worker, worker_process
from pocketvl_runtime.cpus import usable_processors


class Schedule:
    """A plan being run, once.

    Stages run one after the other, in the plan's order; but one that `is_long` is given to a process beside
    this one as soon as what it needs is there, and what needs its result waits. While that process is there,
    it is given what `goes_along`, too; where nothing else is left to do here, that is taken back.
    """

    def __init__(self, store: Store, plan: Plan, report: Callable[[Event], None]) -> None:
        self._plan = plan
        self._known: dict[int, str] = {}
        self._done: dict[str, Result] = {}
        self._pending: dict[str, Pending] = {}
        self._worker: Worker | None = None
        self._opened, self._workers = ExitStack(), ExitStack()
        self._desks = {
            self._id(stage): Desk(store, stage, number, len(plan.stages), report)
            for number, stage in enumerate(plan.stages, start=1)
        }

    def results(self) -> Results:
        """The results of all stages; those of the wanted ones with their files."""
        with self._opened, self._workers:  # the workers end first, whatever happens
            waiting = list(self._desks)
            while waiting:
                self._give_away(waiting)
                finished, ready = filter(self._is_finished, self._pending), filter(self._is_ready, waiting)
                waits = (identity for identity, pending in self._pending.items() if pending.waits)
                identity = next(chain(finished, ready, waits, self._pending))
                self._done[identity] = self._result(identity)
                waiting.remove(identity)
        for identity in map(self._id, self._plan.wanted):
            if self._done[identity].is_dropped:
                self._done[identity] = self._make(identity)
        return Results(self._done)

    def _is_finished(self, identity: str) -> bool:
        return self._pending[identity].seconds.done()

    def _is_ready(self, identity: str) -> bool:
        return identity not in self._pending and self._has_inputs(identity)

    def _has_inputs(self, identity: str) -> bool:
        needed = chain.from_iterable(links(self._desks[identity].stage).values())
        return all(self._id(at) in self._done for at in needed if isinstance(at, Stage))

    def _give_away(self, waiting: list[str]) -> None:
        """Give the other process what it can do now."""
        if not _has_room():
            return
        for identity in waiting:
            if identity in self._pending or not self._has_inputs(identity):
                continue
            desk, inputs = self._desks[identity], self._inputs(self._desks[identity].stage)
            if any(each.is_dropped for each in _results(inputs)) or not self._goes_there(desk, inputs):
                continue
            worker = self._started_worker()
            self._pending[identity] = self._opened.enter_context(desk.started(inputs, worker))

    def _warm_up(self, identity: str) -> None:
        """Start the other process, where what is made now is for long work that it will do."""
        stage = None if self._worker is not None or not _has_room() else self._long_work.get(identity)
        if stage is not None and self._id(stage) not in self._done:
            self._started_worker().warm_up(stage)

    @cached_property
    def _long_work(self) -> dict[str, Stage]:
        """By what it is made from, a stage that may be long; the last of the plan."""
        long = [desk.stage for desk in self._desks.values() if desk.stage.may_be_long()]
        return {needed: stage for stage in long for needed in self._needed_by(stage)}

    def _started_worker(self) -> Worker:
        if self._worker is None:
            self._worker = self._workers.enter_context(worker_process())
        return self._worker

    def _needed_by(self, stage: Stage) -> set[str]:
        """What a stage is made from, and what that is made from."""
        direct = [at for at in chain.from_iterable(links(stage).values()) if isinstance(at, Stage)]
        return {self._id(at) for at in direct}.union(*map(self._needed_by, direct))

    def _goes_there(self, desk: Desk, inputs: Located) -> bool:
        """Whether the other process is to do a stage; one that goes along does not start it."""
        goes_along = self._worker is not None and desk.stage.goes_along
        return (goes_along or desk.is_long(inputs)) and not desk.is_cached(inputs)

    def _result(self, identity: str) -> Result:
        pending = self._pending.pop(identity, None)
        if pending is not None:
            return pending.result()
        desk = self._desks[identity]
        return desk.found(self._inputs(desk.stage)) or self._make(identity)

    def _make(self, identity: str) -> Result:
        """Make a result, and before that those that it is made from where their files were dropped."""
        self._warm_up(identity)
        desk = self._desks[identity]
        for each in _results(self._inputs(desk.stage)):
            if each.is_dropped:
                needed = self._id(each.stage)
                self._done[needed] = self._make(needed)
        return desk.made(self._inputs(desk.stage))

    def _inputs(self, stage: Stage) -> Located:
        return {
            name: tuple(self._done[self._id(at)] if isinstance(at, Stage) else at for at in each)
            for name, each in links(stage).items()
        }

    def _id(self, stage: Stage) -> str:
        return identity_of(stage, self._known)


def _has_room() -> bool:
    """Whether there is a processor for another process."""
    return usable_processors() > 1 and processes() == 1


def _results(inputs: Located) -> list[Result]:
    return [at for at in chain.from_iterable(inputs.values()) if isinstance(at, Result)]
