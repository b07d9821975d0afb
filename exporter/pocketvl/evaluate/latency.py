"""Latency and memory, measured by the device's own bench in fresh processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from pocketvl_runtime.bench import BenchReport
from pocketvl_runtime.errors import BackendError
from pocketvl_runtime.schema import decode, parse_json

Progress = Callable[[int, int, str], None]
_MEMORY_RUNS = 3


def measure_memory(bundle: Path, variants: Sequence[str], progress: Progress | None = None) -> dict[str, int]:
    """Peak resident memory in bytes of a process that loads and runs one variant alone, per variant.

    Raises:
        BackendError: the bench failed.
    """
    peaks = {}
    for done, variant in enumerate(variants, start=1):
        peaks[variant] = measure_latency(bundle, [variant], [1], _MEMORY_RUNS).peak_rss_bytes
        if progress is not None:
            progress(done, len(variants), f"memory of {variant}")
    return peaks


def measure_latency(bundle: Path, variants: Sequence[str], threads: Sequence[int], runs: int) -> BenchReport:
    """Times all variants in one fresh process, interleaved.

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
    return decode(BenchReport, parse_json(done.stdout, "the bench"), "the bench")
