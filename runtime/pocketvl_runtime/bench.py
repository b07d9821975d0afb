"""How long a bundle's variants take on this machine: interleaved, so that its moods hit all alike."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.image import ImageInput
from pocketvl_runtime.isa import cpu_name, has_exact_int8, instruction_set
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.tasks import TimingMs

Progress = Callable[[int, int, str], None]
STAGES = tuple(item.name for item in fields(TimingMs))


@dataclass(frozen=True)
class Latency:
    """Milliseconds over the runs: tenth percentile and median."""

    p10: float
    median: float


@dataclass(frozen=True)
class Machine:
    """Where it was measured."""

    cpu: str
    isa: str
    threads: int
    exact_int8: bool


@dataclass(frozen=True)
class VariantBench:
    """One variant.

    Attributes:
        engine: which, and its version.
        load_ms: from the folder to the first answer being possible, per thread count.
        latency_ms: stage -> thread count -> latency; `text` is one text.
        notes: what the backend did on its own account.
    """

    engine: str
    load_ms: dict[str, float]
    latency_ms: dict[str, dict[str, Latency]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class BenchReport:
    """What `bench` measured; `peak_rss_bytes` is of the whole process: a variant's where it ran alone."""

    machine: Machine
    runs: int
    variants: dict[str, VariantBench]
    peak_rss_bytes: int


@dataclass
class _Runner:
    model: Model
    load_ms: float
    timings: list[TimingMs] = field(default_factory=list)


def bench(
    bundle: Bundle,
    variants: Sequence[str],
    threads: Sequence[int],
    runs: int,
    image: ImageInput | None = None,
    text: str | None = None,
    progress: Progress | None = None,
) -> BenchReport:
    """Times variants at thread counts, one run of each a round, in a new order; the first is not counted.

    Args:
        bundle: opened.
        variants: names of variants.
        threads: numbers of threads.
        runs: counted runs of each.
        image: default: the golden pack's first picture.
        text: default: the golden pack's first text.
        progress: told after every round.

    Raises:
        InputError: nothing to do.
        PocketVLError: what loading or running raises.
    """
    if not variants or not threads or runs < 1:
        raise InputError("bench needs at least one variant, one thread count and one run")
    picture = image if image is not None else _golden_image(bundle)
    words = text if text is not None else _golden_text(bundle)
    runners: dict[tuple[str, int], _Runner] = {}
    for name in variants:
        for count in threads:
            start = time.perf_counter()
            model = load(bundle, name, count, allow_non_finite=True)
            runners[name, count] = _Runner(model, 1000 * (time.perf_counter() - start))
    order, shuffle = list(runners.values()), random.Random(0)
    for turn in range(runs + 1):
        shuffle.shuffle(order)  # no variant always runs in the wake of the same other one
        for runner in order:
            timing = runner.model.match(picture, [words]).timing_ms
            if turn > 0:
                runner.timings.append(timing)
        if progress is not None:
            progress(turn, runs, "timing")
    machine = Machine(cpu_name(), instruction_set(), os.cpu_count() or 1, has_exact_int8())
    measured = {name: _report({n: r for (v, n), r in runners.items() if v == name}) for name in variants}
    return BenchReport(machine, runs, measured, peak_rss_bytes())


def peak_rss_bytes() -> int:
    """The largest resident memory this process has had, in bytes."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _report(runners: dict[int, _Runner]) -> VariantBench:
    first = next(iter(runners.values())).model
    latency = {
        stage: {str(count): _latency([getattr(t, stage) for t in r.timings]) for count, r in runners.items()}
        for stage in STAGES
    }
    loads = {str(count): runner.load_ms for count, runner in runners.items()}
    return VariantBench(first.engine, loads, latency, first.notes)


def _latency(values: list[float]) -> Latency:
    return Latency(float(np.percentile(values, 10)), float(np.median(values)))


def _golden_image(bundle: Bundle) -> Path:
    images = bundle.golden().images
    if not images:
        raise InputError("the golden pack has no picture: give one to time")
    return bundle.file(images[0].file)


def _golden_text(bundle: Bundle) -> str:
    texts = bundle.golden().texts
    if not texts:
        raise InputError("the golden pack has no text: give one to time")
    return texts[0].text
