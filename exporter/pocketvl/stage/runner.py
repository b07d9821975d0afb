"""Orders stages, checks them all, then runs those whose results are not in the cache yet."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path

from pocketvl.errors import StageError
from pocketvl.stage.base import Inputs, Stage, empty_fields, links
from pocketvl.stage.desk import installed_version
from pocketvl.stage.results import Event, Plan, Results, identity_of
from pocketvl.stage.schedule import Schedule
from pocketvl.stage.store import Store
from pocketvl_runtime.errors import PocketVLError


class PlanError(StageError):
    """A plan cannot run as it stands; nothing of it has run.

    Attributes:
        problems: one line each, all that were found.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


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
            return Schedule(store, plan, progress or (lambda event: None)).results()
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


def _ordered(stages: Sequence[Stage]) -> list[Stage]:
    ordered: dict[str, Stage] = {}
    known: dict[int, str] = {}

    def add(stage: Stage) -> None:
        identity = identity_of(stage, known)
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
