"""android_demo/bench_binary on this machine: built from C, with the AAR's own TFLite library beside it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from pocketvl.devices.prepared_inputs import PLAN_FILE, PLAN_HEAD, write_peaks
from pocketvl_runtime.bench_result import BenchResult
from pocketvl_runtime.op_profile import described_graph, made_up_inputs

ROOT = Path(__file__).parents[2]
TFLITE = Path(os.environ.get("POCKETVL_DESKTOP_TFLITE", ROOT / "build" / "android" / "tflite"))
_COMPILE = ("gcc", "-std=gnu11", "-O2", "-Wall", "-Wextra", "-Werror")
_LIBRARIES = ("-ldl", "-lm", "-pthread")


def obstacle() -> str | None:
    """Why the program cannot be built here; None: it can."""
    if not (TFLITE / "libtensorflowlite_jni.so").exists():
        return f"no TFLite library for a desktop in {TFLITE}: make android-tflite"
    return None if shutil.which("gcc") else "no gcc: apt-get install gcc libc6-dev"


def build(folder: Path) -> Path:
    """Compile the program into a folder, and copy its libraries there."""
    program = folder / "pocketvl-bench"
    sources = sorted((ROOT / "android_demo" / "bench_binary").glob("*.c"))
    subprocess.run([*_COMPILE, "-o", str(program), *map(str, sources), *_LIBRARIES], check=True)
    for library in TFLITE.glob("*.so"):
        shutil.copy(library, folder)
    return program


def bench_graph(program: Path, path: Path, threads: int = 1) -> BenchResult:
    """Time a graph file that is in no bundle, and its operators, on inputs that are made up."""
    graph, _ = described_graph(path)
    bundle = path.with_suffix(".bundle")
    inputs = bundle.with_name(f"{bundle.name}.inputs")
    bundle.mkdir()
    inputs.mkdir()
    shutil.copy(path, bundle)
    lines = [PLAN_HEAD, f"bundle\t{path.name}\t{'0' * 64}"]
    lines.append(f"graph\ttflite\tfusion\t{graph.component}\t{path.name}\t")
    for name, value in made_up_inputs(graph).items():
        (inputs / name).write_bytes(value.tobytes())
        lines.append(f"input\t{name}\t{name}")
    (inputs / PLAN_FILE).write_text("\n".join([*lines, *write_peaks(inputs)]) + "\n")
    command = [str(program), str(bundle), "--json", "--variant", "tflite", "--threads", str(threads)]
    done = subprocess.run(
        [*command, "--runs", "3", "--ops"],
        env={**os.environ, "LD_LIBRARY_PATH": str(program.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    return BenchResult.from_json(done.stdout, "what it wrote")
