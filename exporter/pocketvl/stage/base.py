"""The base class of stages."""

from __future__ import annotations

import dataclasses
import enum
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pocketvl.errors import StageError
from pocketvl_runtime.progress import Progress


@dataclass(frozen=True)
class Inputs:
    """Where a stage finds what it works on.

    `source["calibration"]` is the folder or file that the field `calibration` stands for: the path itself, or
    the result folder of the stage in that field. To be read only.

    Attributes:
        paths: by field name; a field with a tuple has one path per element.
        progress: takes (done, total, what) while the stage works.
        work: of a stage that `resumes`: a folder that an interrupted run left, or an empty one; it is gone
            once the result is sealed.
    """

    paths: Mapping[str, tuple[Path, ...]]
    progress: Progress = field(default=lambda done, total, what: None)
    work: Path | None = None

    def __getitem__(self, name: str) -> Path:
        if len(self.all(name)) != 1:
            raise StageError(f"the field {name!r} stands for {len(self.all(name))} paths; ask with all()")
        return self.all(name)[0]

    def all(self, name: str) -> tuple[Path, ...]:
        """The paths of a field that holds a tuple of stages or paths.

        Raises:
            StageError: no such field, or (in `requires`) it stands for a stage that has not run yet.
        """
        if name not in self.paths:
            raise StageError(
                f"no path is known for the field {name!r}; there are {', '.join(self.paths) or 'none'}"
            )
        return self.paths[name]


@dataclass(frozen=True)
class Stage:
    """One step of a plan: a frozen dataclass whose fields are its settings and inputs.

    A field (or an element of a tuple field) that is a `Stage` is a step whose result this one needs; one that
    is a `Path` is a file or folder that it reads; both count by content, names and places do not. Every other
    field is a setting: str, int, float, bool, None, enum, frozen dataclass, or tuple, list or dict of those.
    All of them make up the key of the result, so whatever changes the result must be a field; a result must
    not depend on anything else but `reads`, `tools` and `environment`.

        @dataclass(frozen=True)
        class QuantizeStatic(Stage):
            version: ClassVar[int] = 1
            tools: ClassVar[tuple[str, ...]] = ("onnxruntime",)

            graphs: Stage
            calibration: Path
            samples: int = 256

    Attributes:
        version: to be raised when the same settings and inputs give another result than before.
        tools: distributions whose installed version may change the result.
        resumes: the stage takes long, and goes on from what it left in `source.work` when it was interrupted.
            Of a launch of several processes all run it at the same time, in the same `source.work`; what the
            first one writes is kept.
        keeps: False where the result is large beside what is made of it, and soon made again: `drop` removes
            its files and keeps what they hashed to, so that what was made of it is found all the same.
        goes_along: another process that is there for long work does this, too, while this one has something
            else to do. It reports no progress, and does not `resume`.
    """

    version: ClassVar[int] = 1
    tools: ClassVar[tuple[str, ...]] = ()
    resumes: ClassVar[bool] = False
    keeps: ClassVar[bool] = True
    goes_along: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The class's name with hyphens; part of the key."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", type(self).__name__).lower()

    @property
    def title(self) -> str:
        """The title shown while it runs; may distinguish two stages of one class."""
        return self.name

    def reads(self) -> Mapping[str, Path]:
        """Files and folders that are read beside those of the fields, by name; content is part of the key.

        For a stage that is handed the result of another one and opens what that was made from, too.
        """
        return {}

    def environment(self) -> Mapping[str, str]:
        """Machine properties that the result depends on, such as the instruction set; part of the key."""
        return {}

    def requires(self, source: Inputs) -> None:
        """Checks, before anything of the plan runs, what can be checked then; cheap, for it runs every time.

        Args:
            source: paths of the `Path` fields; those of `Stage` fields are not known yet.

        Raises:
            PocketVLError: the stage could not succeed.
        """

    def may_be_long(self) -> bool:
        """Whether `is_long` can be expected to say yes, before the inputs are there."""
        return False

    def warm_up(self) -> None:
        """Import what `run` needs; the other process does so while the inputs of long work are being made."""

    def is_long(self, source: Inputs) -> bool:
        """Whether the work keeps one processor busy for long, so that another process is to do it meanwhile.

        Such a stage reports no progress, and does not `resume`.

        Args:
            source: where the inputs are.
        """
        return False

    def run(self, source: Inputs, out: Path) -> None:
        """Do the work.

        Args:
            source: where the inputs are.
            out: an empty folder to write the result into; it will be moved, so nothing in it may name it.

        Raises:
            PocketVLError: it cannot be done.
        """
        raise NotImplementedError

    def ensures(self, source: Inputs, result: Path) -> None:
        """Check a result before it is sealed.

        Args:
            source: where the inputs are.
            result: the folder that `run` wrote.

        Raises:
            PocketVLError: it is not what the stage promises.
        """


def links(stage: Stage) -> dict[str, tuple[Stage | Path, ...]]:
    """The fields of a stage that are inputs: what each stands for.

    Raises:
        StageError: a tuple mixes inputs and settings, or an input hides inside a setting.
    """
    found: dict[str, tuple[Stage | Path, ...]] = {}
    for name, value in _values(stage):
        if isinstance(value, Stage | Path):
            found[name] = (value,)
        elif isinstance(value, tuple | list):
            inputs = tuple(item for item in value if isinstance(item, Stage | Path))
            if inputs and len(inputs) != len(value):
                raise StageError(f"{stage.name}: {name} mixes inputs and settings")
            if inputs:
                found[name] = inputs
    return found


def empty_fields(stage: Stage) -> dict[str, tuple[Path, ...]]:
    """The empty tuple fields, of which it is not known whether they are settings or inputs."""
    return {name: () for name, value in _values(stage) if value in ((), [])}


def settings(stage: Stage) -> dict[str, object]:
    """The fields of a stage that are settings, as JSON.

    Raises:
        StageError: a field is of a type that has no JSON that says all of it.
    """
    inputs = links(stage)
    return {
        name: _jsonable(value, f"{stage.name}.{name}") for name, value in _values(stage) if name not in inputs
    }


def _values(stage: Stage) -> Iterator[tuple[str, object]]:
    for each in dataclasses.fields(stage):
        yield each.name, getattr(stage, each.name)


def _jsonable(value: object, where: str) -> object:
    if isinstance(value, enum.Enum):
        return _jsonable(value.value, where)
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, tuple | list):
        return [_jsonable(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return {str(key): _jsonable(item, f"{where}[{key!r}]") for key, item in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type | Stage):
        body = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        return {type(value).__name__: _jsonable(body, where)}
    raise StageError(
        f"{where} is {value!r}, which cannot be a setting: use plain values, enums and frozen dataclasses"
    )
