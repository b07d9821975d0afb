"""Latency and memory, measured by the device's own bench in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.progress import Progress

_MEMORY_RUNS = 3


def measure_latency_and_memory(
    bundle: Path,
    variants: Sequence[str],
    threads: Sequence[int],
    runs: int,
    progress: Progress | None = None,
) -> BenchResult:
    """Time all variants in one process, interleaved, and take the peak memory of each from one of its own.

    Raises:
        BackendError: the bench failed; the message holds its last line.
    """
    result = measure_latency(bundle, variants, threads, runs)
    measured = {}
    for done, (name, timed) in enumerate(result.variants.items(), start=1):
        alone = measure_latency(bundle, [name], [1], _MEMORY_RUNS).variants[name]
        measured[name] = replace(timed, peak_memory_bytes=alone.peak_memory_bytes)
        if progress is not None:
            progress(done, len(variants), f"memory of {name}")
    return replace(result, variants=measured)


def measure_latency(bundle: Path, variants: Sequence[str], threads: Sequence[int], runs: int) -> BenchResult:
    """Time all variants in one fresh process, interleaved.

    Raises:
        BackendError: the bench failed; the message holds its last line.
    """
    command = [sys.executable, "-P", "-m", "pocketvl_runtime", "bench", str(bundle), "--json"]
    command += ["--runs", str(runs)]
    command += [word for variant in variants for word in ("--variant", variant)]
    command += [word for count in threads for word in ("--threads", str(count))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise BackendError(f"the bench of {', '.join(variants)} failed: {lines[-1]}")
    return BenchResult.from_json(done.stdout, "the bench")
