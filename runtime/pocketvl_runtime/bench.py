"""How long a bundle's variants take on this machine: interleaved, so that its moods hit all alike."""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pocketvl_runtime.bench_result import (
    BenchResult,
    BundleIdentity,
    Inputs,
    Latency,
    Settings,
    Software,
    Timing,
    VariantBench,
)
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import InputError
from pocketvl_runtime.files import read_file
from pocketvl_runtime.image import ImageInput
from pocketvl_runtime.machine import this_machine
from pocketvl_runtime.manifest import MANIFEST_FILE, MAX_JSON_BYTES
from pocketvl_runtime.model import Model, load
from pocketvl_runtime.obstacles import runnable_tasks
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.version import __version__

_SEED = 0
_WARMUP_RUNS = 1


@dataclass
class _Runner:
    model: Model
    load_ms: float
    timings: list[dict[str, float]] = field(default_factory=list)  # of each run, by stage


def bench(
    bundle: Bundle,
    variants: Sequence[str],
    threads: Sequence[int],
    runs: int,
    image: ImageInput | None = None,
    text: str | None = None,
    progress: Progress | None = None,
    *,
    warmup_runs: int = _WARMUP_RUNS,
    keep_samples: bool = False,
) -> BenchResult:
    """Times variants at thread counts, one run of each a round, in an order that changes.

    Args:
        bundle: opened.
        variants: names of variants; one named twice is measured once.
        threads: numbers of threads, likewise.
        runs: counted runs of each.
        image: default: the golden pack's first picture.
        text: default: the golden pack's first text.
        progress: told after every round.
        warmup_runs: runs of each before the counted ones.
        keep_samples: put every counted run into the result, not only their percentiles.

    Raises:
        InputError: nothing to do.
        PocketVLError: what loading or running raises.
    """
    if not variants or not threads or runs < 1 or warmup_runs < 0:
        raise InputError("bench needs at least one variant, one thread count and one run")
    picture = image if image is not None else _golden_image(bundle)
    words = text if text is not None else _golden_text(bundle)
    runners: dict[tuple[str, int], _Runner] = {}
    for name in variants:
        for count in threads:
            if (name, count) not in runners:
                runners[name, count] = _open(bundle, name, count)
    order, shuffle = list(runners.values()), random.Random(_SEED)
    for turn in range(warmup_runs + runs):
        shuffle.shuffle(order)  # no variant always runs in the wake of the same other one
        for runner in order:
            timing = _timed(runner.model, picture, words)
            if turn >= warmup_runs:
                runner.timings.append(timing)
        if progress is not None:
            progress(turn + 1, warmup_runs + runs, "timing")
    peak = peak_rss_bytes() if len(runners) == 1 else None
    given = image is not None or text is not None
    return BenchResult(
        Software("pocketvl-runtime", __version__),
        this_machine(),
        _identity(bundle),
        Settings(runs, warmup_runs, True, _SEED, Inputs.GIVEN if given else Inputs.GOLDEN),
        {
            name: _measured([r for (v, _), r in runners.items() if v == name], peak, keep_samples)
            for name in variants
        },
    )


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


def _open(bundle: Bundle, variant: str, threads: int) -> _Runner:
    start = time.perf_counter()
    model = load(bundle, variant, threads, allow_non_finite=True)
    return _Runner(model, 1000 * (time.perf_counter() - start))


def _timed(model: Model, image: ImageInput, text: str) -> dict[str, float]:
    """Milliseconds by stage of one match, or of one question where the model cannot match."""
    if "match" in runnable_tasks(model.manifest):
        return asdict(model.match(image, [text]).timing_ms)
    return asdict(model.ask(image, text).timing_ms)


def _identity(bundle: Bundle) -> BundleIdentity:
    manifest = read_file(bundle.root / MANIFEST_FILE, MAX_JSON_BYTES)
    return BundleIdentity(bundle.manifest.model.name, hashlib.sha256(manifest).hexdigest())


def _measured(runners: Sequence[_Runner], peak: int | None, keep_samples: bool) -> VariantBench:
    model = runners[0].model
    engine, _, version = model.engine.rpartition(" ")
    timings = tuple(
        Timing(
            runner.model.threads,
            runner.load_ms,
            {
                stage: _latency([timing[stage] for timing in runner.timings], keep_samples)
                for stage in runner.timings[0]
            },
        )
        for runner in runners
    )
    return VariantBench(Software(engine, version), timings, peak, model.notes)


def _latency(values: Sequence[float], keep_samples: bool) -> Latency:
    p10, median, p90, p99 = (float(value) for value in np.percentile(values, (10, 50, 90, 99)))
    samples = tuple(values) if keep_samples else None
    return Latency(p10, median, p90, max(values), len(values), p99, samples)


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
