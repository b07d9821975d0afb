"""How long commands take to start: whole processes, in turns, and what they import meanwhile.

    python -m bench.starts --work build/bench/starts [--rounds 11]

`pocketvl --help`, an export that finds everything in the cache, `pocketvl-run --help` and `pocketvl-run
match` of an int8 variant in each engine. A command is a fresh process every time; its files are in the
system's cache, since the first round does not count. Imports are those of one more run under
`-X importtime`, whose own cost makes it slower: compare packages with each other, not with the times.
"""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from bench.timing import machine

CHECKPOINT, CALIBRATION = Path("checkpoints/tabletop-clip"), Path("calibration_data")
HEAVY = (
    *(
        "torch",
        "transformers",
        "numpy",
        "onnx",
        "onnxruntime",
        "ai_edge_litert",
        "PIL",
        "tokenizers",
        "scipy",
    ),
    *("matplotlib", "pydantic", "rich", "jinja2", "safetensors", "litert_torch", "optuna"),
)
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|(\s+)(\S+)")


@dataclass(frozen=True)
class Start:
    """A command's start.

    Attributes:
        median_ms: of whole processes.
        p10_ms: their tenth percentile.
        modules: imported, all of them.
        heavy_ms: by heavy package that was imported, what its modules took, without others that they import.
    """

    median_ms: float
    p10_ms: float
    modules: int
    heavy_ms: dict[str, float]


def commands(work: Path) -> dict[str, list[str]]:
    """What is started, by its name on the page: the words after `python`."""
    bundle = str(work / "bundle")
    host = ["-c", "from pocketvl.cli import main; main()"]
    device = ["-c", "from pocketvl_runtime.cli import main; main()"]
    picture = str(CALIBRATION / "images" / "0000.jpg")
    match = [
        *device,
        "match",
        bundle,
        "--image",
        picture,
        "--text",
        "a blue triangle",
        "--text",
        "a pink ring",
    ]
    return {
        "pocketvl --help": [*host, "--help"],
        "pocketvl export, all cached": [
            *(*host, "export", str(CHECKPOINT), "-o", bundle),
            *("--calibration", str(CALIBRATION), "--cache", str(work / "cache")),
        ],
        "pocketvl-run --help": [*device, "--help"],
        "pocketvl-run match, tflite-int8": [*match, "--variant", "tflite-int8"],
        "pocketvl-run match, onnx-int8": [*match, "--variant", "onnx-int8"],
    }


def run(words: Sequence[str]) -> str:
    """Run Python with these words; what it said on stderr.

    Raises:
        click.ClickException: it failed.
    """
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        raise click.ClickException(f"{' '.join(words)}: {lines[-1] if lines else done.returncode}")
    return done.stderr


def time_in_turns(started: Mapping[str, Sequence[str]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds [rounds] of every command, all in each round, in an order that changes."""
    shuffle = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in started}
    for turn in range(rounds + 1):
        for name in shuffle.sample(list(started), len(started)):
            begin = time.perf_counter()
            run(started[name])
            if turn:
                times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def imported(importtime: str) -> tuple[int, dict[str, float]]:
    """How many modules `-X importtime` told of, and milliseconds of each heavy package's own modules."""
    found = _LINE.findall(importtime)
    spent: dict[str, float] = {}
    for microseconds, _, module in found:
        package = module.split(".")[0]
        if package in HEAVY:
            spent[package] = spent.get(package, 0.0) + int(microseconds) / 1e3
    return len(found), {
        package: round(ms, 1) for package, ms in sorted(spent.items(), key=lambda each: -each[1])
    }


@click.command()
@click.option(
    "--work", type=click.Path(path_type=Path), default=Path("build/bench/starts"), show_default=True
)
@click.option("--rounds", type=click.IntRange(min=1), default=11, show_default=True)
def main(work: Path, rounds: int) -> None:
    """Measure, print, and write starts.json into the work folder."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    work.mkdir(parents=True, exist_ok=True)
    started = commands(work)
    print(machine())
    run(started["pocketvl export, all cached"])  # so that all is cached, and there is a bundle
    times = time_in_turns(started, rounds)
    results: dict[str, object] = {"machine": machine()}
    for name, words in started.items():
        modules, heavy = imported(run(["-X", "importtime", *words]))
        start = Start(float(np.median(times[name])), float(np.percentile(times[name], 10)), modules, heavy)
        results[name] = asdict(start)
        heaviest = (
            ", ".join(f"{package} {ms:.0f}" for package, ms in heavy.items()) or "none of the heavy ones"
        )
        print(f"{name:<32} {start.median_ms:6.0f} ms (p10 {start.p10_ms:.0f}), {modules} modules: {heaviest}")
    (work / "starts.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
