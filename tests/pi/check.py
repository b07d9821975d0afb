"""Does the runtime work on a Raspberry Pi, as far as a PC can tell? Its wheel under an emulated arm64 Python.

    python -m tests.pi.check build/pi [BUNDLE...]

makes the emulated Pi (`tests.pi.prefix`), an environment in it with the locked versions of the engines, and
has pip install the runtime's wheel there. Then info, selftest, match and ask run as on a Pi's command line,
and every output of every variant is compared with this machine's: `LIMITS` says how far they may be apart.
Times are those of an emulation, and are not looked at.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import numpy as np

from pocketvl_runtime.bundle import Bundle
from pocketvl_runtime.isa import has_exact_int8
from tests.pi.prefix import PYTHON, make_prefix
from tests.small_bundles import write_bundles

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "runtime.txt"
CPUS = {"cortex-a76": "Raspberry Pi 5", "cortex-a72": "Raspberry Pi 4"}
LIMITS = {"float": 1e-5, "int8": 2e-2}
"""How far outputs may be apart, relative to the largest. Integers are added exactly on both machines, but
what is left in floats between them (LayerNorms, softmax, the last projection) is added in another order; if
that moves a value over the border of two int8 steps, the output moves by more than floats would."""
_PROBABILITY_LIMIT = 2e-2
_SHIPPED = ("onnx-int8", "tflite-int8")
_HERE = (sys.executable, "-m", "pocketvl_runtime")
_OUTPUTS = ROOT / "tests" / "pi" / "outputs.py"


def make_venv(root: Path) -> Path:
    """The emulated Python of a virtual environment with the runtime's wheel and both engines.

    Raises:
        click.ClickException: something cannot be had or installed.
    """
    base = make_prefix(root)
    venv, dist = root.absolute() / "venv", root / "dist"
    python = venv / "bin" / "python"
    if not python.exists():
        call(base, "-m", "venv", venv)
    # Under emulation pip needs a minute to resolve and download; uv takes the wheels in seconds, held to the
    # lock's hashes (and to nothing of pyproject.toml, whose constraints have none). What is left to pip is
    # what counts here: to read our wheel, find its requirements met, install it.
    uv = Path(sys.executable).parent / "uv"
    stamp = root / f"wheels-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]}"
    site = venv / "lib" / PYTHON / "site-packages"
    version = PYTHON.removeprefix("python")
    where = ("--python", sys.executable, "--python-version", version, "--target", site)
    options = ("--python-platform", "aarch64-manylinux_2_28", "--require-hashes", "--only-binary", ":all:")
    if not stamp.exists():
        call(uv, "pip", "install", "--quiet", "--no-config", *where, *options, "-r", LOCK)
        stamp.touch()
    call(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", dist, ROOT / "runtime")
    (wheel,) = dist.glob("*.whl")
    pip = (python, "-m", "pip", "install", "--quiet", "--no-index", "--force-reinstall", "--no-deps")
    call(*pip, wheel)
    call(python, "-m", "pip", "install", "--quiet", "--no-index", f"{wheel}[onnx,litert]")
    return python


def check_bundle(python: Path, bundle: Path, out: Path) -> list[str]:
    """Runs the commands there and compares answers and outputs with this machine's.

    Returns:
        What was found, a line each.

    Raises:
        click.ClickException: a command failed, or an output is not what it must be.
    """
    run, opened = python.parent / "pocketvl-run", Bundle.open(bundle)
    info = json.loads(call(run, "info", bundle, "--json"))
    lacking = [name for name, each in info["variants"].items() if not each["runs_here"]]
    if lacking:
        raise click.ClickException(f"{', '.join(lacking)} of {bundle} cannot run on the emulated Pi")
    report = json.loads(call(run, "selftest", bundle, "--json"))
    found = [f"{info['machine']['isa']}: selftest of {', '.join(report['variants'])} is good"]
    image, texts = opened.file(opened.golden().images[0].file), [t.text for t in opened.golden().texts[:4]]
    for task, option in (("match", "--text"), ("ask", "--question")):
        for name in _SHIPPED if task in opened.manifest.tasks else ():
            words = [word for text in texts for word in (option, text)]
            asked: tuple[str | Path, ...] = (
                task,
                bundle,
                "--variant",
                name,
                "--image",
                image,
                *words,
                "--json",
            )
            theirs, ours = (_answer(call(*command, *asked)) for command in ((run,), _HERE))
            if theirs[0] != ours[0] or abs(theirs[1] - ours[1]) > _PROBABILITY_LIMIT:
                raise click.ClickException(f"{task} with {name} of {bundle}: {theirs}, here {ours}")
            found.append(f"{task} with {name}: {theirs[0]!r}, {theirs[1]:.4f}, as here")
    for cpu in CPUS:
        found += compare_outputs(python, bundle, out, cpu)
    return [f"{bundle.name}: {line}" for line in found]


def compare_outputs(python: Path, bundle: Path, out: Path, cpu: str) -> Iterator[str]:
    """Compares all outputs on an emulated processor with this machine's; gives a line for each variant."""
    ours, theirs = out / f"{bundle.name}-here.npz", out / f"{bundle.name}-{cpu}.npz"
    call(sys.executable, _OUTPUTS, bundle, ours)
    call(python, _OUTPUTS, bundle, theirs, cpu=cpu)
    with np.load(ours) as here, np.load(theirs) as there:
        if set(here) != set(there) or not set(here):
            raise click.ClickException(f"{bundle}: other variants or outputs on the emulated Pi than here")
        for name in dict.fromkeys(key.partition("|")[0] for key in here):
            keys = [key for key in here if key.partition("|")[0] == name]
            equal = sum(here[key].tobytes() == there[key].tobytes() for key in keys)
            apart = max(float(np.abs(here[key] - there[key]).max() / np.abs(here[key]).max()) for key in keys)
            what = f"{CPUS[cpu]}, {name}: {equal} of {len(keys)} outputs bit-equal, all within {apart:.1e}"
            if not apart <= LIMITS["int8" if name.endswith("int8") else "float"]:
                raise click.ClickException(f"{bundle.name}: {what}: more than is allowed")
            yield what


