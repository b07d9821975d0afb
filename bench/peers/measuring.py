"""Times all methods of a tower in turns: every round asks each worker once, in an order that changes."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from bench.peers.client import Served, WorkerError, serve
from bench.peers.contenders import Method
from bench.peers.load import LIMIT, OtherLoad, check_before, quiet_rounds
from bench.peers.quantizing import Say
from bench.peers.record import Made, Timed, made_file, timed_file
from bench.results.record import read_record, write_record
from bench.timing import machine
from pocketvl.errors import DataError

_LOOK_S = 2.0


def time_tower(
    work: Path,
    model: str,
    tower: str,
    threads: int,
    methods: Sequence[Method],
    rounds: int,
    runs: int,
    any_load: bool,
    without_amx: bool,
    say: Say,
) -> Timed:
    """Time every graph of a tower that there is, and keep what was found.

    Args:
        work: the comparison's folder.
        model: whose.
        tower: "image" or "text".
        threads: of an inference.
        methods: to time; those that failed to quantize are left out.
        rounds: in each of which every worker is asked once.
        runs: counted ones of a worker in a round, after one that is not.
        any_load: measure on a machine that others use, too.
        without_amx: whether AMX is refused to this process, and so to the workers.
        say: told of progress.

    Raises:
        DataError: the machine is in use, or nothing is there to time.
    """
    ready = [each for each in methods if _is_made(work, model, each, tower)]
    if not ready:
        raise DataError(f"nothing of {model} is quantized: run quantize first")
    inputs = work / model / "inputs" / f"{tower}-judged.npy"
    with ExitStack() as stack:
        served: dict[str, Served] = {}
        failed: dict[str, str] = {}
        started = {
            method.name: stack.enter_context(serve(work, model, method, tower, inputs, threads))
            for method in ready
        }
        for name, worker in started.items():
            try:
                worker.wait()
            except WorkerError as error:
                failed[name] = str(error)
                continue
            served[name] = worker
        load = OtherLoad(worker.pid for worker in served.values())
        time.sleep(_LOOK_S)
        before, busy_workers = load.since()
        check_before(before, any_load)
        times, busy = run_rounds(served, rounds, runs, load)
        peaks = {name: worker.peak_bytes() for name, worker in served.items()}
    kept, doubtful = quiet_rounds(busy)
    timed = Timed(
        machine(),
        threads,
        runs,
        {name: tuple(float(np.median(found[index])) for index in kept) for name, found in times.items()},
        {
            name: float(np.percentile([ms for index in kept for ms in found[index]], 10))
            for name, found in times.items()
        },
        before,
        tuple(busy),
        busy_workers,
        len(kept),
        doubtful,
        before > LIMIT,
        peaks,
        failed,
    )
    path = timed_file(work, model, tower, threads, without_amx=without_amx)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_record(path, timed)
    medians = sorted((float(np.median(values)), name) for name, values in timed.rounds_ms.items())
    say(f"{model} {tower} {threads}: " + ", ".join(f"{name} {ms:.1f}" for ms, name in medians))
    return timed


def run_rounds(
    served: Mapping[str, Served], rounds: int, runs: int, load: OtherLoad
) -> tuple[dict[str, list[list[float]]], list[float]]:
    """Ask all workers in turns; one round more than asked for, the first of which does not count.

    Returns:
        By method, milliseconds of every run of every round; and of each round, processors that others kept
        busy.
    """
    shuffle = random.Random(0)
    times: dict[str, list[list[float]]] = {name: [] for name in served}
    busy: list[float] = []
    for turn in range(rounds + 1):
        load.since()
        for name in shuffle.sample(list(served), len(served)):
            found = served[name].times_ms(runs)
            if turn:
                times[name].append(found)
        others, _ = load.since()
        if turn:
            busy.append(round(others, 3))
    return times, busy


def _is_made(work: Path, model: str, method: Method, tower: str) -> bool:
    made = read_record(Made, made_file(work, model, method.name, tower))
    return made is not None and not made.failed
