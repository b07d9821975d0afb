"""A device's whole profile of a bundle, made of several benches in fresh processes."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from pocketvl.devices.base import Abilities, BenchRequest, Device
from pocketvl.devices.groups import conditions_of, groups_of, merged
from pocketvl_runtime.bench_result import TOTAL, BenchResult, VariantBench
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.errors import BackendError, InputError
from pocketvl_runtime.manifest import Status
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.variant_choice import default_threads as most_threads

PROFILES = "profiles"
"""The folder of a bundle that profiles are kept in."""

_ALONE_RUNS = 3
_FEWEST_RUNS = 10


@dataclass(frozen=True)
class ProfileSettings:
    """What a profile measures.

    Attributes:
        variants: names, at least one.
        threads: counts, at least one; cold start and memory are taken at the first.
        runs: counted runs of each variant at each thread count.
        warmup_runs: runs of each before those.
        starts: fresh processes in which each variant is alone, for cold start and memory.
        duration_s: how long each variant then answers without a pause, in seconds; 0: not at all.
        samples: whether the result holds every counted run.
        timeout_s: seconds that any one of the benches may take beside these loads; None: any time.
        ops: whether one more bench then tells which operators the graphs' time goes to.
        most_seconds: that the counted runs may take together, as the first runs tell; of what takes longer
            there are fewer, but 10. None: any time.
        most_bytes: memory that variants which are timed in turns may need together; those that need more are
            timed in several benches. None: any, and all take turns.
    """

    variants: tuple[str, ...]
    threads: tuple[int, ...]
    runs: int = 30
    warmup_runs: int = 1
    starts: int = 3
    duration_s: float = 0.0
    samples: bool = False
    timeout_s: float | None = None
    ops: bool = False
    most_seconds: float | None = None
    most_bytes: int | None = None


def profile(device: Device, settings: ProfileSettings, progress: Progress | None = None) -> BenchResult:
    """Times a bundle's variants on a device.

    Each variant is alone in a few processes, for its cold start and its memory; operators are timed in one
    more; then all variants and thread counts take turns in another, or in several where memory asks for it.
    The sustained loads come last, since they leave a warm machine.

    Args:
        device: entered.
        settings: what to measure.
        progress: told what is being done.

    Raises:
        BackendError: the device, or a bench on it, failed; the message says which. Or operators are asked
            for, which it does not tell.
    """
    if settings.ops and not device.tells_ops:
        raise BackendError(
            f"{device.name} does not tell the times of single operators: explain a profile of this machine, "
            "of a board behind --ssh, or of a phone that runs a program (--adb with --binary)"
        )
    variants, timeout_s = tuple(dict.fromkeys(settings.variants)), settings.timeout_s
    alone: dict[str, list[VariantBench]] = {name: [] for name in variants}
    starts = [name for name in variants for _ in range(settings.starts)]
    for done, name in enumerate(starts, start=1):
        request = BenchRequest((name,), settings.threads[:1], _ALONE_RUNS, timeout_s=timeout_s)
        alone[name].append(device.bench(request).variants[name])
        if progress is not None:
            progress(done, len(starts), f"start and memory of {name}")
    told = _operators(device, settings, variants, progress) if settings.ops else None
    if timeout_s is not None:
        timeout_s += len(variants) * settings.duration_s
    peaks = {name: max(_peaks(each), default=0) for name, each in alone.items()}
    runs, results = _runs(settings, alone), []
    for group, threads in groups_of(peaks, settings.threads, settings.most_bytes):
        request = BenchRequest(
            group,
            threads,
            runs,
            settings.warmup_runs,
            settings.duration_s,
            settings.samples,
            timeout_s,
        )
        results.append(device.bench(request, progress))
    result = merged(results, variants)
    measured = {
        name: _with_starts(each, alone[name], settings.threads[0]) for name, each in result.variants.items()
    }
    result = replace(result, variants=measured)
    return result if told is None else _with_operators(result, told)


def default_variants(
    bundle: Bundle, abilities: Abilities, device: str, experimental: bool
) -> tuple[str, ...]:
    """What is measured where no variant is named: the accepted ones that can run there.

    Args:
        bundle: opened.
        abilities: of the device.
        device: its name, for messages.
        experimental: those that failed the gate, too.

    Raises:
        InputError: there are none.
    """
    wanted = (Status.ACCEPTED, Status.EXPERIMENTAL) if experimental else (Status.ACCEPTED,)
    variants = bundle.manifest.variants
    found = tuple(name for name in abilities.variants if variants[name].status in wanted)
    if not found:
        more = "" if experimental or not abilities.variants else ", or measure those that failed the gate too"
        raise InputError(
            f"{device} can run no {'' if experimental else 'accepted '}variant of {bundle.root}: "
            f"install an engine there{more}"
        )
    return found


def default_threads(abilities: Abilities) -> tuple[int, ...]:
    """1, and as many as there are processors to use there, at most 4."""
    return tuple(dict.fromkeys((1, most_threads(abilities.usable_processors))))


def profile_path(bundle: Path, device: str) -> Path:
    """Where the profile of a device is kept in a bundle."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", device).strip("-.")
    return bundle / PROFILES / f"{name or 'device'}.json"