def call(*command: str | Path, cpu: str = "cortex-a76") -> str:
    """Runs a command, for the emulated Python on a processor; gives what it printed.

    Raises:
        click.ClickException: it failed; the message holds its last line.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    env |= {"PI_CPU": cpu, "OMP_NUM_THREADS": "1"}
    if command[0] == sys.executable:
        env["PYTHONPATH"] = f"{ROOT / 'runtime'}"
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, env=env
    )
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()
        words = " ".join(Path(word).name for word in command[:4])
        raise click.ClickException(f"{words} failed ({done.returncode}): {said[-1]}")
    return done.stdout


def _answer(text: str) -> tuple[str, float]:
    """The best of a match, or the first answer to a question, with its probability."""
    rows: list[dict[str, Any]] = json.loads(text)["results"]
    best = max(rows[0].get("answers", rows), key=lambda row: float(row["probability"]))
    return str(best.get("answer", best.get("text"))), float(best["probability"])


@click.command()
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("bundles", nargs=-1, type=click.Path(path_type=Path))
def main(root: Path, bundles: tuple[Path, ...]) -> None:
    """Check the runtime under the emulated Pi in ROOT, on tiny bundles and on those that are named."""
    start = time.monotonic()

    def tell(line: str) -> None:
        click.echo(f"{time.monotonic() - start:5.0f} s  {line}", err=True)

    with ThreadPoolExecutor(2) as both:
        tiny = both.submit(write_bundles)
        python = make_venv(root)
        tell("the emulated Pi has the runtime's wheel and both engines")
        chosen = [*tiny.result(), *bundles]
        tell("bundles are there")
        for lines in both.map(lambda bundle: check_bundle(python, bundle, root), chosen):
            click.echo("\n".join(lines))
    tell(f"{len(chosen)} bundles checked; int8 sums here have {'32' if has_exact_int8() else '16'} bits")


if __name__ == "__main__":
    main()
