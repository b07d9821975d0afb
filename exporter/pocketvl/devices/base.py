"""Where a bundle can be timed: this machine, a board behind ssh, a phone behind adb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.progress import Progress


@dataclass(frozen=True)
class BenchRequest:
    """What one bench measures: every variant at every thread count, interleaved, in one fresh process.

    Attributes:
        variants: names, at least one.
        threads: counts, at least one.
        runs: counted runs of each.
        warmup_runs: runs of each before those.
        duration_s: how long each then answers without a pause, in seconds; 0: not at all.
        samples: whether the result holds every counted run.
        timeout_s: seconds after which the bench is ended; None: never.
        ops: whether it then tells which operators the graphs' time goes to; only where `Device.tells_ops`.
    """

    variants: tuple[str, ...]
    threads: tuple[int, ...]
    runs: int
    warmup_runs: int = 1
    duration_s: float = 0.0
    samples: bool = False
    timeout_s: float | None = None
    ops: bool = False

    def arguments(self) -> Iterator[str]:
        """The options that tell `pocketvl-run bench BUNDLE` the same, and to answer in JSON."""
        yield "--json"
        yield from ("--runs", str(self.runs), "--warmup", str(self.warmup_runs))
        for variant in self.variants:
            yield from ("--variant", variant)
        for count in self.threads:
            yield from ("--threads", str(count))
        if self.duration_s:
            yield from ("--duration", f"{self.duration_s:g}")
        if self.samples:
            yield "--samples"
        if self.ops:
            yield "--ops"


@dataclass(frozen=True)
class Abilities:
    """What a device can do with the bundle.

    Attributes:
        variants: names of those that can run there, in the bundle's order.
        usable_processors: how many threads can really run at the same time there.
    """

    variants: tuple[str, ...]
    usable_processors: int


class Device(Protocol):
    """A place where one bundle, handed to the constructor, can be timed; a context manager.

    Entering reaches the device and puts there what is needed; leaving removes that again, whatever happened.
    Every method raises BackendError where the device cannot be reached, ends before it answered, or takes
    longer than it may: one line that says what, where, and what to do.

    Attributes:
        progress: told what entering does; to be set before. None: nobody is told.
        tells_ops: whether its benches can tell the times of single operators.
    """

    progress: Progress | None
    tells_ops: bool

    @property
    def name(self) -> str:
        """What to call it in files' names and tables, e.g. "local", "pi5.local"."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def abilities(self) -> Abilities:
        """What can run there."""

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        """Runs one bench in a fresh process there.

        Args:
            request: what to measure.
            progress: told how much of it is done, as far as the device tells.
        """