def check_writable(path: Path) -> None:
    """Checks that `write_profile` will not be refused, before something is measured for minutes.

    Raises:
        InputError: it would be.
    """
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if path.is_dir() or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise InputError(f"{path} cannot be written; name another place with -o")


def write_profile(result: BenchResult, path: Path) -> None:
    """Writes a result in one step: there is the old file or the new one, whole.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", suffix=".new", encoding="utf-8", delete=False
    ) as written:
        try:
            written.write(result.to_json())
            written.flush()
            os.fsync(written.fileno())
            Path(written.name).chmod(0o644)
            Path(written.name).replace(path)
        except BaseException:
            Path(written.name).unlink(missing_ok=True)
            raise


def _runs(settings: ProfileSettings, alone: Mapping[str, Sequence[VariantBench]]) -> int:
    """How many counted runs of each variant fit into `most_seconds`, after what each took alone."""
    if settings.most_seconds is None:
        return settings.runs
    answers_ms = (
        min(each.timing(settings.threads[0]).stages[TOTAL].median for each in benches)
        for benches in alone.values()
        if benches
    )
    round_ms = len(settings.threads) * sum(answers_ms)
    fitting = settings.most_seconds * 1000 // round_ms if round_ms else settings.runs
    return min(settings.runs, max(_FEWEST_RUNS, int(fitting)))


def _operators(
    device: Device, settings: ProfileSettings, variants: tuple[str, ...], progress: Progress | None
) -> BenchResult:
    """The operators of variants, from a process of their own: a profiler costs memory."""
    request = BenchRequest(variants, settings.threads, _ALONE_RUNS, timeout_s=settings.timeout_s, ops=True)
    return device.bench(request, progress)


def _with_operators(result: BenchResult, told: BenchResult) -> BenchResult:
    """A result with the operators that another tells of, and what the machine was like in both."""
    variants = {
        name: replace(each, graphs=told.variants[name].graphs) for name, each in result.variants.items()
    }
    return replace(
        result,
        variants=variants,
        conditions=conditions_of((told, result)),
        peaks=told.peaks,
        cache_bytes=told.cache_bytes,
    )


def _with_starts(together: VariantBench, alone: Sequence[VariantBench], threads: int) -> VariantBench:
    """What was measured in turns, with the cold starts and memory of processes that held nothing else."""
    colds = [ms for each in alone if (ms := each.timing(threads).cold_start_ms) is not None]
    peaks = _peaks(alone)
    steady = [size for each in alone if (size := each.steady_memory_bytes) is not None]
    timings = tuple(
        replace(each, cold_start_ms=median(colds)) if colds and each.threads == threads else each
        for each in together.timings
    )
    return replace(
        together,
        timings=timings,
        peak_memory_bytes=max(peaks, default=together.peak_memory_bytes),
        steady_memory_bytes=max(steady, default=together.steady_memory_bytes),
    )


def _peaks(alone: Sequence[VariantBench]) -> list[int]:
    """The peak memory of processes that ran one variant, in bytes, where it is known."""
    return [each.peak_memory_bytes for each in alone if each.peak_memory_bytes is not None]
