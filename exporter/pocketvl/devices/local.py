"""This machine as a device: the bench runs in a fresh process beside this one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from pocketvl.devices.base import Abilities, BenchRequest
from pocketvl.devices.running import PROGRESS_OPTION, run_command
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.cpus import usable_processors
from pocketvl_runtime.progress import Progress
from pocketvl_runtime.variant_choice import runnable_variants


def bench_graph(
    path: Path, threads: Sequence[int], runs: int, timeout_s: float | None, progress: Progress | None = None
) -> BenchResult:
    """Times a graph file and its operators, in a fresh process of the same Python.

    Args:
        path: a .onnx or .tflite file.
        threads: counts; none: as the runtime chooses them.
        runs: counted runs at each.
        timeout_s: seconds after which it is ended; None: never.
        progress: told how much of it is done.

    Raises:
        BackendError: it failed; the message says why.
    """
    command = [sys.executable, "-P", "-m", "pocketvl_runtime", "bench-graph", str(path), PROGRESS_OPTION]
    command += ["--runs", str(runs), *(word for count in threads for word in ("--threads", str(count)))]
    what = f"the bench of {path.name}"
    return BenchResult.from_json(run_command(command, what, timeout_s, progress), what)


class LocalDevice:
    """The machine that this process runs on, as far as it may use it."""

    tells_ops = True

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle
        self.progress: Progress | None = None

    @property
    def name(self) -> str:
        """Always "local"."""
        return "local"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def abilities(self) -> Abilities:
        """What can run here."""
        return Abilities(tuple(runnable_variants(Bundle.open(self._bundle))), usable_processors())

    def bench(self, request: BenchRequest, progress: Progress | None = None) -> BenchResult:
        """Runs one bench in a fresh process of the same Python; see `Device.bench`."""
        command = [sys.executable, "-P", "-m", "pocketvl_runtime", "bench", str(self._bundle)]
        command += [*request.arguments(), PROGRESS_OPTION]
        what = f"the bench of {', '.join(request.variants)}"
        return BenchResult.from_json(run_command(command, what, request.timeout_s, progress), "the bench")
