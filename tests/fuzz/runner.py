"""Runs cases in a process of their own, so that one that kills or hangs it is a finding like any other."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import resource
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.fuzz.target import Finding, Target, numbered_case, watch_memory

_ADDRESS_SPACE = 8 * 2**30
_PACKAGES = ("/pocketvl/", "/pocketvl_runtime/")


@dataclass(frozen=True)
class Limits:
    """What a case may take.

    Attributes:
        cpu_seconds: of processor time.
        seconds: on the clock; then its process is killed. Larger, since others use the machine too.
        size_bytes: by which the process may grow.
    """

    cpu_seconds: float = 10
    seconds: float = 40
    size_bytes: int = 2 * 2**30


LIMITS = Limits()


@dataclass(frozen=True)
class Result:
    """What came of a case.

    Attributes:
        target: its name.
        number: of the case.
        what: how the case was made.
        outcome: in a word or two; of a finding, its kind.
        detail: of a finding what was seen, else empty.
    """

    target: str
    number: int
    what: str
    outcome: str
    detail: str = ""

    @property
    def is_finding(self) -> bool:
        """Whether this is not what is documented."""
        return self.detail != ""

    @property
    def command(self) -> str:
        """What runs this case again."""
        return f".venv/bin/python -m tests.fuzz --target {self.target} --case {self.number}"


def run(target: Target, numbers: Sequence[int], log: Path, limits: Limits = LIMITS) -> Iterator[Result]:
    """Runs cases one after the other.

    Args:
        target: set up, without threads of its own: the process is forked.
        numbers: of the cases.
        log: where what the process writes to stdout and stderr goes.
        limits: of each case.
    """
    worker: _Worker | None = None
    try:
        for number in numbers:
            worker = worker or _Worker(target, log, limits)
            result = worker.run(number)
            if result is None:
                result, worker = worker.autopsy(number), None
            yield result
    finally:
        if worker is not None:
            worker.stop()


def save(result: Result, target: Target, folder: Path) -> Path:
    """Writes a finding and the input that shows it; returns their folder."""
    place = folder / f"{result.target}-{result.number}"
    place.mkdir(parents=True, exist_ok=True)
    for name, content in numbered_case(target, result.number).files.items():
        (place / name.replace("/", "_")).write_bytes(content)
    told = {**asdict(result), "reproduce": result.command}
    (place / "finding.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return place


def check_case(target: Target, number: int, limits: Limits) -> Result:
    """Runs one case in this process."""
    case = numbered_case(target, number)
    try:
        grown, begun = watch_memory(), time.process_time()
        outcome = target.check(case)
        seconds = time.process_time() - begun
        if seconds > limits.cpu_seconds:
            raise Finding("computes for too long", f"{seconds:.1f} s, then: {outcome}")
        if grown() > limits.size_bytes:
            raise Finding("takes too much memory", f"{grown() >> 20} MiB, then: {outcome}")
        return Result(target.name, number, case.what, outcome)
    except Finding as finding:
        return Result(target.name, number, case.what, finding.kind, finding.detail or finding.kind)
    except BaseException as error:  # a panic in Rust is no Exception
        if isinstance(error, KeyboardInterrupt):
            raise
        return Result(target.name, number, case.what, *_undocumented(error))


def _undocumented(error: BaseException) -> tuple[str, str]:
    """Names an exception by its type and the last line of pocketvl that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if any(package in frame.filename for package in _PACKAGES)]
    where = (ours or frames)[-1]
    kind = f"{type(error).__name__} in {Path(where.filename).name}:{where.lineno}, {where.name}"
    return kind, "".join(traceback.format_exception_only(error)).strip()[:1000]


class _Worker:
    """A process that runs cases."""

    def __init__(self, target: Target, log: Path, limits: Limits) -> None:
        self._target, self._log, self._limits = target, log, limits
        context = multiprocessing.get_context("fork")
        self._pipe, other = context.Pipe()
        self._process: ForkProcess = context.Process(
            target=_serve, args=(target, other, self._pipe, log, limits), daemon=True
        )
        self._process.start()
        other.close()

    def run(self, number: int) -> Result | None:
        """The result of a case; None where the process has died of it or was ended for its slowness."""
        try:
            self._pipe.send(number)
            if not self._pipe.poll(self._limits.seconds):
                return None
            result: Result = self._pipe.recv()
            return result
        except (EOFError, OSError):
            return None

    def autopsy(self, number: int) -> Result:
        """What a process without a result died of."""
        self._process.join(1)
        what = numbered_case(self._target, number).what
        code = self._process.exitcode
        self.stop()
        if code is None:
            kind = "does not come to an end"
        else:
            kind = f"dies of {signal.Signals(-code).name}" if code < 0 else f"ends the process with {code}"
        said = self._log.read_bytes()[-1000:].decode("utf-8", "replace").strip()
        return Result(self._target.name, number, what, kind, said or kind)

    def stop(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(target: Target, pipe: Connection, other: Connection, log: Path, limits: Limits) -> None:
    other.close()
    faulthandler.disable()  # pytest's would write over its own output
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # its threads were not forked along
    _speak_into(log)
    _limit_memory()
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            number = pipe.recv()
            log.open("wb").close()  # only what this case says
            pipe.send(check_case(target, number, limits))


def _speak_into(log: Path) -> None:
    """Sends stdout and stderr, those of engines included, into a file."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.close(out)


def _limit_memory() -> None:
    """Keeps a runaway case from taking the machine along; leaves no core file."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
