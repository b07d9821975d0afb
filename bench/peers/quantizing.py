"""Installs peers, lets everybody quantize, and asks every graph for the judged samples' outputs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.client import VENVS, WorkerError, graph_file, python_of, run_measured, serve, worker_module
from bench.peers.contenders import OWN_VARIANTS, PEERS, TOWERS, Method
from bench.peers.figures import fidelity_of
from bench.peers.record import (
    EXPORT_FILE,
    QUANTIZE_FILE,
    ExportRecord,
    Made,
    QuantizeRecord,
    made_file,
)
from bench.peers.workers.serving import Job, job_json
from bench.results.record import read_record, write_record
from pocketvl.errors import DataError
from pocketvl_runtime.bundle import Bundle

Say = Callable[[str], None]


def install(work: Path, names: Sequence[str], say: Say) -> None:
    """Make the environments of peers that have none; a failure is kept, for the page."""
    for name in names:
        peer, python = PEERS[name], python_of(work, name)
        installed = python.parent.parent / "installed.txt"
        if installed.exists() and installed.read_text() == "\n".join(peer.requirements):
            continue
        say(f"installing {', '.join(peer.requirements)} ({peer.size})")
        uv = [sys.executable, "-m", "uv"]
        python.parent.parent.parent.mkdir(parents=True, exist_ok=True)
        try:
            _uv([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(python.parent.parent)])
            _uv([*uv, "pip", "install", "--quiet", "--python", str(python), *peer.requirements])
        except WorkerError as error:
            (work / VENVS / f"{name}.failed").write_text(str(error), encoding="utf-8")
            say(f"  {error}")
            continue
        installed.write_text("\n".join(peer.requirements))


def _uv(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise WorkerError(lines[-1][:300] if lines else f"uv ended with {done.returncode}")


def quantize_own(work: Path, model: str, again: bool, say: Say) -> None:
    """Make static int8 alone, timed beside the peers', then run `pocketvl export` with all own variants.

    Args:
        work: of the comparison.
        model: which.
        again: what is done, too, with an empty cache, so that its time counts.
        say: takes a line of news.
    """
    folder = work / model
    if again or read_record(QuantizeRecord, folder / QUANTIZE_FILE) is None:
        with tempfile.TemporaryDirectory(dir=folder, prefix="quantize-") as cache:
            found, peak = _run_own("quantize", folder, {"cache": cache})
        write_record(folder / QUANTIZE_FILE, QuantizeRecord(found["seconds"], peak))
        say(f"{model}: pocketvl quantized in {found['seconds']:.0f} s, {peak / 1e9:.1f} GB")
    if again:
        shutil.rmtree(folder / "cache", ignore_errors=True)
    elif read_record(ExportRecord, folder / EXPORT_FILE) is not None:
        return
    say(f"{model}: pocketvl export")
    settings = {"out": str(folder / "bundle"), "cache": str(folder / "cache"), "variants": list(OWN_VARIANTS)}
    found, peak = _run_own("export", folder, settings)
    cached = any(each["cached"] for each in found["stages"])
    write_record(folder / EXPORT_FILE, ExportRecord(found["seconds"], peak, cached))
    say(f"{model}: exported in {found['seconds']:.0f} s, {peak / 1e9:.1f} GB")


def _run_own(what: str, folder: Path, settings: Mapping[str, object]) -> tuple[dict[str, Any], int]:
    """Run one of pocketvl's workers on a model; what it wrote, and its largest memory in bytes."""
    job, result, log = (folder / f"{what}-{name}" for name in ("job.json", "result.json", "log.txt"))
    towers = {"source": str(folder / "checkpoint"), "calibration": str(folder / "calibration")}
    job.write_text(json.dumps(towers | dict(settings)), encoding="utf-8")
    command = [sys.executable, "-m", f"bench.peers.workers.pocketvl_{what}", str(job), str(result)]
    try:
        _, peak = run_measured(command, log, own=True)
    except WorkerError as error:
        raise DataError(f"{what} of {folder.name} failed: {error}; {log} has all of it") from error
    found: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    return found, peak


def quantize_peer(work: Path, model: str, method: Method, tower: str, again: bool, say: Say) -> Made:
    """Quantize one tower by one method of a peer, unless that is done; judge it."""
    path = made_file(work, model, method.name, tower)
    there = read_record(Made, path)
    if there is not None and not again:
        return there
    path.parent.mkdir(parents=True, exist_ok=True)
    say(f"{model} {tower}: {method.name}")
    made = _quantize(work, model, method, tower)
    if not made.failed:
        made = _judged(work, model, method, tower, made)
    say(f"  {made.failed or made.fidelity}")
    write_record(path, made)
    return made


def judge_own(work: Path, model: str, method: Method, tower: str, again: bool, say: Say) -> Made:
    """Judge one tower of one own variant, unless that is done."""
    path = made_file(work, model, method.name, tower)
    there = read_record(Made, path)
    if there is not None and not again:
        return there
    path.parent.mkdir(parents=True, exist_ok=True)
    bundle = Bundle.open(work / model / "bundle")
    spec = bundle.manifest.graph(method.name, TOWERS[tower])
    made = Made("", bundle.manifest.files[spec.file].bytes, None, None, None)
    made = _judged(work, model, method, tower, made)
    say(f"{model} {tower}: {method.name}: {made.failed or made.fidelity}")
    write_record(path, made)
    return made


def _quantize(work: Path, model: str, method: Method, tower: str) -> Made:
    folder = work / model
    python, graph = python_of(work, method.peer), graph_file(work, model, method, tower)
    refused = work / VENVS / f"{method.peer}.failed"
    if not python.exists() and refused.exists():
        return Made("", None, None, None, None, f"not installed: {refused.read_text(encoding='utf-8')}")
    if method.made_by is not None:
        made = read_record(Made, made_file(work, model, method.made_by, tower))
        if made is None:
            raise DataError(f"{method.name} runs what {method.made_by} made: quantize that first")
        return Made(made.versions, made.size_bytes, None, None, None, made.failed)
    job, result = graph.with_suffix(".job.json"), graph.with_suffix(".result.json")
    source = folder / "float" / f"{tower}.{method.source}"
    calibration = folder / "inputs" / f"{tower}-calibration.npy"
    job.write_text(job_json(Job(str(source), str(calibration), str(graph), method.how)), encoding="utf-8")
    command = [str(python), "-m", worker_module(method.peer), "quantize", str(job), str(result)]
    try:
        _, peak = run_measured(command, graph.with_suffix(".log"), own=False)
    except WorkerError as error:
        return Made("", None, None, None, None, str(error))
    found = json.loads(result.read_text(encoding="utf-8"))
    weights = graph.with_suffix(".bin")
    size = graph.stat().st_size + (weights.stat().st_size if weights.exists() else 0)
    return Made(found["versions"], size, found["seconds"], peak, None)


def _judged(work: Path, model: str, method: Method, tower: str, made: Made) -> Made:
    """The same with its fidelity, or with what its engine said."""
    folder = work / model
    out = folder / "made" / method.name / f"{tower}.npy"
    values = (made.versions, made.size_bytes, made.seconds, made.peak_bytes)
    try:
        with serve(work, model, method, tower, folder / "inputs" / f"{tower}-judged.npy", 2) as served:
            served.wait()
            served.outputs(out)
    except WorkerError as error:
        return Made(*values, None, f"its graph does not run: {error}")
    reference = np.load(folder / "reference" / f"{tower}.npy")
    return Made(*values, fidelity_of(reference, np.load(out)))
