"""The parent's end of worker processes: jobs that are measured, and graphs that are served."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.peers.contenders import OWN, PEERS, TOWERS, Method
from pocketvl.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
VENVS = "venvs"
_EVERY_S = 0.5


class WorkerError(Exception):
    """A worker could not do what it was asked; its last line."""


def python_of(work: Path, peer: str) -> Path:
    """The Python that runs a peer's worker: pocketvl's own, or that of the peer's environment."""
    return Path(sys.executable) if peer == OWN else work / VENVS / peer / "bin" / "python"


def worker_module(peer: str) -> str:
    """Of a peer's worker."""
    return f"bench.peers.workers.{'pocketvl_runtime_worker' if peer == OWN else PEERS[peer].worker}"


def environment(own: bool) -> dict[str, str]:
    """Of a worker: the repository's bench package, and for pocketvl what this process has.

    Thread counts are set by each engine's own option alone.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    kept.pop("OMP_NUM_THREADS", None)
    own_path = [os.environ["PYTHONPATH"]] if own and "PYTHONPATH" in os.environ else []
    return {**kept, "PYTHONPATH": os.pathsep.join([str(ROOT), *own_path]), "PYTHONWARNINGS": "ignore"}


def run_measured(
    command: Sequence[str], log: Path, own: bool, fine: Container[int] = (0,)
) -> tuple[float, int]:
    """Run a command to its end; wall seconds, and the largest memory in bytes of all its processes together.

    Memory is sampled twice a second as proportional set size, so that what processes share counts once; of a
    single process the kernel's own peak is taken.

    Args:
        command: to run.
        log: what it says goes here.
        own: whether it is pocketvl's.
        fine: exit codes of no failure.

    Raises:
        WorkerError: it failed; the last line of the log.
    """
    begin = time.perf_counter()
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            list(command), stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment(own)
        )
        peak, ended = 0, 0
        while not ended:
            peak = max(peak, _memory_of(process.pid))
            time.sleep(_EVERY_S)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        peak = max(peak, usage.ru_maxrss * 1024)  # of a process that no sample met
    if process.returncode not in fine:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1][:300] if lines else f"exit code {process.returncode}"
        raise WorkerError(f"killed by signal {-process.returncode}" if process.returncode < 0 else last)
    return time.perf_counter() - begin, peak


def _memory_of(pid: int) -> int:
    """Bytes of a process and its descendants; of a process without any, its own peak."""
    family = [pid, *_descendants(pid)]
    if len(family) == 1:
        return _field(Path(f"/proc/{pid}/status"), "VmHWM")
    return sum(_field(Path(f"/proc/{each}/smaps_rollup"), "Pss") for each in family)


def _descendants(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        children = [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except OSError:
        return []
    return [found for child in children for found in (child, *_descendants(child))]


def _field(path: Path, name: str) -> int:
    try:
        for line in path.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Served:
    """A graph in a worker process, opened and run once; ended at the end of a `with`.

    Attributes:
        pid: of the process.
    """

    def __init__(self, command: Sequence[str], log: Path, own: bool) -> None:
        """Start the worker; `wait` says when it is ready."""
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(own),
                text=True,
            )
        self.pid = self._process.pid
        self._ready = False

    def wait(self, timeout_s: float = 600.0) -> None:
        """Wait until the graph has run once.

        Raises:
            WorkerError: it cannot be opened or run, or not in time.
        """
        timer = threading.Timer(timeout_s, self._process.kill)
        timer.start()
        try:
            self._read()
        finally:
            timer.cancel()

    def outputs(self, out: Path) -> None:
        """Write the outputs of all inputs [N, D] as a .npy file.

        Raises:
            WorkerError: the graph failed.
        """
        self._ask({"do": "outputs", "out": str(out)})

    def times_ms(self, runs: int, warm: int = 1) -> list[float]:
        """Milliseconds of so many inferences of the first input, after some that do not count.

        Raises:
            WorkerError: the graph failed.
        """
        times: list[float] = self._ask({"do": "run", "runs": runs, "warm": warm})["ms"]
        return times

    def peak_bytes(self) -> int:
        """The largest memory that the process has had."""
        return _field(Path(f"/proc/{self.pid}/status"), "VmHWM")

    def __enter__(self) -> Served:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def _ask(self, request: Mapping[str, object]) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except OSError:
            raise WorkerError(f"its process ended with {self._process.wait()}") from None
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise WorkerError(f"its process ended with {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(str(answer["error"]))
        return answer


def serve(work: Path, model: str, method: Method, tower: str, inputs: Path, threads: int) -> Served:
    """Start a worker that serves a method's graph of a tower.

    Raises:
        DataError: the peer is not installed.
    """
    python = python_of(work, method.peer)
    if not python.exists():
        raise DataError(f"{method.peer} is not installed in {python.parent.parent}: run prepare first")
    graph, how = graph_file(work, model, method, tower), method.serve or method.how
    if method.is_own:
        graph, how = work / model / "bundle", f"{method.name}:{TOWERS[tower]}"
    log = work / model / "logs" / f"serve-{method.name}-{tower}-{threads}.txt"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(str(python), "-m", worker_module(method.peer), "serve"),
        *(str(graph), str(inputs), str(threads), how),
    ]
    return Served(command, log, method.is_own)


def graph_file(work: Path, model: str, method: Method, tower: str) -> Path:
    """Where a peer's graph of a tower lies."""
    return work / model / "made" / method.maker / f"{tower}{method.suffix}"
