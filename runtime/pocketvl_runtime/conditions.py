"""What the machine is like while a bench runs: sampled in a thread, and judged at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from threading import Event, Thread
from types import TracebackType

from pocketvl_runtime.bench_result import Conditions, ConditionSample, Machine
from pocketvl_runtime.sensors import (
    ROOT,
    EnergyMeter,
    Frequencies,
    ProcessorTime,
    Thermometer,
    Throttle,
    Vcgencmd,
)

INTERVAL_S = 1.0
_ASK_EVERY = 5  # samples; asking the firmware by a command starts a process
_MINUTE_S = 60.0
_LOWER_MHZ = 0.95
_SLOW_MHZ = 0.75
_OTHER_LOAD = 0.2


class ConditionSampler:
    """Samples the machine from the beginning of a `with` to its end.

    Attributes:
        samples: those taken so far.
    """

    def __init__(
        self,
        interval_s: float = INTERVAL_S,
        root: Path = ROOT,
        own_cpu_s: Callable[[], float] = time.process_time,
    ) -> None:
        """Looks up what can be read.

        Args:
            interval_s: seconds between two samples.
            root: of the file system; `/`.
            own_cpu_s: tells the CPU time of this process, in seconds, which is no other load.
        """
        self.samples: list[ConditionSample] = []
        self._interval_s = interval_s
        self._own_cpu_s = own_cpu_s
        vcgencmd = Vcgencmd.find(root)
        self._frequencies = Frequencies(root)
        self._thermometer = Thermometer(root)
        self._processors = ProcessorTime(root)
        self._throttle = Throttle(root, vcgencmd)
        self._meter = EnergyMeter(root, vcgencmd)
        self._reasons: set[str] = set()
        self._start = self._previous_s = time.perf_counter()
        self._previous_others_s: float | None = None
        self._end = Event()
        self._thread = Thread(target=self._run, name="conditions", daemon=True)

    def __enter__(self) -> ConditionSampler:
        self._start = self._previous_s = time.perf_counter()
        self._take(ask=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        if error is None:
            self._take(ask=True)

    def elapsed_s(self) -> float:
        """Seconds since the first sample."""
        return time.perf_counter() - self._start

    def conditions(self, machine: Machine, threads: Sequence[int]) -> Conditions:
        """What was found, and what of it makes figures doubtful.

        Args:
            machine: this one.
            threads: of the inferences that ran meanwhile.
        """
        slower = frequency_fell(self.samples)
        throttled = True if self._reasons or slower else False if self._throttle.known else slower
        powered = [(s.at_s, s.power_w) for s in self.samples if s.power_w is not None]
        return Conditions(
            self._interval_s,
            tuple(self.samples),
            throttled,
            _energy_j(powered) if powered else None,
            tuple(doubts(self.samples, machine, threads, self._reasons, bool(slower))),
        )

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            self._take(ask=len(self.samples) % _ASK_EVERY == 0)

    def _take(self, ask: bool) -> None:
        now = time.perf_counter()
        seconds = now - self._previous_s if self.samples else 0.0
        self._previous_s = now
        self.samples.append(
            ConditionSample(
                at_s=round(now - self._start, 3),
                mhz=self._frequencies.mhz(),
                temperature_c=self._thermometer.celsius(),
                other_load=self._other_load(seconds),
                power_w=self._meter.watts(seconds, ask),
            )
        )
        self._reasons |= self._throttle.reasons(ask)

    def _other_load(self, seconds: float) -> float | None:
        busy = self._processors.busy_s()
        if busy is None:
            return None
        others, before = busy - self._own_cpu_s(), self._previous_others_s
        self._previous_others_s = others
        if before is None or seconds <= 0:
            return None
        return round(max(0.0, (others - before) / seconds), 3)


def fastest_mhz(samples: Sequence[ConditionSample]) -> float | None:
    """The frequency of the fastest processor, a mean over samples; None: not known."""
    found = [max(sample.mhz) for sample in samples if sample.mhz]
    return fmean(found) if found else None


def frequency_fell(samples: Sequence[ConditionSample]) -> bool | None:
    """Whether the fastest processor was slower in the last minute than in the first; None: not known."""
    if not samples or samples[-1].at_s < 2 * _MINUTE_S:
        return None
    first = fastest_mhz([sample for sample in samples if sample.at_s <= _MINUTE_S])
    last = fastest_mhz([sample for sample in samples if sample.at_s >= samples[-1].at_s - _MINUTE_S])
    return None if first is None or last is None else last < _LOWER_MHZ * first


def doubts(
    samples: Sequence[ConditionSample],
    machine: Machine,
    threads: Sequence[int],
    throttled_by: set[str],
    slower: bool,
) -> list[str]:
    """What makes figures doubtful, in words.

    Args:
        samples: taken meanwhile.
        machine: where.
        threads: of the inferences.
        throttled_by: reasons why the machine slowed its processors down.
        slower: whether they were slower at the end.
    """
    found = []
    if machine.emulated:
        found.append("the processor is emulated: no figure here is a device's latency")
    if max(threads) > machine.usable_processors:
        usable = machine.usable_processors
        found.append(f"{max(threads)} threads had {usable} processor{'s' * (usable > 1)} to run on")
    loads = [sample.other_load for sample in samples if sample.other_load is not None]
    if loads and fmean(loads) > _OTHER_LOAD:
        found.append(
            f"other programs kept {fmean(loads):.1f} of {machine.processors} processors busy (at most "
            f"{max(loads):.1f}): compare p10, or measure again when the machine is idle"
        )
    if throttled_by or slower:
        why = ", ".join(sorted(throttled_by)) or "its frequency fell"
        found.append(
            f"the machine slowed its processors down ({why}): cool it, or use a stronger power supply"
        )
    mhz = fastest_mhz(samples)
    if mhz is not None and machine.mhz_max and mhz < _SLOW_MHZ * machine.mhz_max:
        governors = f" (governor {', '.join(machine.governors)})" if machine.governors else ""
        found.append(f"the fastest processor ran at {mhz:.0f} of {machine.mhz_max:.0f} MHz{governors}")
    return found


def _energy_j(powered: Sequence[tuple[float, float]]) -> float:
    """Of watts at seconds: each figure stands for the time since the one before."""
    energy, before = 0.0, 0.0
    for at_s, watts in powered:
        energy += watts * (at_s - before)
        before = at_s
    return energy
