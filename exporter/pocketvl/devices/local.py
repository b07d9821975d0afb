"""This machine as a device: the bench runs in a fresh process beside this one."""

from __future__ import annotations

import sys
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


class LocalDevice:
    """The machine that this process runs on, as far as it may use it."""

    def __init__(self, bundle: Path) -> None:
        self._bundle = bundle

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
